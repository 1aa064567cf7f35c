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

#endif /* LQC_TINY_NEON_H */
