/* BinaryConv2D with epilogue FixedPoint. */
#include "bconv2d.h"

size_t lqc_bconv_fixed_scratch(const lqc_bconv_state *s) {
  return s->fixed.scratch_bytes;
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

void lqc_run_bconv_fixed(const lqc_bconv_state *s, const lqc_node *node, const size_t *places, uint32_t count,
                         const void *sums, uint32_t missing, void *scratch) {
  lqc_lane_pixels pixels = {.count = count,
                            .places = places,
                            .source = s->kernel->wide ? LQC_LANES_SUMS_WIDE : LQC_LANES_SUMS,
                            .values = sums,
                            .value_bytes = s->joined_stride * s->sum_bytes,
                            .full = (int32_t)s->params.k - (int32_t)missing,
                            .limit = s->params.clip_limit,
                            .step_log2 = s->params.step_log2};
  lqc_run_fixed_point(&s->fixed, s->kernels, node, &pixels, scratch);
}
