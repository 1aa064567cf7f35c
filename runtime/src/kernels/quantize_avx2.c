/* Quantize in vectors of four doubles: see plain_template.h for why double. */
#include <immintrin.h>
#include <string.h>

#include "kernels_isa.h"

enum { LANES = 4 };

/* clip(floor(x * scale + 1/2), +-limit). MINPD returns its second operand for a NaN, as the plain kernel does. */
LQC_INLINE __m128i quantized(const float *in, const double *scales, double limit) {
  __m256d v = _mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(in)), _mm256_loadu_pd(scales));
  v = _mm256_min_pd(_mm256_add_pd(v, _mm256_set1_pd(0.5)), _mm256_set1_pd(limit));
  return _mm256_cvttpd_epi32(_mm256_floor_pd(_mm256_max_pd(v, _mm256_set1_pd(-limit))));
}

void lqc_quantize_i8_avx2(int8_t *out, const float *in, const double *scales, size_t n) {
  size_t e = 0;
  for (; e + LANES <= n; e += LANES) {
    __m128i words = _mm_packs_epi32(quantized(in + e, scales + e, INT8_MAX), _mm_setzero_si128());
    int32_t four = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
    memcpy(out + e, &four, sizeof(four));
  }
  lqc_quantize_i8_scalar(out + e, in + e, scales + e, n - e);
}

void lqc_quantize_i16_avx2(int16_t *out, const float *in, const double *scales, size_t n) {
  size_t e = 0;
  for (; e + LANES <= n; e += LANES) {
    __m128i words = _mm_packs_epi32(quantized(in + e, scales + e, INT16_MAX), _mm_setzero_si128());
    _mm_storel_epi64((__m128i *)(out + e), words);
  }
  lqc_quantize_i16_scalar(out + e, in + e, scales + e, n - e);
}
