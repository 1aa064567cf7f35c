/* int8 convolution. Included once for each instruction set, which its compiler options choose; LQC_ISA(name) is what a
 * name becomes. Preparing has proven that no sum, with the bias or without, leaves int32. */
#include <string.h>

#include "kernels_isa.h"

/* Vectors of 128 bits, which every compiler that builds this keeps in registers where the machine has them. */
typedef int8_t int8x8 __attribute__((vector_size(8)));
typedef int16_t int16x8 __attribute__((vector_size(16)));
typedef int16_t int16x4 __attribute__((vector_size(8)));
typedef int32_t int32x4 __attribute__((vector_size(16)));
#define VECTORS (LQC_INT8_LANES / 4)

/* sums[0 .. 1] += x * w; a product fits 16 bits: at most 128 * 128. */
LQC_INLINE void add_products(int32x4 *sums, int16x8 w, int16_t x) {
  int16x8 products = w * x;
  int16x4 halves[2];
  memcpy(halves, &products, sizeof(products));
  sums[0] += __builtin_convertvector(halves[0], int32x4);
  sums[1] += __builtin_convertvector(halves[1], int32x4);
}

/* One block of channels of `pixels` pixels. Inlined with a constant `pixels`, so that the sums stay in registers. */
LQC_INLINE void sum_block(const lqc_int8_tile *t, const int8_t *input, uint32_t pixels, const int8_t *weights,
                          uint32_t first, int32_t *sums) {
  int32x4 block[LQC_INT8_TILE_PIXELS][VECTORS] = {{{0}}};
  uint32_t lanes = lqc_min_u32(t->out_channels - first, LQC_INT8_LANES);
  for (uint32_t i = 0; i < t->rows; ++i) {
    for (uint32_t j = 0; j < t->columns; ++j) {
      const int8_t *x = input + i * t->row_stride + j * t->column_stride;
      const int8_t *w = weights + i * t->row_weights + j * t->column_weights;
      for (uint32_t k = 0; k < t->depth; ++k, w += LQC_INT8_LANES) {
        LQC_UNROLL
        for (uint32_t v = 0; v < VECTORS; v += 2) {
          int8x8 bytes;
          memcpy(&bytes, w + 4 * v, sizeof(bytes));
          int16x8 wide = __builtin_convertvector(bytes, int16x8);
          LQC_UNROLL
          for (uint32_t p = 0; p < pixels; ++p) {
            add_products(&block[p][v], wide, x[p * t->pixel_stride + k]);
          }
        }
      }
    }
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    int32_t all[LQC_INT8_LANES];
    memcpy(all, block[p], sizeof(all));
    for (uint32_t c = 0; c < lanes; ++c) {
      sums[p * t->sums_stride + first + c] = all[c] + t->bias[first + c];
    }
  }
}

void LQC_ISA(lqc_int8_conv)(const lqc_int8_tile *t) {
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

void LQC_ISA(lqc_int8_depthwise)(const lqc_int8_tile *t) {
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
