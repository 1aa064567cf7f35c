/* Bitpacking, 64 channels at a time. A last, partial word is copied first, so that nothing beyond it is read; its
 * other bits are masked off. */
#include <arm_neon.h>
#include <string.h>

#include "kernels_isa.h"
#include "pack_bits_neon.h"

/* All ones in bytes where !(x >= threshold), of 16 channels. */
LQC_INLINE uint8x16_t negatives_f32(const float *x, const float *thresholds) {
  uint16x8_t half[2];
  LQC_UNROLL
  for (uint32_t i = 0; i < 2; ++i) {
    float32x4_t low = vdupq_n_f32(0), high = low;
    if (thresholds) {
      low = vld1q_f32(thresholds + 8 * i);
      high = vld1q_f32(thresholds + 8 * i + 4);
    }
    uint32x4_t a = vcgeq_f32(vld1q_f32(x + 8 * i), low), b = vcgeq_f32(vld1q_f32(x + 8 * i + 4), high);
    half[i] = vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
  }
  return vmvnq_u8(vuzp1q_u8(vreinterpretq_u8_u16(half[0]), vreinterpretq_u8_u16(half[1])));
}

LQC_INLINE uint64_t word_f32(const float *x, const float *thresholds) {
  uint8x16_t mask[4];
  LQC_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    mask[i] = negatives_f32(x + 16 * i, thresholds ? thresholds + 16 * i : NULL);
  }
  return lqc_pack_bits_neon(mask[0], mask[1], mask[2], mask[3]);
}

void lqc_bitpack_f32_neon(uint64_t *out, const float *in, size_t pixels, uint32_t channels, const float *thresholds,
                          const uint64_t *invert) {
  for (size_t pixel = 0; pixel < pixels; ++pixel, in += channels) {
    for (uint32_t c = 0; c < channels; c += LQC_WORD_BITS) {
      const uint32_t rest = channels - c;
      uint64_t word;
      if (rest >= LQC_WORD_BITS) {
        word = word_f32(in + c, thresholds ? thresholds + c : NULL);
      } else {
        float x[LQC_WORD_BITS] = {0}, threshold[LQC_WORD_BITS] = {0};
        memcpy(x, in + c, rest * sizeof(float));
        if (thresholds) {
          memcpy(threshold, thresholds + c, rest * sizeof(float));
        }
        word = word_f32(x, threshold) & lqc_low_mask(rest);
      }
      *out++ = invert ? word ^ invert[c / LQC_WORD_BITS] : word;
    }
  }
}

LQC_INLINE uint64_t word_i8(const int8_t *q, const int8_t *thresholds) {
  uint8x16_t mask[4];
  LQC_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    int8x16_t threshold = thresholds ? vld1q_s8(thresholds + 16 * i) : vdupq_n_s8(-1);
    mask[i] = vcleq_s8(vld1q_s8(q + 16 * i), threshold);
  }
  return lqc_pack_bits_neon(mask[0], mask[1], mask[2], mask[3]);
}

void lqc_bitpack_i8_neon(uint64_t *out, const int8_t *in, size_t pixels, uint32_t channels, const int8_t *thresholds,
                         const uint64_t *invert) {
  for (size_t pixel = 0; pixel < pixels; ++pixel, in += channels) {
    for (uint32_t c = 0; c < channels; c += LQC_WORD_BITS) {
      const uint32_t rest = channels - c;
      uint64_t word;
      if (rest >= LQC_WORD_BITS) {
        word = word_i8(in + c, thresholds ? thresholds + c : NULL);
      } else {
        int8_t q[LQC_WORD_BITS] = {0}, threshold[LQC_WORD_BITS];
        memset(threshold, -1, sizeof(threshold));
        memcpy(q, in + c, rest);
        if (thresholds) {
          memcpy(threshold, thresholds + c, rest);
        }
        word = word_i8(q, threshold) & lqc_low_mask(rest);
      }
      *out++ = invert ? word ^ invert[c / LQC_WORD_BITS] : word;
    }
  }
}
