/* Epilogues in 512-bit vectors: 32 sums a vector. Rows of sums, limits, multipliers and offsets are padded to
 * LQC_SUMS_MULTIPLE, so whole vectors may be read; outputs are written through masks. */
#include <immintrin.h>

#include "kernels_isa.h"

enum { LANES_16 = 32, LANES_32 = 16 };

/* 2p + missing >= limit. At most 2K <= 65534: no overflow where c < channels. */
static inline __mmask32 reached(const uint16_t *sums, const uint16_t *limits, __m512i missing) {
  __m512i p = _mm512_loadu_si512(sums);
  __m512i doubled = _mm512_add_epi16(_mm512_add_epi16(p, p), missing);
  return _mm512_cmpge_epu16_mask(doubled, _mm512_loadu_si512(limits));
}

void lqc_threshold_avx512(uint64_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  const __m512i missing_16 = _mm512_set1_epi16((short)missing);
  for (uint32_t c = 0; c < params->channels; c += LQC_WORD_BITS) {
    uint64_t low = reached(sums + c, params->limits + c, missing_16);
    uint64_t high = reached(sums + c + LANES_16, params->limits + c + LANES_16, missing_16);
    uint64_t word = (low | high << LANES_16) & lqc_low_mask(params->channels - c);
    *out++ = params->invert ? word ^ params->invert[c / LQC_WORD_BITS] : word;
  }
}

void lqc_clip_avx512(int8_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  const __m512i k = _mm512_set1_epi16((short)(params->k - missing));
  const __m512i high = _mm512_set1_epi16((short)params->clip_limit);
  const __m512i low = _mm512_set1_epi16((short)-params->clip_limit);
  const __m512i one = _mm512_set1_epi16(1);
  const int32_t step = params->step_log2;
  const __m128i right = _mm_cvtsi32_si128(step > 0 ? step - 1 : 0);
  const __m128i left = _mm_cvtsi32_si128(step > 0 ? 0 : -step);
  for (uint32_t c = 0; c < params->channels; c += LANES_16) {
    __m512i p = _mm512_loadu_si512(sums + c);
    __m512i v = _mm512_sub_epi16(k, _mm512_add_epi16(p, p));
    if (step > 0) {
      /* floor(a / 2^step + 1/2) as (h >> 1) + (h & 1), h = a >> (step - 1): adding half first could overflow. */
      v = _mm512_sra_epi16(v, right);
      v = _mm512_add_epi16(_mm512_srai_epi16(v, 1), _mm512_and_si512(v, one));
    } else {
      /* A left shift only enlarges: clipping before it as well keeps it within 127 * 64. */
      v = _mm512_sll_epi16(_mm512_max_epi16(_mm512_min_epi16(v, high), low), left);
    }
    v = _mm512_max_epi16(_mm512_min_epi16(v, high), low);
    uint64_t lanes = lqc_low_mask(lqc_min_u32(params->channels - c, LANES_16));
    _mm256_mask_storeu_epi8(out + c, (__mmask32)lanes, _mm512_cvtepi16_epi8(v));
  }
}

void lqc_affine_avx512(float *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  const int32_t step = params->step_log2, limit = params->clip_limit;
  const __m512i k = _mm512_set1_epi32((int)(params->k - missing));
  const __m512i high = _mm512_set1_epi32(limit), low = _mm512_set1_epi32(-limit);
  const __m512i half = _mm512_set1_epi32(step > 0 ? 1 << (step - 1) : 0);
  const __m128i right = _mm_cvtsi32_si128(step > 0 ? step : 0), left = _mm_cvtsi32_si128(step > 0 ? 0 : -step);
  const __m512 scale = _mm512_set1_ps(step >= 0 ? (float)(1 << step) : 1.0f / (float)(1 << -step));
  for (uint32_t c = 0; c < params->channels; c += LANES_32) {
    __m512i p = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(sums + c)));
    __m512i v = _mm512_sub_epi32(k, _mm512_add_epi32(p, p));
    if (limit != 0) {
      v = _mm512_sll_epi32(_mm512_sra_epi32(_mm512_add_epi32(v, half), right), left);
      v = _mm512_max_epi32(_mm512_min_epi32(v, high), low);
    }
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(v), scale);
    __m512 product = _mm512_mul_ps(_mm512_loadu_ps(params->multiplier + c), value);
    __m512 result = _mm512_add_ps(product, _mm512_loadu_ps(params->offset + c));
    uint64_t lanes = lqc_low_mask(lqc_min_u32(params->channels - c, LANES_32));
    _mm512_mask_storeu_ps(out + c, (__mmask16)lanes, result);
  }
}
