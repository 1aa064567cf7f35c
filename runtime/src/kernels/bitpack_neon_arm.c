/* Bitpacking for 32-bit ARM, 64 channels at a time. Its vector comparisons of floats take subnormal numbers for 0, so
 * signs are compared as integers: a finite x is below 0 where its bits, unsigned, are above those of -0.0. */
#include <arm_neon.h>
#include <string.h>

#include "kernels_isa.h"

/* Bit b of the word is the truth of byte b of the four vectors, each byte 0 or 255. */
LQC_INLINE uint64_t pack_bits(const uint8x16_t masks[4]) {
  const uint8x8_t place = vcreate_u8(0x8040201008040201u);
  uint8x8_t halves[4];
  LQC_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    halves[i] = vpadd_u8(vand_u8(vget_low_u8(masks[i]), place), vand_u8(vget_high_u8(masks[i]), place));
  }
  const uint8x8_t joined = vpadd_u8(vpadd_u8(halves[0], halves[1]), vpadd_u8(halves[2], halves[3]));
  return vget_lane_u64(vreinterpret_u64_u8(joined), 0);
}

LQC_INLINE uint64_t signs_f32(const float *x) {
  const uint32x4_t minus_0 = vdupq_n_u32(0x80000000u);
  uint8x16_t masks[4];
  LQC_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    uint16x4_t narrow[4];
    LQC_UNROLL
    for (uint32_t j = 0; j < 4; ++j) {
      narrow[j] = vmovn_u32(vcgtq_u32(vreinterpretq_u32_f32(vld1q_f32(x + 16 * i + 4 * j)), minus_0));
    }
    masks[i] =
        vcombine_u8(vmovn_u16(vcombine_u16(narrow[0], narrow[1])), vmovn_u16(vcombine_u16(narrow[2], narrow[3])));
  }
  return pack_bits(masks);
}

void lqc_bitpack_f32_neon(uint64_t *out, const float *in, size_t pixels, uint32_t channels, const float *thresholds,
                          const uint64_t *invert) {
  if (channels % LQC_WORD_BITS != 0 || thresholds || invert) {
    lqc_bitpack_f32_scalar(out, in, pixels, channels, thresholds, invert);
    return;
  }
  for (size_t words = pixels * (channels / LQC_WORD_BITS); words > 0; --words, in += LQC_WORD_BITS) {
    *out++ = signs_f32(in);
  }
}

LQC_INLINE uint64_t word_i8(const int8_t *q, const int8_t *thresholds) {
  uint8x16_t masks[4];
  LQC_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    masks[i] = vcleq_s8(vld1q_s8(q + 16 * i), thresholds ? vld1q_s8(thresholds + 16 * i) : vdupq_n_s8(-1));
  }
  return pack_bits(masks);
}

void lqc_bitpack_i8_neon(uint64_t *out, const int8_t *in, size_t pixels, uint32_t channels, const int8_t *thresholds,
                         const uint64_t *invert) {
  if (channels % LQC_WORD_BITS != 0) {
    lqc_bitpack_i8_scalar(out, in, pixels, channels, thresholds, invert);
    return;
  }
  for (size_t pixel = 0; pixel < pixels; ++pixel) {
    for (uint32_t c = 0; c < channels; c += LQC_WORD_BITS, in += LQC_WORD_BITS) {
      const uint64_t word = word_i8(in, thresholds ? thresholds + c : NULL);
      *out++ = invert ? word ^ invert[c / LQC_WORD_BITS] : word;
    }
  }
}
