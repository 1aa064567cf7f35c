/* Softmax over the last axis. Its own exponential, in double and with a fixed order of operations, so that every
 * machine gives the same float32 whatever its C library. */
#include "op.h"

#include <float.h>
#include <string.h>

#include "exponential.h"

#if FLT_EVAL_METHOD != 0
#  error "float results must be rounded to their type: build with SSE2 or another IEEE 754 unit"
#endif

typedef struct softmax_state {
  size_t pixels;
  uint32_t channels;
} softmax_state;

double lqc_exp(double x) {
  /* x = k ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts, the first with 21 trailing zeros, so k * high is exact. */
  static const double log2_e = 1.4426950408889634, ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
  /* 1 / n! for n = 13 .. 0: the next term is below 0.35^14 / 14! = 5e-18 of the sum. */
  static const double terms[] = {1.0 / 6227020800.0,
                                 1.0 / 479001600.0,
                                 1.0 / 39916800.0,
                                 1.0 / 3628800.0,
                                 1.0 / 362880.0,
                                 1.0 / 40320.0,
                                 1.0 / 5040.0,
                                 1.0 / 720.0,
                                 1.0 / 120.0,
                                 1.0 / 24.0,
                                 1.0 / 6.0,
                                 0.5,
                                 1.0,
                                 1.0};
  if (!(x > -700.0)) { /* below any float32 share; NaN too, as only overflow inside the model can make one */
    return 0.0;
  }
  int k = (int)(x * log2_e - 0.5); /* x <= 0, so truncation rounds to nearest */
  double r = x - k * ln2_high;
  r -= k * ln2_low;
  double sum = 0.0;
  for (size_t i = 0; i < sizeof(terms) / sizeof(terms[0]); ++i) {
    sum = sum * r + terms[i];
  }
  uint64_t raw = (uint64_t)(k + 1023) << 52; /* k >= -1010: normal */
  double scale;
  memcpy(&scale, &raw, sizeof(scale));
  return sum * scale;
}

void lqc_softmax(float *out, const float *in, uint32_t channels) {
  float largest = in[0];
  for (uint32_t c = 1; c < channels; ++c) {
    largest = in[c] > largest ? in[c] : largest;
  }
  double sum = 0.0;
  for (uint32_t c = 0; c < channels; ++c) {
    sum += lqc_exp((double)in[c] - (double)largest);
  }
  for (uint32_t c = 0; c < channels; ++c) {
    out[c] = (float)(lqc_exp((double)in[c] - (double)largest) / sum);
  }
}

static void softmax_pixels(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const softmax_state *s = node->state;
  (void)thread;
  for (size_t p = begin; p < end; ++p) {
    lqc_softmax((float *)node->output + p * s->channels, (const float *)node->input + p * s->channels, s->channels);
  }
}

static void run_softmax(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, softmax_pixels, node, ((const softmax_state *)node->state)->pixels);
}

lqc_status lqc_prepare_Softmax(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                               const lqc_tensor *output, lqc_node *node) {
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_same_shape(prepare, op, input, output));
  softmax_state state = {(size_t)input->height * input->width, input->channels};
  node->kernel = "softmax_f32";
  node->run = run_softmax;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
