/* int8 convolution, the reference. Sums start from the bias; preparing has proven that none leaves int32. */
#include <string.h>

#include "kernels_isa.h"

/* One block of channels of `pixels` pixels. Inlined with a constant `pixels`, so that the sums stay in registers. */
LQC_INLINE void sum_block(const lqc_int8_tile *t, const int8_t *input, uint32_t pixels, const int8_t *weights,
                          uint32_t first, int32_t *sums) {
  int32_t block[LQC_INT8_TILE_PIXELS][LQC_INT8_LANES] = {{0}};
  uint32_t lanes = lqc_min_u32(t->out_channels - first, LQC_INT8_LANES);
  for (uint32_t p = 0; p < pixels; ++p) {
    memcpy(block[p], t->bias + first, lanes * sizeof(int32_t));
  }
  for (uint32_t i = 0; i < t->rows; ++i) {
    for (uint32_t j = 0; j < t->columns; ++j) {
      const int8_t *x = input + i * t->row_stride + j * t->column_stride;
      const int8_t *w = weights + i * t->row_weights + j * t->column_weights;
      for (uint32_t k = 0; k < t->depth; ++k, w += LQC_INT8_LANES) {
        LQC_UNROLL
        for (uint32_t p = 0; p < pixels; ++p) {
          int16_t value = x[p * t->pixel_stride + k];
          for (uint32_t c = 0; c < LQC_INT8_LANES; ++c) {
            block[p][c] += value * (int16_t)w[c];
          }
        }
      }
    }
  }
  for (uint32_t p = 0; p < pixels; ++p) {
    memcpy(sums + p * t->sums_stride + first, block[p], lanes * sizeof(int32_t));
  }
}

void lqc_int8_conv_scalar(const lqc_int8_tile *t) {
  const int8_t *weights = t->weights;
  for (uint32_t first = 0; first < t->out_channels; first += LQC_INT8_LANES, weights += t->block_stride) {
    uint32_t p = 0;
    for (; p + 2 <= t->pixels; p += 2) {
      sum_block(t, t->input + p * t->pixel_stride, 2, weights, first, t->sums + p * t->sums_stride);
    }
    if (p < t->pixels) {
      sum_block(t, t->input + p * t->pixel_stride, 1, weights, first, t->sums + p * t->sums_stride);
    }
  }
}

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

void lqc_int8_depthwise_scalar(const lqc_int8_tile *t) {
  for (uint32_t p = 0; p < t->pixels; ++p) {
    int32_t *sums = t->sums + p * t->sums_stride;
    memcpy(sums, t->bias, t->out_channels * sizeof(int32_t));
    for (uint32_t i = 0; i < t->rows; ++i) {
      for (uint32_t j = 0; j < t->columns; ++j) {
        const int8_t *x = t->input + p * t->pixel_stride + i * t->row_stride + j * t->column_stride;
        add_tap(sums, x, t->weights + i * t->row_weights + j * t->column_weights, t->out_channels,
                t->out_channels / t->depth);
      }
    }
  }
}
