/* Fixed point in lanes of 32 bits. */
#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "kernels_isa.h"

#define LQC_LANE int32_t
#define LQC_MASK __mmask16
#define LQC_OP(op) _mm512_##op##_epi32
#define LQC_VALUE __m512i
#define LQC_VALUE_OP LQC_OP

enum { LANES = 16, MAX_VECTORS = 4 };

LQC_INLINE __m512i load_16(const uint16_t *sums) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)sums));
}

LQC_INLINE __m512i load_32(const int32_t *sums) {
  return _mm512_loadu_si512(sums);
}

LQC_INLINE __m512i widen(__m512i sums) {
  return sums;
}

LQC_INLINE __m512i signed_16(__mmask16 lanes, const int16_t *values) {
  return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(lanes, values));
}

LQC_INLINE __m512i multiply(__m512i y, __m512i multiplier, bool first) {
  (void)first;
  return _mm512_mullo_epi32(y, multiplier);
}

/* Low half y, high half x: VPDPWSSD multiplies both and adds. */
LQC_INLINE __m512i multiply_pair(const lqc_lane_step *step, __m512i y, __m512i x, __m512i pairs, __m512i offset) {
  const __m128i y_log2 = _mm_cvtsi32_si128(step->y_log2), x_log2 = _mm_cvtsi32_si128(16 + step->x_log2);
  __m512i both = _mm512_mask_sll_epi16(_mm512_sll_epi32(x, x_log2), 0x55555555u, y, y_log2);
  return _mm512_dpwssd_epi32(offset, both, pairs);
}

LQC_INLINE __mmask16 at_most(__mmask16 lanes, __m512i y, __m512i thresholds) {
  return _mm512_mask_cmple_epi32_mask(lanes, y, thresholds);
}

LQC_INLINE void store_8(int8_t *out, __mmask16 lanes, __m512i y) {
  _mm512_mask_cvtepi32_storeu_epi8(out, lanes, y);
}

LQC_INLINE void store_16(int16_t *out, __mmask16 lanes, __m512i y) {
  _mm512_mask_cvtepi32_storeu_epi16(out, lanes, y);
}

LQC_INLINE void store_f32(float *out, __mmask16 lanes, __m512i y, const float *scale) {
  _mm512_mask_storeu_ps(out, lanes, _mm512_mul_ps(_mm512_cvtepi32_ps(y), _mm512_loadu_ps(scale)));
}

/* By saturating packs, which also take -128; they work in quarters of a vector, whose order is then put right. */
LQC_INLINE void store_64_bytes(int8_t *out, const __m512i *q) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  bytes = _mm512_max_epi8(bytes, _mm512_set1_epi8(-INT8_MAX));
  _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, bytes));
}

#include "fixed_point_avx512_template.h"

void lqc_fixed_point_avx512(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch) {
  (void)scratch;
  if (!lqc_fixed_point_pair_avx512(program, pixels)) {
    run_program(program, pixels);
  }
}
