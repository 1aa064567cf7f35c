/* Quantize in vectors of 16 float32.
 *
 * x * 2^f is exact, save where it is beyond +-2^127, which is clipped, or too small for all its bits, where 1/2 more
 * has the floor 0 whatever they are. The sum with 1/2 is rounded down, which does not change its floor: floors are
 * float32 numbers. */
#include <immintrin.h>

#include "kernels_isa.h"

enum { LANES = 16, DOWN = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC };

/* floor(clip(x * scale, +-limit) + 1/2). MINPS returns its second operand for a NaN, as the plain kernel does. */
LQC_INLINE __m512i quantized(const float *in, const float *scales, __mmask16 lanes, float limit) {
  __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, in), _mm512_maskz_loadu_ps(lanes, scales));
  v = _mm512_max_ps(_mm512_min_ps(v, _mm512_set1_ps(limit)), _mm512_set1_ps(-limit));
  return _mm512_cvt_roundps_epi32(_mm512_add_round_ps(v, _mm512_set1_ps(0.5f), DOWN), DOWN);
}

LQC_INLINE __mmask16 lanes_of(size_t left) {
  return (__mmask16)lqc_low_mask(left < LANES ? (uint32_t)left : LANES);
}

void lqc_quantize_i8_avx512(int8_t *out, const float *in, const float *scales, size_t n) {
  for (size_t e = 0; e < n; e += LANES) {
    __mmask16 lanes = lanes_of(n - e);
    _mm_mask_storeu_epi8(out + e, lanes, _mm512_cvtepi32_epi8(quantized(in + e, scales + e, lanes, INT8_MAX)));
  }
}

void lqc_quantize_i16_avx512(int16_t *out, const float *in, const float *scales, size_t n) {
  for (size_t e = 0; e < n; e += LANES) {
    __mmask16 lanes = lanes_of(n - e);
    _mm256_mask_storeu_epi16(out + e, lanes, _mm512_cvtepi32_epi16(quantized(in + e, scales + e, lanes, INT16_MAX)));
  }
}
