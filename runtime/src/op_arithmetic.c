/* Arithmetic: sums, products and the like of two float32 tensors. PReLU, whose second operand is a constant. */
#include "op.h"

/* Distances in elements between neighbours of an operand, 0 along an axis of 1, which repeats. */
typedef struct operand_strides {
  size_t row, pixel, channel;
} operand_strides;

typedef struct arithmetic_state {
  size_t pixels;
  uint32_t width, channels;
  bool same; /* both operands have the output's shape */
  operand_strides strides[2];
  const float *slope; /* the second operand where it is a constant */
  lqc_combine_f32 combine;
} arithmetic_state;

static void arithmetic_pixels(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const arithmetic_state *s = node->state;
  const float *a = node->input, *b = s->slope ? s->slope : node->inputs[1];
  float *out = (float *)node->output + begin * s->channels;
  (void)thread;
  if (s->same) {
    size_t first = begin * s->channels;
    s->combine(out, a + first, 1, b + first, 1, (end - begin) * s->channels);
    return;
  }
  const operand_strides *of_a = &s->strides[0], *of_b = &s->strides[1];
  for (size_t p = begin; p < end; ++p, out += s->channels) {
    size_t y = p / s->width, x = p % s->width;
    s->combine(out, a + y * of_a->row + x * of_a->pixel, of_a->channel, b + y * of_b->row + x * of_b->pixel,
               of_b->channel, s->channels);
  }
}

static void run_arithmetic(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, arithmetic_pixels, node, ((const arithmetic_state *)node->state)->pixels);
}

/* Strides of an operand whose axes are those of the output, or 1. */
static operand_strides strides_of(uint32_t height, uint32_t width, uint32_t channels) {
  return (operand_strides){.row = height == 1 ? 0 : (size_t)width * channels,
                           .pixel = width == 1 ? 0 : channels,
                           .channel = channels == 1 ? 0 : 1};
}

static bool same_shape(const lqc_tensor *a, uint32_t height, uint32_t width, uint32_t channels) {
  return a->height == height && a->width == width && a->channels == channels;
}

static bool repeats_to(uint32_t axis, uint32_t other, uint32_t whole) {
  return (axis == whole || axis == 1) && (other == whole || other == 1) && (axis == whole || other == whole);
}

lqc_status lqc_prepare_Arithmetic(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *inputs,
                                  const lqc_tensor *output, lqc_node *node) {
  const lqc_kernels *kernels = prepare->kernels;
  const struct {
    lqc_combine_f32 combine;
    const char *kernel;
  } kinds[LQC_ARITHMETIC_COUNT] = {[LQC_ADD] = {kernels->add_f32, "add_f32"},
                                   [LQC_SUBTRACT] = {kernels->subtract_f32, "subtract_f32"},
                                   [LQC_MULTIPLY] = {kernels->multiply_f32, "multiply_f32"},
                                   [LQC_MAXIMUM] = {kernels->maximum_f32, "maximum_f32"},
                                   [LQC_MINIMUM] = {kernels->minimum_f32, "minimum_f32"}};
  if (op->input_count != 2) {
    return lqc_fail(prepare->error, LQC_ERROR_MALFORMED, "op '%s' (Arithmetic) has %u inputs; accepted are 2", op->name,
                    op->input_count);
  }
  const lqc_tensor *a = &inputs[0], *b = &inputs[1];
  LQC_TRY(lqc_expect_dtype(prepare, op, a, "input", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_dtype(prepare, op, b, "input", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_FLOAT32)));
  if (!repeats_to(a->height, b->height, output->height) || !repeats_to(a->width, b->width, output->width) ||
      !repeats_to(a->channels, b->channels, output->channels)) {
    return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                    "op '%s' (Arithmetic) makes [%u, %u, %u] of [%u, %u, %u] and [%u, %u, %u]; accepted are axes that "
                    "are the same, or 1 in one of the inputs",
                    op->name, output->height, output->width, output->channels, a->height, a->width, a->channels,
                    b->height, b->width, b->channels);
  }
  arithmetic_state state = {
      .pixels = (size_t)output->height * output->width,
      .width = output->width,
      .channels = output->channels,
      .same = same_shape(a, output->height, output->width, output->channels) &&
              same_shape(b, output->height, output->width, output->channels),
      .strides = {strides_of(a->height, a->width, a->channels), strides_of(b->height, b->width, b->channels)},
      .combine = kinds[op->arithmetic].combine};
  node->kernel = kinds[op->arithmetic].kernel;
  node->run = run_arithmetic;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}

lqc_status lqc_prepare_PReLU(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input, const lqc_tensor *output,
                             lqc_node *node) {
  lqc_constant slope;
  uint32_t shape[3] = {input->height, input->width, input->channels};
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_same_shape(prepare, op, input, output));
  LQC_TRY(lqc_read_constant(prepare->view, (uint32_t)op->slope, &slope, prepare->error));
  for (uint32_t i = 0; i < 3 && slope.rank == 3; ++i) {
    shape[i] = slope.shape[i] == 1 ? 1 : shape[i];
  }
  LQC_TRY(lqc_expect_constant(prepare, op, "slope", op->slope, LQC_MASK(LQC_FLOAT32), shape, 3, false, &slope));
  arithmetic_state state = {
      .pixels = (size_t)input->height * input->width,
      .width = input->width,
      .channels = input->channels,
      .same = same_shape(input, shape[0], shape[1], shape[2]),
      .strides = {strides_of(input->height, input->width, input->channels), strides_of(shape[0], shape[1], shape[2])},
      .slope = slope.data,
      .combine = prepare->kernels->prelu_f32};
  node->kernel = "prelu_f32";
  node->run = run_arithmetic;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
