/* Elementwise: fixed-point steps and stores from an int8 or int16 tensor. */
#include "fixed_point.h"

typedef struct elementwise_state {
  size_t pixels;
  uint32_t channels;
  bool is_int8;
  const lqc_kernels *kernels;
  lqc_fixed fixed;
} elementwise_state;

typedef struct elementwise_work {
  const lqc_node *node;
  const lqc_runner *runner;
} elementwise_work;

static void elementwise_pixels(const void *context, uint32_t thread, size_t begin, size_t end) {
  const elementwise_work *work = context;
  const elementwise_state *s = work->node->state;
  const uint8_t *x = work->node->input;
  size_t pixel_bytes = s->is_int8 ? s->channels : s->channels * sizeof(int16_t);
  void *scratch = work->runner->thread_scratch + thread * work->runner->thread_scratch_bytes;
  for (size_t first = begin; first < end; first += LQC_LANE_PIXELS) {
    const size_t left = end - first;
    lqc_lane_pixels pixels = {.count = left < LQC_LANE_PIXELS ? (uint32_t)left : LQC_LANE_PIXELS,
                              .first = first,
                              .source = s->is_int8 ? LQC_LANES_INT8 : LQC_LANES_INT16,
                              .values = x + first * pixel_bytes,
                              .value_bytes = pixel_bytes};
    lqc_run_fixed_point(&s->fixed, s->kernels, work->node, &pixels, scratch);
  }
}

static void run_elementwise(const lqc_node *node, const lqc_runner *runner) {
  elementwise_work work = {node, runner};
  lqc_pool_run(runner->pool, elementwise_pixels, &work, ((const elementwise_state *)node->state)->pixels);
}

static lqc_range range_of_input(const void *context, uint32_t channel) {
  const lqc_tensor *input = context;
  (void)channel;
  return input->info.dtype == LQC_INT8 ? (lqc_range){INT8_MIN, INT8_MAX} : (lqc_range){INT16_MIN, INT16_MAX};
}

lqc_status lqc_prepare_Elementwise(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                   const lqc_tensor *output, lqc_node *node) {
  elementwise_state state = {.pixels = (size_t)input->height * input->width,
                             .channels = input->channels,
                             .is_int8 = input->info.dtype == LQC_INT8,
                             .kernels = prepare->kernels};
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16)));
  LQC_TRY(lqc_expect_same_shape(prepare, op, input, output));
  LQC_TRY(lqc_prepare_fixed_point(prepare, op, input, output, range_of_input, input, &state.fixed));
  lqc_need_thread_scratch(prepare, state.fixed.scratch_bytes);
  node->kernel = state.fixed.wide ? "elementwise_i64" : "elementwise_i32";
  node->run = run_elementwise;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
