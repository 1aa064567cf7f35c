/* Affine: multiplier[c] * x + offset[c], two roundings, then the activation. */
#include "op.h"

/* |fraction bits|: 2^f and 2^-f are normal float32 numbers, exact, and q * 2^-f too. */
#define MAX_FRACTION_BITS 64

typedef struct affine_state {
  size_t pixels;
  uint32_t channels;
  bool is_int8;
  const int8_t *fraction_bits;
  uint32_t fraction_count;
  const float *multiplier, *offset;
  lqc_activation activation;
} affine_state;

static float read_value(const affine_state *s, const void *in, size_t pixel, uint32_t c) {
  size_t place = pixel * s->channels + c;
  if (!s->is_int8) {
    return ((const float *)in)[place];
  }
  float q = ((const int8_t *)in)[place];
  return s->fraction_count == 0 ? q : q * lqc_power_of_two(-s->fraction_bits[s->fraction_count == 1 ? 0 : c]);
}

static void affine_pixels(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const affine_state *s = node->state;
  (void)thread;
  for (size_t p = begin; p < end; ++p) {
    float *out = (float *)node->output + p * s->channels;
    for (uint32_t c = 0; c < s->channels; ++c) {
      float value = read_value(s, node->input, p, c);
      value = s->multiplier ? s->multiplier[c] * value : value;
      value = s->offset ? value + s->offset[c] : value;
      out[c] = lqc_activate(s->activation, value);
    }
  }
}

static void run_affine(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, affine_pixels, node, ((const affine_state *)node->state)->pixels);
}

lqc_status lqc_prepare_Affine(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input, const lqc_tensor *output,
                              lqc_node *node) {
  lqc_constant multiplier, offset;
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32) | LQC_MASK(LQC_INT8)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_same_shape(prepare, op, input, output));
  LQC_TRY(lqc_expect_constant(prepare, op, "multiplier", op->multiplier, LQC_MASK(LQC_FLOAT32), &input->channels, 1,
                              false, &multiplier));
  LQC_TRY(lqc_expect_constant(prepare, op, "offset", op->offset, LQC_MASK(LQC_FLOAT32), &input->channels, 1, false,
                              &offset));
  for (uint32_t i = 0; i < input->fraction_count; ++i) {
    if (input->fraction_bits[i] < -MAX_FRACTION_BITS || input->fraction_bits[i] > MAX_FRACTION_BITS) {
      return lqc_fail(prepare->error, LQC_ERROR_UNSUPPORTED,
                      "op '%s' (Affine): fraction_bits[%u] of '%s' is %d; accepted are %d to %d", op->name, i,
                      input->info.name, (int)input->fraction_bits[i], -MAX_FRACTION_BITS, MAX_FRACTION_BITS);
    }
  }
  affine_state state = {.pixels = (size_t)input->height * input->width,
                        .channels = input->channels,
                        .is_int8 = input->info.dtype == LQC_INT8,
                        .fraction_bits = input->fraction_bits,
                        .fraction_count = input->fraction_count,
                        .multiplier = multiplier.data,
                        .offset = offset.data,
                        .activation = op->activation};
  node->kernel = state.is_int8 ? "affine_i8" : "affine_f32";
  node->run = run_affine;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
