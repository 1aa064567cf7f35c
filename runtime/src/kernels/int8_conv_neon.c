/* int8 convolution with SMLAL: patches widened to int16, weights widened as they are loaded, exact sums in int32. Lanes
 * are output channels. SMULL and SMLAL of bytes would take half as many instructions, but two products of -128 leave
 * int16.
 *
 * A register tile is 4 pixels x 16 channels: 16 accumulators, two vectors of weights, and a vector of eight elements
 * for each pixel; half as many channels on A32. */
#include "int8_conv_neon.h"

enum { STEPS = 8 };

LQC_INLINE void copy_run(int16_t *to, const int8_t *from, size_t bytes) {
  size_t i = 0;
  for (; i + STEPS <= bytes; i += STEPS) {
    vst1q_s16(to + i, vmovl_s8(vld1_s8(from + i)));
  }
  if (i < bytes && bytes >= STEPS) { /* some twice */
    vst1q_s16(to + bytes - STEPS, vmovl_s8(vld1_s8(from + bytes - STEPS)));
    return;
  }
  for (; i < bytes; ++i) {
    to[i] = from[i];
  }
}

LQC_DEFINE_GATHER(int16_t, copy_run)

/* sum += x times LANES weights. */
#if defined(__aarch64__)
#  define LQC_ADD_LANE(k)                                                        \
    {                                                                            \
      int8x16_t bytes = vld1q_s8(weights + (k) * LQC_INT8_LANES);                \
      int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes); \
      LQC_UNROLL                                                                 \
      for (uint32_t p = 0; p < pixels; ++p) {                                    \
        sum[p][0] = vmlal_laneq_s16(sum[p][0], vget_low_s16(low), x[p], k);      \
        sum[p][1] = vmlal_high_laneq_s16(sum[p][1], low, x[p], k);               \
        sum[p][2] = vmlal_laneq_s16(sum[p][2], vget_low_s16(high), x[p], k);     \
        sum[p][3] = vmlal_high_laneq_s16(sum[p][3], high, x[p], k);              \
      }                                                                          \
    }

#else
#  define LQC_HALF(x, k) ((k) < 4 ? vget_low_s16(x) : vget_high_s16(x))
#  define LQC_ADD_LANE(k)                                                                    \
    {                                                                                        \
      const int16x8_t w = vmovl_s8(vld1_s8(weights + (k) * LQC_INT8_LANES));                 \
      LQC_UNROLL                                                                             \
      for (uint32_t p = 0; p < pixels; ++p) {                                                \
        sum[p][0] = vmlal_lane_s16(sum[p][0], vget_low_s16(w), LQC_HALF(x[p], k), (k) % 4);  \
        sum[p][1] = vmlal_lane_s16(sum[p][1], vget_high_s16(w), LQC_HALF(x[p], k), (k) % 4); \
      }                                                                                      \
    }
#endif

LQC_INLINE void half_of(const lqc_int8_tile *tile, const int8_t *block, uint32_t half, uint32_t channel,
                        const uint32_t pixels) {
  const int8_t *weights = block + LQC_INT8_LANES * sizeof(int32_t) + half * LANES;
  const int16_t *patches = tile->patches;
  size_t patch = tile->patch_bytes / sizeof(int16_t);
  int32x4_t sum[LQC_INT8_TILE_PIXELS][VECTORS];
  lqc_start_sums(sum, block + half * LANES * sizeof(int32_t), pixels);
  for (size_t i = 0; i < tile->size; i += STEPS, patches += STEPS, weights += STEPS * LQC_INT8_LANES) {
    int16x8_t x[LQC_INT8_TILE_PIXELS];
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      x[p] = vld1q_s16(patches + p * patch);
    }
    LQC_ADD_LANE(0)
    LQC_ADD_LANE(1)
    LQC_ADD_LANE(2)
    LQC_ADD_LANE(3)
    LQC_ADD_LANE(4)
    LQC_ADD_LANE(5)
    LQC_ADD_LANE(6)
    LQC_ADD_LANE(7)
  }
  lqc_store_sums(tile, channel, sum, pixels);
}

/* Sums of `pixels` pixels of one block; a constant after inlining, so that the sums live in registers. */
LQC_INLINE void tile_of(const lqc_int8_tile *tile, const int8_t *weights, uint32_t channel, const uint32_t pixels) {
  for (uint32_t half = 0; half < HALVES && half * LANES < tile->out_channels - channel; ++half) {
    half_of(tile, weights, half, channel + half * LANES, pixels);
  }
}

LQC_DEFINE_INT8_ACCUMULATE(STEPS)

const lqc_int8_kernel lqc_int8_conv_neon = {
    .name = "int8_conv2d_neon",
    .isa = LQC_ISA_NEON,
    .group = 1,
    .multiple = STEPS,
    .element_bytes = sizeof(int16_t),
    .gather = gather,
    .accumulate = accumulate,
};
