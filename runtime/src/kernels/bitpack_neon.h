/* Plain signs of float32, which the arrangements of NEON compute differently. */
#ifndef LQC_BITPACK_NEON_H
#define LQC_BITPACK_NEON_H

#include "kernels_isa.h"

/* Signs of `count` words of floats, a multiple of 4, from their highest bytes: returns whether there was -0.0 or a
 * negative number above -2^-125, which cannot be told apart by them; then the words may be wrong. */
int lqc_signs_f32_neon_in_order(uint64_t *out, const float *in, size_t count);

#endif /* LQC_BITPACK_NEON_H */
