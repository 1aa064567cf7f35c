/* Epilogues, the reference: what every other epilogue must equal to the last bit. */
#include <stdbool.h>

#include "kernels_isa.h"

/* v of kernels.h. int64, so that neither the rounding nor a left shift can overflow. */
static int64_t value_of(uint32_t p, uint32_t missing, const lqc_epilogue_params *params) {
  int64_t a = (int64_t)params->k - (int64_t)missing - 2 * (int64_t)p;
  if (params->clip_limit == 0) {
    return a;
  }
  int64_t limit = params->clip_limit;
  int32_t step = params->step_log2;
  /* >> of a negative number is a floor on every compiler this builds with. */
  int64_t v = step > 0 ? (a + ((int64_t)1 << (step - 1))) >> step : a * ((int64_t)1 << -step);
  return v > limit ? limit : v < -limit ? -limit : v;
}

/* Two roundings; the build's -ffp-contract=off keeps them two. 2^step_log2 times v is exact. */
static float affine_of(int64_t v, uint32_t channel, const lqc_epilogue_params *params) {
  int32_t step = params->step_log2;
  float scale = step >= 0 ? (float)(1 << step) : 1.0f / (float)(1 << -step);
  float product = params->multiplier[channel] * ((float)v * scale);
  return product + params->offset[channel];
}

/* sums: uint32_t where `wide`, else uint16_t. */
static uint64_t threshold_word(const void *sums, bool wide, uint32_t first, uint32_t missing,
                               const lqc_epilogue_params *params) {
  uint32_t bits = lqc_min_u32(params->channels - first, LQC_WORD_BITS);
  uint64_t word = params->invert ? params->invert[first / LQC_WORD_BITS] : 0;
  for (uint32_t b = 0; b < bits; ++b) {
    uint32_t c = first + b;
    uint32_t p = wide ? ((const uint32_t *)sums)[c] : ((const uint16_t *)sums)[c];
    uint32_t limit = wide ? params->limits_wide[c] : params->limits[c];
    word ^= (uint64_t)(2 * p + missing >= limit) << b;
  }
  return word;
}

void lqc_threshold_scalar(uint64_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  for (uint32_t c = 0; c < params->channels; c += LQC_WORD_BITS) {
    *out++ = threshold_word(sums, false, c, missing, params);
  }
}

void lqc_threshold_wide_scalar(uint64_t *out, const uint32_t *sums, uint32_t missing,
                               const lqc_epilogue_params *params) {
  for (uint32_t c = 0; c < params->channels; c += LQC_WORD_BITS) {
    *out++ = threshold_word(sums, true, c, missing, params);
  }
}

void lqc_clip_scalar(int8_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  for (uint32_t c = 0; c < params->channels; ++c) {
    out[c] = (int8_t)value_of(sums[c], missing, params);
  }
}

void lqc_clip_wide_scalar(int8_t *out, const uint32_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  for (uint32_t c = 0; c < params->channels; ++c) {
    out[c] = (int8_t)value_of(sums[c], missing, params);
  }
}

void lqc_affine_scalar(float *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  for (uint32_t c = 0; c < params->channels; ++c) {
    out[c] = affine_of(value_of(sums[c], missing, params), c, params);
  }
}

void lqc_affine_wide_scalar(float *out, const uint32_t *sums, uint32_t missing, const lqc_epilogue_params *params) {
  for (uint32_t c = 0; c < params->channels; ++c) {
    out[c] = affine_of(value_of(sums[c], missing, params), c, params);
  }
}
