/* Quantize in vectors of eight float32.
 *
 * x * 2^f is exact, save where it is beyond +-2^127, which is clipped, or too small for all its bits, where the result
 * is 0 whatever they are. What v is above its floor is exact too, save for -1/2 < v < 0, of which it is above 1/2 and
 * stays at least that when rounded. */
#include <immintrin.h>

#include "kernels_isa.h"

enum { LANES = 8 };

/* clip(floor(x * scale + 1/2), +-limit) in 16 bits. MINPS returns its second operand for a NaN, as the plain kernel
 * does. */
LQC_INLINE __m128i quantized(const float *in, const float *scales, float limit) {
  __m256 v = _mm256_mul_ps(_mm256_loadu_ps(in), _mm256_loadu_ps(scales));
  v = _mm256_max_ps(_mm256_min_ps(v, _mm256_set1_ps(limit)), _mm256_set1_ps(-limit));
  __m256 floors = _mm256_floor_ps(v);
  __m256 up = _mm256_cmp_ps(_mm256_sub_ps(v, floors), _mm256_set1_ps(0.5f), _CMP_GE_OQ); /* -1 as an integer */
  __m256i q = _mm256_sub_epi32(_mm256_cvttps_epi32(floors), _mm256_castps_si256(up));
  return _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
}

void lqc_quantize_i8_avx2(int8_t *out, const float *in, const float *scales, size_t n) {
  size_t e = 0;
  for (; e + LANES <= n; e += LANES) {
    __m128i words = quantized(in + e, scales + e, INT8_MAX);
    _mm_storel_epi64((__m128i *)(out + e), _mm_packs_epi16(words, words));
  }
  lqc_quantize_i8_scalar(out + e, in + e, scales + e, n - e);
}

void lqc_quantize_i16_avx2(int16_t *out, const float *in, const float *scales, size_t n) {
  size_t e = 0;
  for (; e + LANES <= n; e += LANES) {
    _mm_storeu_si128((__m128i *)(out + e), quantized(in + e, scales + e, INT16_MAX));
  }
  lqc_quantize_i16_scalar(out + e, in + e, scales + e, n - e);
}
