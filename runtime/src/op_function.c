/* Function: sigmoid and tanh, from the runtime's own exponential in double, rounded once to float32. */
#include "op.h"

#include "exponential.h"

typedef struct function_state {
  size_t count;
  float (*function)(float x);
} function_state;

static double magnitude_of(float x) {
  return x < 0.0f ? -(double)x : (double)x;
}

float lqc_sigmoid(float x) {
  double power = lqc_exp(-magnitude_of(x));
  return (float)((x < 0.0f ? power : 1.0) / (1.0 + power));
}

float lqc_tanh(float x) {
  /* Near 0 the difference below would cancel; there x - x^3 / 3 is exact to 2 x^4 / 15, 2^-42 of x. */
  const double small = 0x1p-10;
  double magnitude = magnitude_of(x), power = lqc_exp(-2.0 * magnitude);
  double result =
      magnitude < small ? magnitude - magnitude * magnitude * magnitude / 3.0 : (1.0 - power) / (1.0 + power);
  return (float)(x < 0.0f ? -result : result);
}

static void function_elements(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const function_state *s = node->state;
  const float *in = node->input;
  float *out = node->output;
  (void)thread;
  for (size_t i = begin; i < end; ++i) {
    out[i] = s->function(in[i]);
  }
}

static void run_function(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, function_elements, node, ((const function_state *)node->state)->count);
}

lqc_status lqc_prepare_Function(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                const lqc_tensor *output, lqc_node *node) {
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_same_shape(prepare, op, input, output));
  bool sigmoid = op->function == LQC_SIGMOID;
  function_state state = {input->info.bytes / sizeof(float), sigmoid ? lqc_sigmoid : lqc_tanh};
  node->kernel = sigmoid ? "sigmoid_f32" : "tanh_f32";
  node->run = run_function;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
