/* BinaryConv2D with epilogue FixedPoint: from sums to v, then steps and stores. */
#include "bconv2d.h"

size_t lqc_bconv_fixed_scratch(const lqc_bconv_state *s) {
  return s->joined_stride * sizeof(int32_t) + s->fixed.row_bytes;
}

/* v = clip(floor(a / 2^step_log2 + 1/2), +-limit), which rises with a, |a| <= K <= 2^24; so v fits 32 bits. */
static lqc_range range_of_v(const void *context, uint32_t channel) {
  const lqc_epilogue_params *params = context;
  int64_t k = params->k, limit = params->clip_limit, step = params->step_log2;
  (void)channel;
  if (limit == 0) {
    return (lqc_range){-k, k};
  }
  int64_t low = step > 0 ? (-k + ((int64_t)1 << (step - 1))) >> step : -k * ((int64_t)1 << -step);
  int64_t high = step > 0 ? (k + ((int64_t)1 << (step - 1))) >> step : k * ((int64_t)1 << -step);
  return (lqc_range){low > -limit ? low : -limit, high < limit ? high : limit};
}

lqc_status lqc_prepare_bconv_fixed(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *inputs,
                                   const lqc_tensor *outputs, lqc_bconv_state *s) {
  return lqc_prepare_fixed_point(prepare, op, inputs, outputs, range_of_v, &s->params, &s->fixed);
}

#define LQC_DEFINE_VALUES(name, type)                                                                              \
  static void name(const lqc_epilogue_params *params, const type *restrict sums, int32_t missing,                  \
                   int32_t *restrict v) {                                                                          \
    int32_t full = (int32_t)params->k - missing, limit = params->clip_limit, step = params->step_log2;             \
    int32_t half = step > 0 ? 1 << (step - 1) : 0, right = step > 0 ? step : 0, scale = step < 0 ? 1 << -step : 1; \
    if (limit == 0) {                                                                                              \
      for (uint32_t c = 0; c < params->channels; ++c) {                                                            \
        v[c] = full - 2 * (int32_t)sums[c];                                                                        \
      }                                                                                                            \
      return;                                                                                                      \
    }                                                                                                              \
    for (uint32_t c = 0; c < params->channels; ++c) {                                                              \
      int32_t a = full - 2 * (int32_t)sums[c];                                                                     \
      int32_t rounded = (a * scale + half) >> right;                                                               \
      rounded = rounded < limit ? rounded : limit;                                                                 \
      v[c] = rounded > -limit ? rounded : -limit;                                                                  \
    }                                                                                                              \
  }
LQC_DEFINE_VALUES(values_narrow, uint16_t)
LQC_DEFINE_VALUES(values_wide, uint32_t)

void lqc_run_bconv_fixed(const lqc_bconv_state *s, const lqc_node *node, size_t pixel, const void *sums,
                         uint32_t missing, void *scratch) {
  int32_t *v = scratch;
  if (s->kernel->wide) {
    values_wide(&s->params, sums, (int32_t)missing, v);
  } else {
    values_narrow(&s->params, sums, (int32_t)missing, v);
  }
  lqc_run_fixed_point(&s->fixed, s->kernels, node, pixel, v, v + s->joined_stride);
}
