/* Bitpacking, the reference. */
#include "kernels_isa.h"

void lqc_bitpack_f32_scalar(uint64_t *out, const float *in, size_t pixels, uint32_t channels, const float *thresholds,
                            const uint64_t *invert) {
  for (size_t p = 0; p < pixels; ++p, in += channels) {
    for (uint32_t first = 0; first < channels; first += LQC_WORD_BITS) {
      uint32_t bits = lqc_min_u32(channels - first, LQC_WORD_BITS);
      uint64_t word = invert ? invert[first / LQC_WORD_BITS] : 0;
      for (uint32_t b = 0; b < bits; ++b) {
        float threshold = thresholds ? thresholds[first + b] : 0.0f;
        word ^= (uint64_t)!(in[first + b] >= threshold) << b;
      }
      *out++ = word;
    }
  }
}

#define LQC_DEFINE_BITPACK(name, type)                                                               \
  void name(uint64_t *out, const type *in, size_t pixels, uint32_t channels, const type *thresholds, \
            const uint64_t *invert) {                                                                \
    for (size_t p = 0; p < pixels; ++p, in += channels) {                                            \
      for (uint32_t first = 0; first < channels; first += LQC_WORD_BITS) {                           \
        uint32_t bits = lqc_min_u32(channels - first, LQC_WORD_BITS);                                \
        uint64_t word = invert ? invert[first / LQC_WORD_BITS] : 0;                                  \
        for (uint32_t b = 0; b < bits; ++b) {                                                        \
          int threshold = thresholds ? thresholds[first + b] : -1;                                   \
          word ^= (uint64_t)!(in[first + b] > threshold) << b;                                       \
        }                                                                                            \
        *out++ = word;                                                                               \
      }                                                                                              \
    }                                                                                                \
  }
LQC_DEFINE_BITPACK(lqc_bitpack_i8_scalar, int8_t)
LQC_DEFINE_BITPACK(lqc_bitpack_i16_scalar, int16_t)
