/* Epilogues in 256-bit vectors: 16 sums a vector. Rows of sums, limits, multipliers and offsets are padded to
 * LQC_SUMS_MULTIPLE, so whole vectors may be read; the last, partial vector of an output goes through a buffer. */
#include <immintrin.h>
#include <string.h>

#include "kernels_isa.h"

enum { LANES_8 = 32, LANES_16 = 16, LANES_32 = 8 };

static inline __m256i load(const void *from) {
  return _mm256_loadu_si256((const __m256i *)from);
}

/* All ones in 16-bit lanes where 2p + missing >= limit. At most 2K <= 65534: no overflow where c < channels. */
static inline __m256i reached(const uint16_t *sums, const uint16_t *limits, __m256i missing) {
  __m256i p = load(sums);
  __m256i doubled = _mm256_add_epi16(_mm256_add_epi16(p, p), missing);
  /* AVX2 compares only signed numbers: x >= y is max(x, y) == x. */
  return _mm256_cmpeq_epi16(_mm256_max_epu16(doubled, load(limits)), doubled);
}

static inline uint32_t reached_32(const uint16_t *sums, const uint16_t *limits, __m256i missing) {
  __m256i low = reached(sums, limits, missing), high = reached(sums + LANES_16, limits + LANES_16, missing);
  /* Packing works in halves of the vector: 0 2 1 3 puts the quarters in order. */
  __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8);
  return (uint32_t)_mm256_movemask_epi8(bytes);
}

void lqc_threshold_avx2(uint64_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  const __m256i missing_16 = _mm256_set1_epi16((short)missing);
  for (uint32_t c = 0; c < params->channels; c += LQC_WORD_BITS) {
    uint64_t low = reached_32(sums + c, params->limits + c, missing_16);
    uint64_t high = reached_32(sums + c + LANES_8, params->limits + c + LANES_8, missing_16);
    uint64_t word = (low | high << LANES_8) & lqc_low_mask(params->channels - c);
    *out++ = params->invert ? word ^ params->invert[c / LQC_WORD_BITS] : word;
  }
}

typedef struct clip_constants {
  __m256i k, high, low;
  __m128i right, left;
  int rounds;
} clip_constants;

static inline __m256i clipped(const uint16_t *sums, const clip_constants *constants) {
  __m256i p = load(sums);
  __m256i v = _mm256_sub_epi16(constants->k, _mm256_add_epi16(p, p));
  if (constants->rounds) {
    /* floor(a / 2^step + 1/2) as (h >> 1) + (h & 1), h = a >> (step - 1): adding half first could overflow. */
    v = _mm256_sra_epi16(v, constants->right);
    v = _mm256_add_epi16(_mm256_srai_epi16(v, 1), _mm256_and_si256(v, _mm256_set1_epi16(1)));
  } else {
    /* A left shift only enlarges: clipping before it as well keeps it within 127 * 64. */
    v = _mm256_max_epi16(_mm256_min_epi16(v, constants->high), constants->low);
    v = _mm256_sll_epi16(v, constants->left);
  }
  return _mm256_max_epi16(_mm256_min_epi16(v, constants->high), constants->low);
}

void lqc_clip_avx2(int8_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  const int32_t step = params->step_log2;
  const clip_constants constants = {
      .k = _mm256_set1_epi16((short)(params->k - missing)),
      .high = _mm256_set1_epi16((short)params->clip_limit),
      .low = _mm256_set1_epi16((short)-params->clip_limit),
      .right = _mm_cvtsi32_si128(step > 0 ? step - 1 : 0),
      .left = _mm_cvtsi32_si128(step > 0 ? 0 : -step),
      .rounds = step > 0,
  };
  for (uint32_t c = 0; c < params->channels; c += LANES_8) {
    __m256i low = clipped(sums + c, &constants), high = clipped(sums + c + LANES_16, &constants);
    __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8);
    if (params->channels - c >= LANES_8) {
      _mm256_storeu_si256((__m256i *)(out + c), bytes);
    } else {
      int8_t last[LANES_8];
      _mm256_storeu_si256((__m256i *)last, bytes);
      memcpy(out + c, last, params->channels - c);
    }
  }
}

void lqc_affine_avx2(float *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  const int32_t step = params->step_log2, limit = params->clip_limit;
  const __m256i k = _mm256_set1_epi32((int)(params->k - missing));
  const __m256i high = _mm256_set1_epi32(limit), low = _mm256_set1_epi32(-limit);
  const __m256i half = _mm256_set1_epi32(step > 0 ? 1 << (step - 1) : 0);
  const __m128i right = _mm_cvtsi32_si128(step > 0 ? step : 0), left = _mm_cvtsi32_si128(step > 0 ? 0 : -step);
  const __m256 scale = _mm256_set1_ps(step >= 0 ? (float)(1 << step) : 1.0f / (float)(1 << -step));
  for (uint32_t c = 0; c < params->channels; c += LANES_32) {
    __m256i p = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(sums + c)));
    __m256i v = _mm256_sub_epi32(k, _mm256_add_epi32(p, p));
    if (limit != 0) {
      v = _mm256_sll_epi32(_mm256_sra_epi32(_mm256_add_epi32(v, half), right), left);
      v = _mm256_max_epi32(_mm256_min_epi32(v, high), low);
    }
    __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(v), scale);
    __m256 product = _mm256_mul_ps(_mm256_loadu_ps(params->multiplier + c), value);
    __m256 result = _mm256_add_ps(product, _mm256_loadu_ps(params->offset + c));
    if (params->channels - c >= LANES_32) {
      _mm256_storeu_ps(out + c, result);
    } else {
      float last[LANES_32];
      _mm256_storeu_ps(last, result);
      memcpy(out + c, last, (params->channels - c) * sizeof(float));
    }
  }
}
