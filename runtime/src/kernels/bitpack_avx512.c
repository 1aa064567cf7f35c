/* Bitpacking: a comparison yields the bits as a mask; the tail is read through a mask, so nothing beyond is read. */
#include <immintrin.h>

#include "kernels_isa.h"

enum { LANES_32 = 16 };

void lqc_bitpack_f32_avx512(uint64_t *out, const float *in, size_t pixels, uint32_t channels, const float *thresholds,
                            const uint64_t *invert) {
  for (size_t pixel = 0; pixel < pixels; ++pixel, in += channels) {
    for (uint32_t first = 0; first < channels; first += LQC_WORD_BITS) {
      uint32_t end = lqc_min_u32(channels, first + LQC_WORD_BITS);
      uint64_t word = 0;
      for (uint32_t c = first; c < end; c += LANES_32) {
        __mmask16 lanes = (__mmask16)lqc_low_mask(lqc_min_u32(end - c, LANES_32));
        __m512 x = _mm512_maskz_loadu_ps(lanes, in + c);
        __m512 threshold = thresholds ? _mm512_maskz_loadu_ps(lanes, thresholds + c) : _mm512_setzero_ps();
        /* Not greater or equal, so that a comparison that could not be made would give what scalar gives. */
        word |= (uint64_t)_mm512_mask_cmp_ps_mask(lanes, x, threshold, _CMP_NGE_UQ) << (c - first);
      }
      *out++ = invert ? word ^ invert[first / LQC_WORD_BITS] : word;
    }
  }
}

void lqc_bitpack_i8_avx512(uint64_t *out, const int8_t *in, size_t pixels, uint32_t channels, const int8_t *thresholds,
                           const uint64_t *invert) {
  for (size_t pixel = 0; pixel < pixels; ++pixel, in += channels) {
    for (uint32_t c = 0; c < channels; c += LQC_WORD_BITS) {
      __mmask64 lanes = lqc_low_mask(channels - c);
      __m512i q = _mm512_maskz_loadu_epi8(lanes, in + c);
      __m512i threshold = thresholds ? _mm512_maskz_loadu_epi8(lanes, thresholds + c) : _mm512_set1_epi8(-1);
      uint64_t word = _mm512_mask_cmple_epi8_mask(lanes, q, threshold);
      *out++ = invert ? word ^ invert[c / LQC_WORD_BITS] : word;
    }
  }
}
