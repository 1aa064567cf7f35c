/* Quantize: float32 to int8 or int16. */
#include "op.h"

/* Few channels make short rows: the kernel takes so many elements at once. */
#define ROW 128u

typedef struct quantize_state {
  size_t elements;
  uint32_t row;        /* elements of whole pixels */
  const float *scales; /* 2^f, [row]; exact, below 2^-126 too */
  bool is_int8;
  const lqc_kernels *kernels;
} quantize_state;

/* One item is one row. */
static void quantize_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const quantize_state *s = node->state;
  const float *in = node->input;
  (void)thread;
  for (; begin < end; ++begin) {
    size_t first = begin * s->row, n = s->elements - first < s->row ? s->elements - first : s->row;
    if (s->is_int8) {
      s->kernels->quantize_i8((int8_t *)node->output + first, in + first, s->scales, n);
    } else {
      s->kernels->quantize_i16((int16_t *)node->output + first, in + first, s->scales, n);
    }
  }
}

static void run_quantize(const lqc_node *node, const lqc_runner *runner) {
  const quantize_state *s = node->state;
  lqc_pool_run(runner->pool, quantize_rows, node, (s->elements + s->row - 1) / s->row);
}

/* 2^exponent, -149 <= exponent <= 127, of which those below -126 are no normal float32 numbers. */
static float power_of_two(int exponent) {
  union {
    uint64_t raw;
    double value;
  } number = {.raw = (uint64_t)(exponent + 1023) << 52};
  return (float)number.value;
}

lqc_status lqc_prepare_Quantize(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                const lqc_tensor *output, lqc_node *node) {
  void *memory = NULL;
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16)));
  LQC_TRY(lqc_expect_same_shape(prepare, op, input, output));
  quantize_state state = {.elements = input->info.bytes / sizeof(float),
                          .row = input->channels,
                          .is_int8 = output->info.dtype == LQC_INT8,
                          .kernels = prepare->kernels};
  if (state.row < ROW) {
    state.row *= ROW / state.row;
  }
  LQC_TRY(lqc_bump_take(prepare->bump, state.row, sizeof(float), &memory, prepare->error));
  for (uint32_t e = 0; memory && e < state.row; ++e) {
    ((float *)memory)[e] = power_of_two(lqc_fraction_of(output, e % input->channels));
  }
  state.scales = memory;
  node->kernel = state.is_int8 ? "quantize_i8" : "quantize_i16";
  node->run = run_quantize;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
