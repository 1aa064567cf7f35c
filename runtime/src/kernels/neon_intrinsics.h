/* arm_neon.h, and what of A64's intrinsics the kernels use and A32 (32-bit ARM) lacks, under the same names, put
 * together of what it has: so one source serves both. A32 has 16 registers of 128 bits, and its arithmetic of float32
 * takes subnormal numbers for 0. */
#ifndef LQC_NEON_INTRINSICS_H
#define LQC_NEON_INTRINSICS_H

#include <arm_neon.h>

#if !defined(__aarch64__)
#  include "kernels_isa.h"

/* ---- Halves ------------------------------------------------------------------------------------------------------ */

LQC_INLINE int16x8_t vmovl_high_s8(int8x16_t x) {
  return vmovl_s8(vget_high_s8(x));
}

LQC_INLINE int32x4_t vmovl_high_s16(int16x8_t x) {
  return vmovl_s16(vget_high_s16(x));
}

LQC_INLINE int64x2_t vmovl_high_s32(int32x4_t x) {
  return vmovl_s32(vget_high_s32(x));
}

LQC_INLINE int16x8_t vmovn_high_s32(int16x4_t low, int32x4_t high) {
  return vcombine_s16(low, vmovn_s32(high));
}

LQC_INLINE int16x8_t vqmovn_high_s32(int16x4_t low, int32x4_t high) {
  return vcombine_s16(low, vqmovn_s32(high));
}

LQC_INLINE int32x4_t vqmovn_high_s64(int32x2_t low, int64x2_t high) {
  return vcombine_s32(low, vqmovn_s64(high));
}

LQC_INLINE int8x16_t vqmovn_high_s16(int8x8_t low, int16x8_t high) {
  return vcombine_s8(low, vqmovn_s16(high));
}

LQC_INLINE int16x8_t vmull_high_s8(int8x16_t a, int8x16_t b) {
  return vmull_s8(vget_high_s8(a), vget_high_s8(b));
}

LQC_INLINE int16x8_t vmlal_high_s8(int16x8_t sum, int8x16_t a, int8x16_t b) {
  return vmlal_s8(sum, vget_high_s8(a), vget_high_s8(b));
}

LQC_INLINE int32x4_t vmlal_high_s16(int32x4_t sum, int16x8_t a, int16x8_t b) {
  return vmlal_s16(sum, vget_high_s16(a), vget_high_s16(b));
}

LQC_INLINE int32x4_t vaddw_high_s16(int32x4_t sum, int16x8_t x) {
  return vaddw_s16(sum, vget_high_s16(x));
}

/* ---- Other ------------------------------------------------------------------------------------------------ */

LQC_INLINE uint8x16_t vuzp1q_u8(uint8x16_t a, uint8x16_t b) {
  return vuzpq_u8(a, b).val[0];
}

LQC_INLINE uint16x8_t vuzp1q_u16(uint16x8_t a, uint16x8_t b) {
  return vuzpq_u16(a, b).val[0];
}

LQC_INLINE int16x8_t vuzp1q_s16(int16x8_t a, int16x8_t b) {
  return vuzpq_s16(a, b).val[0];
}

LQC_INLINE int16x8_t vuzp2q_s16(int16x8_t a, int16x8_t b) {
  return vuzpq_s16(a, b).val[1];
}

LQC_INLINE uint8x16_t vpaddq_u8(uint8x16_t a, uint8x16_t b) {
  return vcombine_u8(vpadd_u8(vget_low_u8(a), vget_high_u8(a)), vpadd_u8(vget_low_u8(b), vget_high_u8(b)));
}

LQC_INLINE uint8_t vaddv_u8(uint8x8_t x) {
  return (uint8_t)vget_lane_u64(vpaddl_u32(vpaddl_u16(vpaddl_u8(x))), 0);
}

LQC_INLINE int64x2_t vnegq_s64(int64x2_t x) {
  return vsubq_s64(vdupq_n_s64(0), x);
}

/* ---- Comparisons ------------------------------------------------------------------------------------------------- */

LQC_INLINE uint8x16_t vcltzq_s8(int8x16_t x) {
  return vcltq_s8(x, vdupq_n_s8(0));
}

/* a <= b where b - a, saturated, is not negative. */
LQC_INLINE uint64x2_t vcleq_s64(int64x2_t a, int64x2_t b) {
  const int64x2_t greater = vshrq_n_s64(vqsubq_s64(b, a), 63);
  return vreinterpretq_u64_s32(vmvnq_s32(vreinterpretq_s32_s64(greater)));
}

/* Of finite x, integers in the same order; -0.0 and 0.0 are both 0. */
LQC_INLINE int32x4_t lqc_ordered_neon(float32x4_t x) {
  const int32x4_t bits = vreinterpretq_s32_f32(x), sign = vshrq_n_s32(bits, 31);
  return vsubq_s32(veorq_s32(bits, vandq_s32(sign, vdupq_n_s32(INT32_MAX))), sign);
}

#endif
#endif /* LQC_NEON_INTRINSICS_H */
