/* Pools: 64, or 16, elements of a window's taps meet in one register. */
#include <immintrin.h>

#include "kernels_isa.h"

void lqc_max_i8_avx512(int8_t *out, const lqc_pool_taps *taps, size_t n) {
  for (size_t e = 0; e < n; e += 64) {
    __mmask64 lanes = lqc_low_mask(n - e < 64 ? (uint32_t)(n - e) : 64);
    __m512i largest = _mm512_set1_epi8(-128);
    for (uint32_t i = 0; i < taps->rows; ++i) {
      const int8_t *tap = taps->input + i * taps->row_stride + e;
      for (uint32_t j = 0; j < taps->columns; ++j, tap += taps->column_stride) {
        largest = _mm512_max_epi8(largest, _mm512_maskz_loadu_epi8(lanes, tap));
      }
    }
    _mm512_mask_storeu_epi8(out + e, lanes, largest);
  }
}

/* 2^8 taps at most, whose sums fit 16 bits. */
static void sum_few(int32_t *sums, const lqc_pool_taps *taps, size_t n) {
  for (size_t e = 0; e < n; e += 32) {
    const uint32_t left = n - e < 32 ? (uint32_t)(n - e) : 32;
    const __mmask32 lanes = (__mmask32)lqc_low_mask(left);
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t i = 0; i < taps->rows; ++i) {
      const int8_t *tap = taps->input + i * taps->row_stride + e;
      for (uint32_t j = 0; j < taps->columns; ++j, tap += taps->column_stride) {
        sum = _mm512_add_epi16(sum, _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(lanes, tap)));
      }
    }
    _mm512_mask_storeu_epi32(sums + e, (__mmask16)lanes, _mm512_cvtepi16_epi32(_mm512_castsi512_si256(sum)));
    if (left > 16) {
      const __m256i high = _mm512_extracti64x4_epi64(sum, 1);
      _mm512_mask_storeu_epi32(sums + e + 16, (__mmask16)(lanes >> 16), _mm512_cvtepi16_epi32(high));
    }
  }
}

void lqc_sum_i8_avx512(int32_t *sums, const lqc_pool_taps *taps, size_t n) {
  if ((uint64_t)taps->rows * taps->columns <= 256) {
    sum_few(sums, taps, n);
    return;
  }
  for (size_t e = 0; e < n; e += 16) {
    __mmask16 lanes = (__mmask16)lqc_low_mask(n - e < 16 ? (uint32_t)(n - e) : 16);
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t i = 0; i < taps->rows; ++i) {
      const int8_t *tap = taps->input + i * taps->row_stride + e;
      for (uint32_t j = 0; j < taps->columns; ++j, tap += taps->column_stride) {
        sum = _mm512_add_epi32(sum, _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, tap)));
      }
    }
    _mm512_mask_storeu_epi32(sums + e, lanes, sum);
  }
}

/* MAXPS returns its second operand unless the first is larger, for a NaN too. */
void lqc_max_f32_avx512(float *out, const lqc_pool_taps *taps, size_t n) {
  for (size_t e = 0; e < n; e += 16) {
    __mmask16 lanes = (__mmask16)lqc_low_mask(n - e < 16 ? (uint32_t)(n - e) : 16);
    const int8_t *first = taps->input + e * sizeof(float);
    __m512 largest = _mm512_maskz_loadu_ps(lanes, first);
    for (uint32_t i = 0; i < taps->rows; ++i) {
      const int8_t *tap = first + i * taps->row_stride;
      for (uint32_t j = 0; j < taps->columns; ++j, tap += taps->column_stride) {
        largest = _mm512_max_ps(_mm512_maskz_loadu_ps(lanes, tap), largest);
      }
    }
    _mm512_mask_storeu_ps(out + e, lanes, largest);
  }
}

void lqc_average_f32_avx512(float *out, const lqc_pool_taps *taps, size_t n) {
  const __m512 count = _mm512_set1_ps((float)((size_t)taps->rows * taps->columns));
  for (size_t e = 0; e < n; e += 16) {
    __mmask16 lanes = (__mmask16)lqc_low_mask(n - e < 16 ? (uint32_t)(n - e) : 16);
    __m512 sum = _mm512_setzero_ps();
    for (uint32_t i = 0; i < taps->rows; ++i) {
      const int8_t *tap = taps->input + e * sizeof(float) + i * taps->row_stride;
      for (uint32_t j = 0; j < taps->columns; ++j, tap += taps->column_stride) {
        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, tap));
      }
    }
    _mm512_mask_storeu_ps(out + e, lanes, _mm512_div_ps(sum, count));
  }
}
