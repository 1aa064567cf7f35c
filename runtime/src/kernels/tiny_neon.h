/* Whether arithmetic of float32 in A32's vectors is that of IEEE 754: they take subnormal numbers for 0, both what they
 * read and what they would write. All else is the same, rounding included. So nothing changes where no operand is
 * subnormal and all results, if not 0, are multiples of 2^-126. A number of at least 2^e is a multiple of 2^(e - 23),
 * as is what any sum of such numbers is rounded to.
 *
 * Magnitudes are compared as integers: twice the bits, which shifts out the sign, minus 1, which makes 0 the largest.
 */
#ifndef LQC_TINY_NEON_H
#define LQC_TINY_NEON_H

#include "kernels_isa.h"
#include "neon_intrinsics.h"

/* Biased exponents, as of float32. */
enum {
  LQC_EXPONENT_BIAS = 127,
  LQC_SAFE_TERM = LQC_EXPONENT_BIAS - 103,       /* of terms of a sum: multiples of 2^-126 */
  LQC_SAFE_FACTORS = 2 * LQC_EXPONENT_BIAS - 103 /* of both factors, added: products are such terms */
};

/* The least so far, at first all ones. */
LQC_INLINE uint32x4_t lqc_least_neon(uint32x4_t least, float32x4_t x) {
  return vminq_u32(least, vsubq_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), 1), vdupq_n_u32(1)));
}

/* A biased exponent that no number but 0 is below; 0 where there was a subnormal one, perhaps also for 2^-126. */
LQC_INLINE uint32_t lqc_least_exponent_neon(uint32x4_t least) {
  const uint32x2_t two = vpmin_u32(vget_low_u32(least), vget_high_u32(least));
  return vget_lane_u32(vpmin_u32(two, two), 0) >> 24;
}

/* Whether all products are terms of a sum that is exact. */
LQC_INLINE int lqc_are_safe_factors_neon(uint32x4_t a, uint32x4_t b) {
  const uint32_t least_a = lqc_least_exponent_neon(a), least_b = lqc_least_exponent_neon(b);
  return least_a > 0 && least_b > 0 && least_a + least_b >= LQC_SAFE_FACTORS;
}

/* All ones where a > b: of vcgtq_f32() GCC makes scalar comparisons. */
LQC_INLINE uint32x4_t lqc_greater_neon(float32x4_t a, float32x4_t b) {
  uint32x4_t mask;
  __asm__("vcgt.f32 %q0, %q1, %q2" : "=w"(mask) : "w"(a), "w"(b));
  return mask;
}

/* min(max(x, low), high), of -0.0 and 0.0 x. */
LQC_INLINE float32x4_t lqc_clipped_neon(float32x4_t x, float32x4_t low, float32x4_t high) {
  x = vbslq_f32(lqc_greater_neon(low, x), low, x);
  return vbslq_f32(lqc_greater_neon(x, high), high, x);
}

/* The least of `count` numbers and those before. */
LQC_INLINE uint32x4_t lqc_least_of_neon(uint32x4_t least, const float *x, size_t count) {
  for (; count >= 4; count -= 4, x += 4) {
    least = lqc_least_neon(least, vld1q_f32(x));
  }
  for (; count > 0; --count, ++x) {
    least = lqc_least_neon(least, vld1q_dup_f32(x));
  }
  return least;
}

#endif /* LQC_TINY_NEON_H */
