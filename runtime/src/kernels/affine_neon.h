/* The affine epilogue of four channels, for epilogue_neon.c and bconv2d_neon.c. */
#ifndef LQC_AFFINE_NEON_H
#define LQC_AFFINE_NEON_H

#include <arm_neon.h>

#include "kernels_isa.h"

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

#endif /* LQC_AFFINE_NEON_H */
