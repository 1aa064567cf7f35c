/* Quantize in vectors of eight doubles: see plain_template.h for why double. */
#include <immintrin.h>

#include "kernels_isa.h"

enum { LANES = 8 };

/* clip(floor(x * scale + 1/2), +-limit). MINPD returns its second operand for a NaN, as the plain kernel does. */
LQC_INLINE __m256i quantized(const float *in, const double *scales, __mmask8 lanes, double limit) {
  __m512d x = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(lanes, in));
  __m512d v = _mm512_mul_pd(x, _mm512_maskz_loadu_pd(lanes, scales));
  v = _mm512_min_pd(_mm512_add_pd(v, _mm512_set1_pd(0.5)), _mm512_set1_pd(limit));
  v = _mm512_roundscale_pd(_mm512_max_pd(v, _mm512_set1_pd(-limit)), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  return _mm512_cvttpd_epi32(v);
}

LQC_INLINE __mmask8 lanes_of(size_t left) {
  return left >= LANES ? 0xff : (__mmask8)lqc_low_mask((uint32_t)left);
}

void lqc_quantize_i8_avx512(int8_t *out, const float *in, const double *scales, size_t n) {
  for (size_t e = 0; e < n; e += LANES) {
    __mmask8 lanes = lanes_of(n - e);
    __m256i q = quantized(in + e, scales + e, lanes, INT8_MAX);
    _mm_mask_storeu_epi8(out + e, lanes, _mm256_cvtepi32_epi8(q));
  }
}

void lqc_quantize_i16_avx512(int16_t *out, const float *in, const double *scales, size_t n) {
  for (size_t e = 0; e < n; e += LANES) {
    __mmask8 lanes = lanes_of(n - e);
    __m256i q = quantized(in + e, scales + e, lanes, INT16_MAX);
    _mm_mask_storeu_epi16(out + e, lanes, _mm256_cvtepi32_epi16(q));
  }
}
