/* Bitpacking: a comparison, then MOVMSKPS or PMOVMSKB. The last, partial vector of a pixel is copied first, so that
 * nothing beyond it is read; its other lanes are masked off. */
#include <immintrin.h>
#include <string.h>

#include "kernels_isa.h"

enum { LANES_8 = 32, LANES_32 = 8 };

/* Bits of 8 channels. Not greater or equal, so that a comparison that could not be made gives what scalar gives. */
static inline uint32_t negatives_f32(const float *x, const float *thresholds) {
  __m256 threshold = thresholds ? _mm256_loadu_ps(thresholds) : _mm256_setzero_ps();
  return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x), threshold, _CMP_NGE_UQ));
}

void lqc_bitpack_f32_avx2(uint64_t *out, const float *in, size_t pixels, uint32_t channels, const float *thresholds,
                          const uint64_t *invert) {
  for (size_t pixel = 0; pixel < pixels; ++pixel, in += channels) {
    for (uint32_t first = 0; first < channels; first += LQC_WORD_BITS) {
      uint32_t end = lqc_min_u32(channels, first + LQC_WORD_BITS), c = first;
      uint64_t word = 0;
      for (; end - c >= LANES_32; c += LANES_32) {
        word |= (uint64_t)negatives_f32(in + c, thresholds ? thresholds + c : NULL) << (c - first);
      }
      if (c < end) {
        float x[LANES_32] = {0}, threshold[LANES_32] = {0};
        memcpy(x, in + c, (end - c) * sizeof(float));
        if (thresholds) {
          memcpy(threshold, thresholds + c, (end - c) * sizeof(float));
        }
        word |= (negatives_f32(x, threshold) & lqc_low_mask(end - c)) << (c - first);
      }
      *out++ = invert ? word ^ invert[first / LQC_WORD_BITS] : word;
    }
  }
}

/* Bits of 32 channels: q <= threshold is not q > threshold. */
static inline uint32_t negatives_i8(const int8_t *q, const int8_t *thresholds) {
  __m256i threshold = thresholds ? _mm256_loadu_si256((const __m256i *)thresholds) : _mm256_set1_epi8(-1);
  return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpgt_epi8(_mm256_loadu_si256((const __m256i *)q), threshold));
}

void lqc_bitpack_i8_avx2(uint64_t *out, const int8_t *in, size_t pixels, uint32_t channels, const int8_t *thresholds,
                         const uint64_t *invert) {
  for (size_t pixel = 0; pixel < pixels; ++pixel, in += channels) {
    for (uint32_t first = 0; first < channels; first += LQC_WORD_BITS) {
      uint32_t end = lqc_min_u32(channels, first + LQC_WORD_BITS), c = first;
      uint64_t word = 0;
      for (; end - c >= LANES_8; c += LANES_8) {
        word |= (uint64_t)negatives_i8(in + c, thresholds ? thresholds + c : NULL) << (c - first);
      }
      if (c < end) {
        int8_t q[LANES_8] = {0}, threshold[LANES_8];
        memset(threshold, -1, sizeof(threshold));
        memcpy(q, in + c, end - c);
        if (thresholds) {
          memcpy(threshold, thresholds + c, end - c);
        }
        word |= (negatives_i8(q, threshold) & lqc_low_mask(end - c)) << (c - first);
      }
      *out++ = invert ? word ^ invert[first / LQC_WORD_BITS] : word;
    }
  }
}
