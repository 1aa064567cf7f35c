/* Epilogues in 128-bit vectors. Rows of sums, limits, multipliers and offsets are padded to LQC_SUMS_MULTIPLE, so
 * whole vectors may be read; the last, partial vector of an output goes through a buffer. */
#include <string.h>

#include "affine_neon.h"
#include "kernels_isa.h"
#include "neon_intrinsics.h"
#include "pack_bits_neon.h"

enum { LANES_8 = 16, LANES_16 = 8, LANES_32 = 4 };

/* All ones in bytes where 2p + missing >= limit, that is where p > floor((limit - missing - 1) / 2). UHSUB computes
   that in 17 bits, and the result, -16384 .. 32767, fits the signed comparison with p <= 32767. */
LQC_INLINE uint8x16_t reached(const uint16_t *sums, const uint16_t *limits, uint16x8_t missing_and_1) {
  uint16x8_t half[2];
  LQC_UNROLL
  for (uint32_t i = 0; i < 2; ++i) {
    int16x8_t p = vreinterpretq_s16_u16(vld1q_u16(sums + i * LANES_16));
    half[i] = vcgtq_s16(p, vreinterpretq_s16_u16(vhsubq_u16(vld1q_u16(limits + i * LANES_16), missing_and_1)));
  }
  return vuzp1q_u8(vreinterpretq_u8_u16(half[0]), vreinterpretq_u8_u16(half[1]));
}

void lqc_threshold_neon(uint64_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  const uint16x8_t missing_and_1 = vdupq_n_u16((uint16_t)(missing + 1));
  const uint16_t *limits = params->limits, *const end = sums + params->channels;
  const uint64_t *invert = params->invert;
  for (; sums < end; sums += LQC_WORD_BITS, limits += LQC_WORD_BITS) {
    uint8x16_t mask[4];
    LQC_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      mask[i] = reached(sums + i * LANES_8, limits + i * LANES_8, missing_and_1);
    }
    const ptrdiff_t rest = end - sums;
    uint64_t word = lqc_pack_bits_neon(mask[0], mask[1], mask[2], mask[3]);
    if (rest < (ptrdiff_t)LQC_WORD_BITS) {
      word &= lqc_low_mask((uint32_t)rest);
    }
    *out++ = invert ? word ^ *invert++ : word;
  }
}

/* Clipped to int8. SQRSHL shifts right with rounding half up where the shift is negative, left with saturation where
   it is positive; its rounding does not overflow. SQXTN saturates to -128 too, so the limits come after it. The
   subtraction is unsigned because the sums beyond the channels may be anything. */
LQC_INLINE int8x8_t clipped(const uint16_t *sums, uint16x8_t k, int16x8_t shift) {
  int16x8_t a = vreinterpretq_s16_u16(vsubq_u16(k, vshlq_n_u16(vld1q_u16(sums), 1)));
  return vqmovn_s16(vqrshlq_s16(a, shift));
}

void lqc_clip_neon(int8_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  const uint16x8_t k = vdupq_n_u16((uint16_t)(params->k - missing));
  const int16x8_t shift = vdupq_n_s16((int16_t)-params->step_log2);
  const int8x16_t high = vdupq_n_s8((int8_t)params->clip_limit), low = vnegq_s8(high);
  for (uint32_t c = 0; c < params->channels; c += LANES_8) {
    int8x16_t v = vcombine_s8(clipped(sums + c, k, shift), clipped(sums + c + LANES_16, k, shift));
    v = vmaxq_s8(vminq_s8(v, high), low);
    if (params->channels - c >= LANES_8) {
      vst1q_s8(out + c, v);
    } else {
      int8_t last[LANES_8];
      vst1q_s8(last, v);
      memcpy(out + c, last, params->channels - c);
    }
  }
}

void lqc_affine_neon(float *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  if (!lqc_affine_is_exact_neon(params, 0, params->channels)) {
    lqc_affine_scalar(out, sums, missing, params);
    return;
  }
  const lqc_affine_neon_values values = lqc_affine_neon_values_of(missing, params);
  for (uint32_t c = 0; c < params->channels; c += LANES_32) {
    int32x4_t a = vsubq_s32(values.k, vreinterpretq_s32_u32(vshll_n_u16(vld1_u16(sums + c), 1)));
    float32x4_t result = lqc_affine_of_neon(a, vld1q_f32(params->multiplier + c), vld1q_f32(params->offset + c),
                                            &values, params->clip_limit != 0);
    if (params->channels - c >= LANES_32) {
      vst1q_f32(out + c, result);
    } else {
      float last[LANES_32];
      vst1q_f32(last, result);
      memcpy(out + c, last, (params->channels - c) * sizeof(float));
    }
  }
}
