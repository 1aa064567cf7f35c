/* int8 convolution with SMULL, SMLAL and SADALP: products of bytes, two of them added in 16 bits, then pairs of those
 * in 32. Two products fit 16 bits unless a weight is -128, as 2 * 127 * 128 < 2^15; where one is, each is added alone.
 * Lanes are neighbouring elements of one filter, so what a channel has becomes one sum at the end.
 *
 * A register tile is 4 pixels x 4 channels, 16 accumulators; 4 x 2 on A32. */
#include "int8_gather.h"
#include "neon_intrinsics.h"

#if defined(__aarch64__)
#  include "int8_conv_neon_loop.h"
enum { CHANNELS = 4 };
#else
enum { CHANNELS = 2 };
#endif
enum { STEPS = 16 };

/* What is computed of w comes after what `sum` was computed of: with the products of all channels at once, compilers
 * run out of registers. */
#define KEEP_ORDER(w, sum) __asm__("" : "+w"((w).low), "+w"((w).high), "+w"(sum))

/* Whole vectors are read inside a run, the last one again from where its 16 bytes end. */
LQC_INLINE void copy_run(int8_t *to, const int8_t *from, size_t bytes) {
  if (bytes < STEPS) {
    memcpy(to, from, bytes);
    return;
  }
  for (size_t i = 0; i + STEPS <= bytes; i += STEPS) {
    vst1q_s8(to + i, vld1q_s8(from + i));
  }
  vst1q_s8(to + bytes - STEPS, vld1q_s8(from + bytes - STEPS));
}

LQC_DEFINE_GATHER(int8_t, copy_run)

/* sums[p] += x[p] times 16 weights of a channel. */
LQC_INLINE void add_products(int32x4_t sums[][CHANNELS], uint32_t c, const int8x16_t *x, int8x16_t w,
                             const uint32_t pixels, const bool any_weights) {
  int16x8_t products[LQC_INT8_TILE_PIXELS];
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    products[p] = vmull_s8(vget_low_s8(x[p]), vget_low_s8(w));
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    if (any_weights) {
      sums[p][c] = vpadalq_s16(sums[p][c], products[p]);
      products[p] = vmull_high_s8(x[p], w);
    } else {
      products[p] = vmlal_high_s8(products[p], x[p], w);
    }
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    sums[p][c] = vpadalq_s16(sums[p][c], products[p]);
  }
}

/* The sums of each vector, plus what they start from. */
LQC_INLINE void store_sums(int32_t *out, const int32x4_t *sums, const int8_t *starts, uint32_t channels) {
#if defined(__aarch64__)
  int32x4_t all = vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
  all = vaddq_s32(all, vreinterpretq_s32_s8(vld1q_s8(starts)));
  if (channels >= CHANNELS) {
    vst1q_s32(out, all);
    return;
  }
#else
  int32x2_t all = vpadd_s32(vpadd_s32(vget_low_s32(sums[0]), vget_high_s32(sums[0])),
                            vpadd_s32(vget_low_s32(sums[1]), vget_high_s32(sums[1])));
  all = vadd_s32(all, vreinterpret_s32_s8(vld1_s8(starts)));
#endif
  memcpy(out, &all, (channels < CHANNELS ? channels : CHANNELS) * sizeof(*out));
}

LQC_INLINE void sum_steps(int32x4_t sums[][CHANNELS], const lqc_int8_tile *tile, const int8_t *x, const int8_t *w,
                          const uint32_t pixels, const bool any_weights) {
#if defined(__aarch64__)
  if (pixels == LQC_INT8_TILE_PIXELS && !any_weights) {
    lqc_int8_loop_neon(sums, x, tile->patch_bytes, w, STEPS * LQC_INT8_LANES, (tile->size + STEPS - 1) / STEPS);
    return;
  }
#endif
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    LQC_UNROLL
    for (uint32_t c = 0; c < CHANNELS; ++c) {
      sums[p][c] = vdupq_n_s32(0);
    }
  }
  for (size_t i = 0; i < tile->size; i += STEPS, x += STEPS, w += STEPS * LQC_INT8_LANES) {
    int8x16_t elements[LQC_INT8_TILE_PIXELS];
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      elements[p] = vld1q_s8(x + p * tile->patch_bytes);
    }
    LQC_UNROLL
    for (uint32_t c = 0; c < CHANNELS; ++c) {
      add_products(sums, c, elements, vld1q_s8(w + c * STEPS), pixels, any_weights);
    }
  }
}

/* Sums of `pixels` pixels, a constant after inlining, and CHANNELS channels from `first` of the block on. */
LQC_INLINE void part_of(const lqc_int8_tile *tile, const int8_t *block, uint32_t channel, uint32_t first,
                        const uint32_t pixels, const bool any_weights) {
  const int8_t *weights = block + LQC_INT8_LANES * sizeof(int32_t) + first * STEPS;
  int32x4_t sums[LQC_INT8_TILE_PIXELS][CHANNELS];
  sum_steps(sums, tile, tile->patches, weights, pixels, any_weights);
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    store_sums(tile->sums + p * tile->sums_stride + channel + first, sums[p], block + first * sizeof(int32_t),
               tile->out_channels - channel - first);
  }
}

LQC_INLINE void tile_of(const lqc_int8_tile *tile, const int8_t *block, uint32_t channel, const uint32_t pixels) {
  const uint32_t left = tile->out_channels - channel, channels = left < LQC_INT8_LANES ? left : LQC_INT8_LANES;
  for (uint32_t first = 0; first < channels; first += CHANNELS) {
    if (tile->any_weights) {
      part_of(tile, block, channel, first, pixels, true);
    } else {
      part_of(tile, block, channel, first, pixels, false);
    }
  }
}

LQC_DEFINE_INT8_ACCUMULATE(STEPS)

const lqc_int8_kernel lqc_int8_conv_neon = {
    .name = "int8_conv2d_neon",
    .isa = LQC_ISA_NEON,
    .group = STEPS,
    .multiple = STEPS,
    .element_bytes = sizeof(int8_t),
    .gather = gather,
    .accumulate = accumulate,
};
