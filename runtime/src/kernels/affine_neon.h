/* The affine epilogue of four channels, for epilogue_neon.c and the binary convolutions. */
#ifndef LQC_AFFINE_NEON_H
#define LQC_AFFINE_NEON_H

#include "kernels_isa.h"
#include "neon_intrinsics.h"
#if !defined(__aarch64__)
#  include "tiny_neon.h"
#endif

typedef struct lqc_affine_neon_values {
  int32x4_t k, high, low, shift;
  float32x4_t scale;
} lqc_affine_neon_values;

LQC_INLINE lqc_affine_neon_values lqc_affine_neon_values_of(uint32_t missing, const lqc_epilogue_params *params) {
  const int32_t step = params->step_log2;
  return (lqc_affine_neon_values){
      .k = vdupq_n_s32((int32_t)(params->k - missing)),
      .high = vdupq_n_s32(params->clip_limit),
      .low = vdupq_n_s32(-params->clip_limit),
      .shift = vdupq_n_s32(-step),
      .scale = vdupq_n_f32(step >= 0 ? (float)(1 << step) : 1.0f / (float)(1 << -step)),
  };
}

/* Without a clip there is no step either: v = a. */
LQC_INLINE float32x4_t lqc_affine_of_neon(int32x4_t a, float32x4_t multiplier, float32x4_t offset,
                                          const lqc_affine_neon_values *values, const int clips) {
  float32x4_t v = vcvtq_f32_s32(a);
  if (clips) {
    a = vmaxq_s32(vminq_s32(vrshlq_s32(a, values->shift), values->high), values->low);
    v = vmulq_f32(vcvtq_f32_s32(a), values->scale);
  }
  const float32x4_t product = vmulq_f32(multiplier, v);
  return vaddq_f32(product, offset);
}

/* Whether these vectors compute the affine epilogue of some channels as IEEE 754 does. v * 2^step_log2 is 0 or at least
   2^-31. */
LQC_INLINE int lqc_affine_is_exact_neon(const lqc_epilogue_params *params, uint32_t first, uint32_t count) {
#if defined(__aarch64__)
  (void)params, (void)first, (void)count;
  return 1;
#else
  uint32x4_t multipliers = vdupq_n_u32(UINT32_MAX), offsets = multipliers;
  for (uint32_t c = first; c < first + count; c += 4) {
    multipliers = lqc_least_neon(multipliers, vld1q_f32(params->multiplier + c));
    offsets = lqc_least_neon(offsets, vld1q_f32(params->offset + c));
  }
  return lqc_least_exponent_neon(multipliers) >= LQC_SAFE_TERM + 31 &&
         lqc_least_exponent_neon(offsets) >= LQC_SAFE_TERM;
#endif
}

#endif /* LQC_AFFINE_NEON_H */
