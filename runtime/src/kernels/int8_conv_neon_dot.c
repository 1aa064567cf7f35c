/* int8 convolution with SDOT, which processors from Armv8.2 on may have: four products of bytes and their sum in a lane
 * of 32 bits. Lanes are output channels, four consecutive elements of a filter lie together.
 *
 * A register tile is 4 pixels x 16 channels: 16 accumulators, four vectors of weights, and a vector of 16 elements for
 * each pixel. */
#include <arm_neon.h>

#include "int8_gather.h"

enum { STEPS = 16, VECTORS = LQC_INT8_LANES / 4 };

LQC_DEFINE_GATHER(int8_t, memcpy)

/* From the starts of the first channel, int32 [LQC_INT8_LANES]. */
LQC_INLINE void start_sums(int32x4_t sum[][VECTORS], const int8_t *weights, const uint32_t pixels) {
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      sum[p][v] = vreinterpretq_s32_s8(vld1q_s8(weights + 16 * v));
    }
  }
}

/* Sums that are copied as an array stay in memory, which GCC writes in every step of a loop. */
LQC_INLINE void store_sums(const lqc_int8_tile *tile, uint32_t channel, int32x4_t sum[][VECTORS],
                           const uint32_t pixels) {
  const uint32_t lanes = lqc_min_u32(tile->out_channels - channel, LQC_INT8_LANES);
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    int32_t last[LQC_INT8_LANES], *const out = tile->sums + p * tile->sums_stride + channel;
    int32_t *const to = lanes == LQC_INT8_LANES ? out : last;
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      vst1q_s32(to + 4 * v, sum[p][v]);
    }
    if (lanes < LQC_INT8_LANES) {
      memcpy(out, last, lanes * sizeof(*out));
    }
  }
}

/* sums += four elements of x times 16 filters. */
#define LQC_ADD_FOUR(k)                                             \
  {                                                                 \
    int8x16_t w[VECTORS];                                           \
    LQC_UNROLL                                                      \
    for (uint32_t v = 0; v < VECTORS; ++v) {                        \
      w[v] = vld1q_s8(weights + (k) * 4 * LQC_INT8_LANES + 16 * v); \
    }                                                               \
    LQC_UNROLL                                                      \
    for (uint32_t p = 0; p < pixels; ++p) {                         \
      LQC_UNROLL                                                    \
      for (uint32_t v = 0; v < VECTORS; ++v) {                      \
        sum[p][v] = vdotq_laneq_s32(sum[p][v], w[v], x[p], k);      \
      }                                                             \
    }                                                               \
  }

/* Sums of `pixels` pixels of one block; a constant after inlining, so that the sums live in registers. */
LQC_INLINE void tile_of(const lqc_int8_tile *tile, const int8_t *weights, uint32_t channel, const uint32_t pixels) {
  const int8_t *patches = tile->patches;
  int32x4_t sum[LQC_INT8_TILE_PIXELS][VECTORS];
  start_sums(sum, weights, pixels);
  weights += LQC_INT8_LANES * sizeof(int32_t);
  for (size_t i = 0; i < tile->size; i += STEPS, patches += STEPS, weights += STEPS * LQC_INT8_LANES) {
    int8x16_t x[LQC_INT8_TILE_PIXELS];
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      x[p] = vld1q_s8(patches + p * tile->patch_bytes);
    }
    LQC_ADD_FOUR(0)
    LQC_ADD_FOUR(1)
    LQC_ADD_FOUR(2)
    LQC_ADD_FOUR(3)
  }
  store_sums(tile, channel, sum, pixels);
}

LQC_DEFINE_INT8_ACCUMULATE(STEPS)

const lqc_int8_kernel lqc_int8_conv_neon_dot = {
    .name = "int8_conv2d_neon_dot",
    .isa = LQC_ISA_NEON,
    .group = 4,
    .multiple = STEPS,
    .element_bytes = sizeof(int8_t),
    .gather = gather,
    .accumulate = accumulate,
};
