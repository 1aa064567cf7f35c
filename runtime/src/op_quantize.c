/* Quantize: float32 to int8 or int16. In double x * 2^f is exact, and adding 1/2 rounds only where the floor is the
 * same: the sum of 1/2 and a number of 24 bits has more than 53 bits only where |x * 2^f| is below 2^-29 or above 2^52.
 */
#include "op.h"

typedef struct quantize_state {
  size_t pixels;
  uint32_t channels;
  const double *scales; /* 2^f, [channels] */
  bool is_int8;
} quantize_state;

/* clip(floor(x * scale + 1/2), +-limit). A NaN, which only overflow inside the model can make, gives `limit`. */
static inline int32_t quantize(float x, double scale, int32_t limit) {
  double v = (double)x * scale + 0.5;
  v = v < limit ? v : limit;
  v = v > -limit ? v : -limit;
  int32_t q = (int32_t)v;
  return q - (v < q);
}

#define LQC_DEFINE_QUANTIZE(name, type, limit)                                                                \
  static void name(type *restrict out, const float *restrict in, const double *restrict scales, uint32_t n) { \
    for (uint32_t c = 0; c < n; ++c) {                                                                        \
      out[c] = (type)quantize(in[c], scales[c], limit);                                                       \
    }                                                                                                         \
  }
LQC_DEFINE_QUANTIZE(quantize_int8, int8_t, INT8_MAX)
LQC_DEFINE_QUANTIZE(quantize_int16, int16_t, INT16_MAX)

static void quantize_pixels(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const quantize_state *s = node->state;
  int8_t *out8 = node->output;
  int16_t *out16 = node->output;
  (void)thread;
  for (size_t p = begin; p < end; ++p) {
    size_t first = p * s->channels;
    const float *in = (const float *)node->input + first;
    if (s->is_int8) {
      quantize_int8(out8 + first, in, s->scales, s->channels);
    } else {
      quantize_int16(out16 + first, in, s->scales, s->channels);
    }
  }
}

static void run_quantize(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, quantize_pixels, node, ((const quantize_state *)node->state)->pixels);
}

/* 2^exponent, -1022 <= exponent <= 1023. */
static double power_of_two(int exponent) {
  union {
    uint64_t raw;
    double value;
  } number = {.raw = (uint64_t)(exponent + 1023) << 52};
  return number.value;
}

lqc_status lqc_prepare_Quantize(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                const lqc_tensor *output, lqc_node *node) {
  void *memory = NULL;
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16)));
  LQC_TRY(lqc_expect_same_shape(prepare, op, input, output));
  LQC_TRY(lqc_bump_take(prepare->bump, input->channels, sizeof(double), &memory, prepare->error));
  for (uint32_t c = 0; memory && c < input->channels; ++c) {
    ((double *)memory)[c] = power_of_two(lqc_fraction_of(output, c));
  }
  quantize_state state = {.pixels = (size_t)input->height * input->width,
                          .channels = input->channels,
                          .scales = memory,
                          .is_int8 = output->info.dtype == LQC_INT8};
  node->kernel = state.is_int8 ? "quantize_i8" : "quantize_i16";
  node->run = run_quantize;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
