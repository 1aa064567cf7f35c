/* Affine: multiplier[c] * x + offset[c], two roundings, then the activation. */
#include "op.h"

/* |fraction bits|: 2^f and 2^-f are normal float32 numbers, exact, and q * 2^-f too. */
#define MAX_FRACTION_BITS 64

typedef struct affine_state {
  size_t pixels;
  bool is_int8;
  const int8_t *fraction_bits;
  uint32_t fraction_count;
  lqc_affine_f32 params;
  void (*affine)(float *out, const float *in, size_t pixels, const lqc_affine_f32 *params);
} affine_state;

/* One pixel of integers as numbers. */
static void read_integers(const affine_state *s, float *out, const int8_t *in) {
  float scale = s->fraction_count == 1 ? lqc_power_of_two(-s->fraction_bits[0]) : 1.0f;
  for (uint32_t c = 0; c < s->params.channels; ++c) {
    out[c] = (float)in[c] * scale;
  }
  for (uint32_t c = 0; s->fraction_count > 1 && c < s->params.channels; ++c) {
    out[c] *= lqc_power_of_two(-s->fraction_bits[c]);
  }
}

static void affine_pixels(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const affine_state *s = node->state;
  (void)thread;
  if (!s->is_int8) {
    size_t first = begin * s->params.channels;
    s->affine((float *)node->output + first, (const float *)node->input + first, end - begin, &s->params);
    return;
  }
  for (size_t p = begin; p < end; ++p) {
    size_t first = p * s->params.channels;
    float *out = (float *)node->output + first;
    read_integers(s, out, (const int8_t *)node->input + first);
    s->affine(out, out, 1, &s->params);
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
                        .is_int8 = input->info.dtype == LQC_INT8,
                        .fraction_bits = input->fraction_bits,
                        .fraction_count = input->fraction_count,
                        .params = {.channels = input->channels,
                                   .multiplier = multiplier.data,
                                   .offset = offset.data,
                                   .low = op->activation.low,
                                   .high = op->activation.high},
                        .affine = prepare->kernels->affine_f32};
  node->kernel = state.is_int8 ? "affine_i8" : "affine_f32";
  node->run = run_affine;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
