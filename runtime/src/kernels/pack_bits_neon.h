/* NEON has no instruction that gathers the signs of lanes into bits: each lane keeps one bit of a byte, and three
 * levels of ADDP (A32: VPADD) join eight lanes. */
#ifndef LQC_PACK_BITS_NEON_H
#define LQC_PACK_BITS_NEON_H

#include "kernels_isa.h"
#include "neon_intrinsics.h"

/* Bit b of the word is the truth of byte b of the four vectors, each byte 0 or 255. */
LQC_INLINE uint64_t lqc_pack_bits_neon(uint8x16_t m0, uint8x16_t m1, uint8x16_t m2, uint8x16_t m3) {
  const uint8x16_t place = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
  uint8x16_t low = vpaddq_u8(vandq_u8(m0, place), vandq_u8(m1, place));
  uint8x16_t high = vpaddq_u8(vandq_u8(m2, place), vandq_u8(m3, place));
  uint8x16_t joined = vpaddq_u8(low, high);
#if defined(__aarch64__)
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(joined, joined)), 0);
#else
  return vget_lane_u64(vreinterpret_u64_u8(vpadd_u8(vget_low_u8(joined), vget_high_u8(joined))), 0);
#endif
}

#endif /* LQC_PACK_BITS_NEON_H */
