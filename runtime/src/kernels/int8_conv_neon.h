/* Sums of a block of int8 convolution in NEON registers: where they start, and where they go. Private to kernels/. */
#ifndef LQC_INT8_CONV_NEON_H
#define LQC_INT8_CONV_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "int8_gather.h"

enum { VECTORS = LQC_INT8_LANES / 4 };

/* From the block's first bytes, which are int32 [LQC_INT8_LANES]; the rest of it is returned. */
LQC_INLINE const int8_t *lqc_start_sums(int32x4_t sum[][VECTORS], const int8_t *weights, const uint32_t pixels) {
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      sum[p][v] = vreinterpretq_s32_s8(vld1q_s8(weights + 16 * v));
    }
  }
  return weights + LQC_INT8_LANES * sizeof(int32_t);
}

LQC_INLINE void lqc_store_sums(const lqc_int8_tile *tile, uint32_t channel, int32x4_t sum[][VECTORS],
                               const uint32_t pixels) {
  uint32_t lanes = lqc_min_u32(tile->out_channels - channel, LQC_INT8_LANES);
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    memcpy(tile->sums + p * tile->sums_stride + channel, sum[p], lanes * sizeof(int32_t));
  }
}

#endif /* LQC_INT8_CONV_NEON_H */
