/* Depthwise int8 convolution in plain loops, whose vectors the compiler makes. Included once for each instruction set,
 * which its compiler options choose; LQC_ISA(name) is what a name becomes. Preparing has proven that no sum, with the
 * bias or without, leaves int32. */
#include <string.h>

#include "kernels_isa.h"

static void add_tap(int32_t *restrict sums, const int8_t *restrict x, const int8_t *restrict w, uint32_t channels,
                    uint32_t each) {
  if (each == 1) {
    for (uint32_t c = 0; c < channels; ++c) {
      sums[c] += (int16_t)x[c] * (int16_t)w[c];
    }
    return;
  }
  for (uint32_t c = 0; c < channels; ++x) {
    for (uint32_t end = c + each; c < end; ++c) {
      sums[c] += *x * w[c];
    }
  }
}

void LQC_ISA(lqc_int8_depthwise)(const lqc_depthwise_pixel *pixel) {
  memcpy(pixel->sums, pixel->bias, pixel->out_channels * sizeof(int32_t));
  for (uint32_t i = 0; i < pixel->rows; ++i) {
    for (uint32_t j = 0; j < pixel->columns; ++j) {
      const int8_t *x = pixel->input + i * pixel->row_stride + j * pixel->column_stride;
      const int8_t *w = pixel->weights + i * pixel->row_weights + j * pixel->column_weights;
      add_tap(pixel->sums, x, w, pixel->out_channels, pixel->out_channels / pixel->channels);
    }
  }
}
