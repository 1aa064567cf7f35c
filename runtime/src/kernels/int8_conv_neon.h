/* Sums of a block of int8 convolution in NEON registers: where they start, and where they go. Private to kernels/. */
#ifndef LQC_INT8_CONV_NEON_H
#define LQC_INT8_CONV_NEON_H

#include <string.h>

#include "int8_gather.h"
#include "neon_intrinsics.h"

/* A block of channels is computed at once, or, where registers do not hold its sums, one half after the other. */
#if defined(__aarch64__)
enum { HALVES = 1 };
#else
enum { HALVES = 2 };
#endif
enum { LANES = LQC_INT8_LANES / HALVES, VECTORS = LANES / 4 };

/* From the starts of the first channel, int32 [LANES]. */
LQC_INLINE void lqc_start_sums(int32x4_t sum[][VECTORS], const int8_t *weights, const uint32_t pixels) {
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      sum[p][v] = vreinterpretq_s32_s8(vld1q_s8(weights + 16 * v));
    }
  }
}

/* Sums that are copied as an array stay in memory, which GCC writes in every step of a loop. */
LQC_INLINE void lqc_store_sums(const lqc_int8_tile *tile, uint32_t channel, int32x4_t sum[][VECTORS],
                               const uint32_t pixels) {
  const uint32_t lanes = lqc_min_u32(tile->out_channels - channel, LANES);
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    int32_t last[LANES], *const out = tile->sums + p * tile->sums_stride + channel;
    int32_t *const to = lanes == LANES ? out : last;
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      vst1q_s32(to + 4 * v, sum[p][v]);
    }
    if (lanes < LANES) {
      memcpy(out, last, lanes * sizeof(*out));
    }
  }
}

#endif /* LQC_INT8_CONV_NEON_H */
