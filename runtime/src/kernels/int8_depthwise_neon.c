/* Depthwise convolution of int8: the sums of 32 or 16 channels stay in registers for all taps. A product of two int8
 * fits int16, a sum of two may not. */
#include "int8_depthwise.h"
#include "neon_intrinsics.h"

enum { LANES = 16, MAX_VECTORS = 2 };

LQC_INLINE void sum_block(const lqc_depthwise_pixel *pixel, size_t channel, const uint32_t vectors) {
  int32x4_t sums[MAX_VECTORS][4];
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    LQC_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      sums[v][i] = vld1q_s32(pixel->bias + channel + v * LANES + i * 4);
    }
  }
  const uint32_t columns = pixel->columns;
  for (uint32_t row = 0; row < pixel->rows; ++row) {
    const int8_t *x = pixel->input + row * pixel->row_stride + channel;
    const int8_t *w = pixel->weights + row * pixel->row_weights + channel;
    for (uint32_t column = 0; column < columns; ++column) {
      LQC_UNROLL
      for (uint32_t v = 0; v < vectors; ++v) {
        const int8x16_t x16 = vld1q_s8(x + v * LANES), w16 = vld1q_s8(w + v * LANES);
        const int16x8_t low = vmull_s8(vget_low_s8(x16), vget_low_s8(w16)), high = vmull_high_s8(x16, w16);
        sums[v][0] = vaddw_s16(sums[v][0], vget_low_s16(low));
        sums[v][1] = vaddw_high_s16(sums[v][1], low);
        sums[v][2] = vaddw_s16(sums[v][2], vget_low_s16(high));
        sums[v][3] = vaddw_high_s16(sums[v][3], high);
      }
      x += pixel->column_stride;
      w += pixel->column_weights;
    }
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    LQC_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      vst1q_s32(pixel->sums + channel + v * LANES + i * 4, sums[v][i]);
    }
  }
}

LQC_DEFINE_INT8_DEPTHWISE(lqc_int8_depthwise_neon)
