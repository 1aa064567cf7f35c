/* Depthwise convolution of int8: the sums of 32 or 16 channels stay in registers for all taps. A product of two int8
 * fits 16 bits, a sum of two may not. */
#include <immintrin.h>

#include "int8_depthwise.h"

enum { LANES = 16, MAX_VECTORS = 2 };

LQC_INLINE __m256i int8_at(const int8_t *values) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)values));
}

LQC_INLINE void sum_block(const lqc_depthwise_pixel *pixel, size_t channel, const uint32_t vectors) {
  __m256i sums[MAX_VECTORS][2];
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    const __m256i *bias = (const __m256i *)(pixel->bias + channel + v * LANES);
    sums[v][0] = _mm256_loadu_si256(bias);
    sums[v][1] = _mm256_loadu_si256(bias + 1);
  }
  const uint32_t columns = pixel->columns;
  for (uint32_t row = 0; row < pixel->rows; ++row) {
    const int8_t *x = pixel->input + row * pixel->row_stride + channel;
    const int8_t *w = pixel->weights + row * pixel->row_weights + channel;
    for (uint32_t column = 0; column < columns; ++column) {
      LQC_UNROLL
      for (uint32_t v = 0; v < vectors; ++v) {
        __m256i product = _mm256_mullo_epi16(int8_at(x + v * LANES), int8_at(w + v * LANES));
        sums[v][0] = _mm256_add_epi32(sums[v][0], _mm256_cvtepi16_epi32(_mm256_castsi256_si128(product)));
        sums[v][1] = _mm256_add_epi32(sums[v][1], _mm256_cvtepi16_epi32(_mm256_extracti128_si256(product, 1)));
      }
      x += pixel->column_stride;
      w += pixel->column_weights;
    }
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    __m256i *out = (__m256i *)(pixel->sums + channel + v * LANES);
    _mm256_storeu_si256(out, sums[v][0]);
    _mm256_storeu_si256(out + 1, sums[v][1]);
  }
}

LQC_DEFINE_INT8_DEPTHWISE(lqc_int8_depthwise_avx2)
