/* Bitpacking, 64 channels at a time. A last, partial word is copied first, so that nothing beyond it is read; its
 * other bits are masked off. Plain signs of whole words, by far the most frequent case, have loops of their own, over
 * two words at a time. */
#include <string.h>

#include "bitpack_neon.h"
#include "neon_intrinsics.h"
#include "pack_bits_neon.h"

/* All ones in lanes where x >= threshold. x and threshold are finite. */
LQC_INLINE uint32x4_t reaches(float32x4_t x, float32x4_t threshold) {
#if defined(__aarch64__)
  return vcgeq_f32(x, threshold);
#else
  return vcgeq_s32(lqc_ordered_neon(x), lqc_ordered_neon(threshold));
#endif
}

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
    uint32x4_t a = reaches(vld1q_f32(x + 8 * i), low), b = reaches(vld1q_f32(x + 8 * i + 4), high);
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

/* Two words from 128 bytes that hold nothing but the bit of their place. */
LQC_INLINE uint64x2_t two_words(const uint8x16_t placed[8]) {
  uint8x16_t joined[4];
  LQC_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    joined[i] = vpaddq_u8(placed[2 * i], placed[2 * i + 1]);
  }
  return vreinterpretq_u64_u8(vpaddq_u8(vpaddq_u8(joined[0], joined[1]), vpaddq_u8(joined[2], joined[3])));
}

enum { SIGN_WORDS = 64, SIGN_MULTIPLE = 4, PREFETCH_BYTES = 1024 }; /* words between looks for tiny numbers */

typedef int (*signs_f32_function)(uint64_t *out, const float *in, size_t count);

#if defined(__aarch64__)
/* 16 floats: the next but one are on their way, since the result of LD4 is late. Compilers would copy registers here.
 */
#  define LQC_LOAD_HIGH_BYTES(first, last) "ld4 {v" #first ".16b-v" #last ".16b}, [%[in]], #64\n\t"
#  define LQC_PREFETCH "prfm pldl1keep, [%[in], %[ahead]]\n\tprfm pldl1keep, [%[in], %[ahead] + 64]\n\t"
#  define LQC_PLACE_SIGNS(i, last, next)                                                      \
    "cmhi %[m" #i "].16b, v" #last ".16b, %[smallest].16b\n\t"                                \
    "smin %[lowest].16b, %[lowest].16b, v" #last ".16b\n\t" next "and %[m" #i "].16b, %[m" #i \
    "].16b, %[place].16b\n\t"

/* Signs of an even number of words of floats from their highest bytes, which LD4 picks: sign and seven bits of
   the exponent. x < 0 where that byte is above 0x80, unsigned; at 0x80 x is -0.0, whose packed bit is 0, or above
   -2^-125, where it is 1. Returns whether there was such a byte: then the words may be wrong. */
static int signs_f32(uint64_t *out, const float *in, size_t count) {
  const uint8x16_t smallest = vdupq_n_u8(0x80), place = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
  int8x16_t lowest = vdupq_n_s8(0);
  for (const uint64_t *const end = out + count; out < end; out += 2) {
    uint8x16_t m[8];
    __asm__ volatile(LQC_LOAD_HIGH_BYTES(24, 27) LQC_LOAD_HIGH_BYTES(28, 31)
                         LQC_PREFETCH LQC_PLACE_SIGNS(0, 27, LQC_LOAD_HIGH_BYTES(24, 27))
                             LQC_PLACE_SIGNS(1, 31, LQC_LOAD_HIGH_BYTES(28, 31))
                                 LQC_PREFETCH LQC_PLACE_SIGNS(2, 27, LQC_LOAD_HIGH_BYTES(24, 27))
                                     LQC_PLACE_SIGNS(3, 31, LQC_LOAD_HIGH_BYTES(28, 31))
                                         LQC_PREFETCH LQC_PLACE_SIGNS(4, 27, LQC_LOAD_HIGH_BYTES(24, 27))
                                             LQC_PLACE_SIGNS(5, 31, LQC_LOAD_HIGH_BYTES(28, 31))
                                                 LQC_PREFETCH LQC_PLACE_SIGNS(6, 27, "") LQC_PLACE_SIGNS(7, 31, "")
                     : [in] "+r"(in), [lowest] "+w"(lowest), [m0] "=&w"(m[0]), [m1] "=&w"(m[1]), [m2] "=&w"(m[2]),
                       [m3] "=&w"(m[3]), [m4] "=&w"(m[4]), [m5] "=&w"(m[5]), [m6] "=&w"(m[6]), [m7] "=&w"(m[7])
                     : [smallest] "w"(smallest), [place] "w"(place), [ahead] "i"(PREFETCH_BYTES)
                     : "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31", "memory");
    vst1q_u64(out, two_words(m));
  }
  return vminvq_s8(lowest) == INT8_MIN;
}
#else
/* A finite x is below 0 where its bits, unsigned, are above those of -0.0. None of the words is wrong. */
static int signs_f32(uint64_t *out, const float *in, size_t count) {
  const uint32x4_t minus_0 = vdupq_n_u32(0x80000000u);
  for (; count > 0; --count, in += LQC_WORD_BITS) {
    uint8x16_t mask[4];
    LQC_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      uint16x4_t narrow[4];
      LQC_UNROLL
      for (uint32_t j = 0; j < 4; ++j) {
        const float32x4_t x = vld1q_f32(in + 16 * i + 4 * j);
        narrow[j] = vmovn_u32(vcgtq_u32(vreinterpretq_u32_f32(x), minus_0));
      }
      mask[i] = vuzp1q_u8(vreinterpretq_u8_u16(vcombine_u16(narrow[0], narrow[1])),
                          vreinterpretq_u8_u16(vcombine_u16(narrow[2], narrow[3])));
    }
    *out++ = lqc_pack_bits_neon(mask[0], mask[1], mask[2], mask[3]);
  }
  return 0;
}
#endif

static void bitpack_signs_f32(uint64_t *out, const float *in, size_t words, signs_f32_function signs) {
  while (words > 0) {
    const size_t count = words < SIGN_WORDS ? words : SIGN_WORDS, whole = count - count % SIGN_MULTIPLE;
    for (size_t w = signs(out, in, whole) ? 0 : whole; w < count; ++w) {
      out[w] = word_f32(in + w * LQC_WORD_BITS, NULL);
    }
    out += count;
    in += count * LQC_WORD_BITS;
    words -= count;
  }
}

static void bitpack_f32(uint64_t *out, const float *in, size_t pixels, uint32_t channels, const float *thresholds,
                        const uint64_t *invert, signs_f32_function signs) {
  if (channels % LQC_WORD_BITS == 0 && !thresholds && !invert) {
    bitpack_signs_f32(out, in, pixels * (channels / LQC_WORD_BITS), signs);
    return;
  }
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

void lqc_bitpack_f32_neon(uint64_t *out, const float *in, size_t pixels, uint32_t channels, const float *thresholds,
                          const uint64_t *invert) {
  bitpack_f32(out, in, pixels, channels, thresholds, invert, signs_f32);
}

#if defined(__aarch64__)
void lqc_bitpack_f32_neon_in_order(uint64_t *out, const float *in, size_t pixels, uint32_t channels,
                                   const float *thresholds, const uint64_t *invert) {
  bitpack_f32(out, in, pixels, channels, thresholds, invert, lqc_signs_f32_neon_in_order);
}
#endif

LQC_INLINE uint64_t word_i8(const int8_t *q, const int8_t *thresholds) {
  uint8x16_t mask[4];
  LQC_UNROLL
  for (uint32_t i = 0; i < 4; ++i) {
    int8x16_t threshold = thresholds ? vld1q_s8(thresholds + 16 * i) : vdupq_n_s8(-1);
    mask[i] = vcleq_s8(vld1q_s8(q + 16 * i), threshold);
  }
  return lqc_pack_bits_neon(mask[0], mask[1], mask[2], mask[3]);
}

static void bitpack_signs_i8(uint64_t *out, const int8_t *in, size_t words) {
  const uint8x16_t place = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
  for (; words >= 2; words -= 2, out += 2, in += 2 * LQC_WORD_BITS) {
    uint8x16_t placed[8];
    LQC_UNROLL
    for (uint32_t i = 0; i < 8; ++i) {
      placed[i] = vandq_u8(vcltzq_s8(vld1q_s8(in + 16 * i)), place);
    }
    __builtin_prefetch(in + PREFETCH_BYTES);
    __builtin_prefetch(in + PREFETCH_BYTES + LQC_WORD_BITS);
    vst1q_u64(out, two_words(placed));
  }
  if (words > 0) {
    *out = word_i8(in, NULL);
  }
}

void lqc_bitpack_i8_neon(uint64_t *out, const int8_t *in, size_t pixels, uint32_t channels, const int8_t *thresholds,
                         const uint64_t *invert) {
  if (channels % LQC_WORD_BITS == 0 && !thresholds && !invert) {
    bitpack_signs_i8(out, in, pixels * (channels / LQC_WORD_BITS));
    return;
  }
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
