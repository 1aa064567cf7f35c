/* Fixed point in lanes of 64 bits. */
#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "kernels_isa.h"

#define LQC_LANE int64_t
#define LQC_MASK __mmask8
#define LQC_OP(op) _mm512_##op##_epi64
#define LQC_VALUE __m256i
#define LQC_VALUE_OP(op) _mm256_##op##_epi32

enum { LANES = 8, MAX_VECTORS = 8 };

LQC_INLINE __m256i load_16(const uint16_t *sums) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)sums));
}

LQC_INLINE __m256i load_32(const int32_t *sums) {
  return _mm256_loadu_si256((const __m256i *)sums);
}

LQC_INLINE __m512i widen(__m256i sums) {
  return _mm512_cvtepi32_epi64(sums);
}

LQC_INLINE __m512i signed_16(__mmask8 lanes, const int16_t *values) {
  return _mm512_cvtepi16_epi64(_mm_maskz_loadu_epi16(lanes, values));
}

/* What starts fits 32 bits, as multipliers do: a product of halves, a third of the work. */
LQC_INLINE __m512i multiply(__m512i y, __m512i multiplier, bool first) {
  return first ? _mm512_mul_epi32(y, multiplier) : _mm512_mullo_epi64(y, multiplier);
}

/* No program of these lanes has the step. */
LQC_INLINE __m512i multiply_pair(const lqc_lane_step *step, __m512i y, __m512i x, __m512i pairs, __m512i offset) {
  (void)step, (void)x, (void)pairs, (void)offset;
  return y;
}

LQC_INLINE __mmask8 at_most(__mmask8 lanes, __m512i y, __m512i thresholds) {
  return _mm512_mask_cmple_epi64_mask(lanes, y, thresholds);
}

LQC_INLINE void store_8(int8_t *out, __mmask8 lanes, __m512i y) {
  _mm512_mask_cvtepi64_storeu_epi8(out, lanes, y);
}

LQC_INLINE void store_16(int16_t *out, __mmask8 lanes, __m512i y) {
  _mm512_mask_cvtepi64_storeu_epi16(out, lanes, y);
}

LQC_INLINE void store_f32(float *out, __mmask8 lanes, __m512i y, const float *scale) {
  _mm256_mask_storeu_ps(out, lanes, _mm256_mul_ps(_mm512_cvtepi64_ps(y), _mm256_loadu_ps(scale)));
}

/* By saturating conversions, which also take -128. Packs work in quarters of a vector, whose order is then put right.
 */
LQC_INLINE void store_64_bytes(int8_t *out, const __m512i *wide) {
  __m512i q[MAX_VECTORS / 2];
  LQC_UNROLL
  for (uint32_t v = 0; v < MAX_VECTORS / 2; ++v) {
    __m256i low = _mm512_cvtsepi64_epi32(wide[2 * v]), high = _mm512_cvtsepi64_epi32(wide[2 * v + 1]);
    q[v] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  bytes = _mm512_max_epi8(bytes, _mm512_set1_epi8(-INT8_MAX));
  _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, bytes));
}

#include "fixed_point_avx512_template.h"

void lqc_fixed_point_wide_avx512(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch) {
  (void)scratch;
  if (!lqc_fixed_point_affine_avx512(program, pixels) && !lqc_fixed_point_usual_wide_avx512(program, pixels)) {
    run_program(program, pixels);
  }
}
