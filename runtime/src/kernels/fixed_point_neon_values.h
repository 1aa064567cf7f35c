/* What lanes of fixed point are before the first step, from popcounts. */
#ifndef LQC_FIXED_POINT_NEON_VALUES_H
#define LQC_FIXED_POINT_NEON_VALUES_H

#include "kernels_isa.h"
#include "neon_intrinsics.h"

/* From popcounts to v. SQRSHL rounds half up where the shift is negative and saturates where it is positive; its
 * rounding does not overflow. v before the clip is, for s = step_log2 > 0, (base - p) shifted by 1 - s, as the lowest
 * bit of full counts for s = 1 alone; else full - 2p shifted by -s. */
typedef struct value_params {
  int narrow; /* y before the first step is int8, int16, or a v that fits int16 in all that leads to it */
  uint16x8_t base, factor;
  int16x8_t shift, high, low;
  int32x4_t full, wide_shift, wide_high, wide_low;
} value_params;

LQC_INLINE value_params value_params_of(const lqc_lane_pixels *pixels) {
  const int32_t limit = pixels->limit ? pixels->limit : INT32_MAX, step = pixels->limit ? pixels->step_log2 : 0;
  const int32_t limit_16 = limit < INT16_MAX ? limit : INT16_MAX;
  const int32_t base = step > 0 ? (pixels->full + (step == 1)) >> 1 : pixels->full;
  const int fits = step >= 0 || limit <= INT16_MAX; /* a fits int16 and a step to the right makes it no larger */
  return (value_params){
      .narrow = pixels->source == LQC_LANES_INT8 || pixels->source == LQC_LANES_INT16 ||
                (pixels->source == LQC_LANES_SUMS && fits),
      .base = vdupq_n_u16((uint16_t)base),
      .factor = vdupq_n_u16(step > 0 ? 1 : 2),
      .shift = vdupq_n_s16((int16_t)(step > 0 ? 1 - step : -step)),
      .high = vdupq_n_s16((int16_t)limit_16),
      .low = vdupq_n_s16((int16_t)-limit_16),
      .full = vdupq_n_s32(pixels->full),
      .wide_shift = vdupq_n_s32(-step),
      .wide_high = vdupq_n_s32(limit),
      .wide_low = vdupq_n_s32(-limit),
  };
}

LQC_INLINE int16x8_t value_of(const value_params *params, uint16x8_t p) {
  int16x8_t a = vreinterpretq_s16_u16(vmlsq_u16(params->base, p, params->factor));
  return vmaxq_s16(vminq_s16(vqrshlq_s16(a, params->shift), params->high), params->low);
}

LQC_INLINE int32x4_t wide_value_of(const value_params *params, uint32x4_t p) {
  int32x4_t a = vsubq_s32(params->full, vreinterpretq_s32_u32(vshlq_n_u32(p, 1)));
  return vmaxq_s32(vminq_s32(vqrshlq_s32(a, params->wide_shift), params->wide_high), params->wide_low);
}

#endif /* LQC_FIXED_POINT_NEON_VALUES_H */
