/* Fixed point behind an int8 convolution: sums of 32 bits times a multiplier plus an offset, in 64 bits, perhaps a
 * RELU, then int8 or bits or both. What eight channels have is loaded once for all pixels.
 *
 * A RELU before rounding is one behind it. SQXTN saturates, so that whatever the shift leaves is clipped. */
#include "fixed_point_programs.h"
#include "neon_intrinsics.h"

enum { BLOCK = 8, VECTORS = BLOCK / 2 };

typedef struct constants {
  int32x2_t multiplier[VECTORS];
  int64x2_t offset[VECTORS], half[VECTORS], shift[VECTORS], thresholds[VECTORS];
  int16x8_t least;
  uint8_t invert;
} constants;

LQC_INLINE int64x2_t lanes_at(const void *lanes, size_t channel, uint32_t v) {
  return vld1q_s64((const int64_t *)lanes + channel + 2 * v);
}

/* Without signs, offset is offset + half. */
LQC_INLINE constants constants_at(const lqc_usual_program *program, size_t channel, const bool integers,
                                  const bool signs) {
  const block_stores *stores = &program->stores;
  const uint64_t *invert = signs ? stores->signs->invert : NULL;
  const uint64_t inverted = invert ? invert[channel / LQC_WORD_BITS] >> channel % LQC_WORD_BITS : 0;
  constants k = {.least = vdupq_n_s16((int16_t)(program->relu ? 0 : -INT8_MAX)), .invert = (uint8_t)inverted};
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    k.multiplier[v] = vmovn_s64(lanes_at(program->affine->multiplier, channel, v));
    k.offset[v] = lanes_at(program->affine->offset, channel, v);
    if (integers) {
      k.half[v] = lanes_at(stores->integers->half, channel, v);
      k.shift[v] = vnegq_s64(lanes_at(stores->integers->right, channel, v));
      k.offset[v] = signs ? k.offset[v] : vaddq_s64(k.offset[v], k.half[v]);
    }
    if (signs) {
      k.thresholds[v] = lanes_at(stores->signs->thresholds, channel, v);
    }
  }
  return k;
}

LQC_INLINE uint8_t signs_of(const int64x2_t y[VECTORS], const constants *k) {
  uint32x4_t reached[2];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; v += 2) {
    reached[v / 2] = vcombine_u32(vmovn_u64(vcleq_s64(y[v], k->thresholds[v])),
                                  vmovn_u64(vcleq_s64(y[v + 1], k->thresholds[v + 1])));
  }
  const uint8x8_t bytes = vmovn_u16(vcombine_u16(vmovn_u32(reached[0]), vmovn_u32(reached[1])));
  return (uint8_t)(vaddv_u8(vand_u8(bytes, vcreate_u8(0x8040201008040201u))) ^ k->invert);
}

LQC_INLINE int8x8_t rounded(const int64x2_t y[VECTORS], const constants *k, const bool signs) {
  int32x4_t q[2];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; v += 2) {
    const int64x2_t low = signs ? vaddq_s64(y[v], k->half[v]) : y[v];
    const int64x2_t high = signs ? vaddq_s64(y[v + 1], k->half[v + 1]) : y[v + 1];
    q[v / 2] = vqmovn_high_s64(vqmovn_s64(vshlq_s64(low, k->shift[v])), vshlq_s64(high, k->shift[v + 1]));
  }
  return vqmovn_s16(vmaxq_s16(vqmovn_high_s32(vqmovn_s32(q[0]), q[1]), k->least));
}

LQC_INLINE void run_block(const lqc_usual_program *program, const lqc_lane_pixels *pixels, size_t channel,
                          const bool integers, const bool signs) {
  const block_stores *stores = &program->stores;
  const constants k = constants_at(program, channel, integers, signs);
  const uint8_t *values = pixels->values;
  for (uint32_t p = 0; p < pixels->count; ++p, values += pixels->value_bytes) {
    const size_t place = lqc_lane_place(pixels, p);
    const int32_t *from = (const int32_t *)(const void *)values + channel;
    int64x2_t y[VECTORS];
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; v += 2) {
      const int32x4_t x = vld1q_s32(from + 2 * v);
      y[v] = vmlal_s32(k.offset[v], vget_low_s32(x), k.multiplier[v]);
      y[v + 1] = vmlal_s32(k.offset[v + 1], vget_high_s32(x), k.multiplier[v + 1]);
    }
    if (integers) {
      vst1_s8(stores->integers_out + place * stores->integers_bytes + channel, rounded(y, &k, signs));
    }
    if (signs) {
      stores->signs_out[place * stores->signs_bytes + channel / 8] = signs_of(y, &k);
    }
  }
}

static bool is_affine(const lqc_lane_program *program, const lqc_lane_pixels *pixels, lqc_usual_program *found) {
  if (pixels->source != LQC_LANES_INT32 || !lqc_find_usual(program, pixels, found) || found->relu_before ||
      found->affine == NULL || found->add) {
    return false;
  }
  const bool signs = found->stores.signs != NULL;
  return !(found->relu && signs) && program->channels % (signs ? LQC_WORD_BITS : BLOCK) == 0;
}

bool lqc_fixed_point_affine_neon(const lqc_lane_program *program, const lqc_lane_pixels *pixels) {
  lqc_usual_program found;
  if (!is_affine(program, pixels, &found)) {
    return false;
  }
  const bool integers = found.stores.integers != NULL, signs = found.stores.signs != NULL;
  for (size_t channel = 0; channel < program->channels; channel += BLOCK) {
    if (integers && signs) {
      run_block(&found, pixels, channel, true, true);
    } else if (integers) {
      run_block(&found, pixels, channel, true, false);
    } else {
      run_block(&found, pixels, channel, false, true);
    }
  }
  return true;
}
