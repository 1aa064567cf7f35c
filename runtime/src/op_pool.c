/* BitMaxPool2D and MaxPool2D (float32, int8, int16). */
#include "op_pool.h"

/* A word of a pixel of bits: those that all taps have. */
static uint64_t bits_of_all(const uint64_t *tap, const lqc_pool_window *w, size_t row_words, size_t column_words) {
  uint64_t bits = ~(uint64_t)0; /* the tail becomes 0 with the first tap: every window has one */
  for (uint32_t i = w->rows.first; i < w->rows.end; ++i, tap += row_words) {
    const uint64_t *column = tap;
    for (uint32_t j = w->columns.first; j < w->columns.end; ++j, column += column_words) {
      bits &= *column;
    }
  }
  return bits;
}

/* Columns that see the same taps are gone through together: where a window lies takes longer than what is in it. */
static void bit_max_pool_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const lqc_pool_state *s = node->state;
  const size_t row_words = (size_t)s->rows.dilation * s->columns.size * s->elements;
  const size_t column_words = (size_t)s->columns.dilation * s->elements;
  (void)thread;
  for (lqc_span span = {0, 0, {0, 0}}; span.end < s->columns.out;) {
    span = lqc_axis_span(&s->columns, span.end);
    for (size_t y = begin; y < end; ++y) {
      lqc_pool_window w = lqc_pool_window_at(s, (uint32_t)y, &span);
      const uint64_t *tap = (const uint64_t *)node->input + lqc_pool_element(&w, w.rows.first, w.columns.first);
      uint64_t *out = (uint64_t *)node->output + (y * s->columns.out + span.first) * s->elements;
      for (uint32_t x = span.first; x < span.end; ++x, tap += (size_t)s->columns.stride * s->elements) {
        for (uint32_t e = 0; e < s->elements; ++e) {
          *out++ = bits_of_all(tap + e, &w, row_words, column_words) ^ (s->invert ? s->invert[e] : 0);
        }
      }
    }
  }
}

static void run_bit_max_pool(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, bit_max_pool_rows, node, ((const lqc_pool_state *)node->state)->rows.out);
}

static void max_pixel_i16(int16_t *out, const int16_t *in, const lqc_pool_window *w, void *scratch) {
  const lqc_pool_state *s = w->state;
  (void)scratch;
  const int16_t *start = in + lqc_pool_element(w, w->rows.first, w->columns.first);
  for (uint32_t e = 0; e < s->elements; ++e) {
    out[e] = start[e];
  }
  for (uint32_t i = w->rows.first; i < w->rows.end; ++i) {
    for (uint32_t j = w->columns.first; j < w->columns.end; ++j) {
      const int16_t *tap = in + lqc_pool_element(w, i, j);
      for (uint32_t e = 0; e < s->elements; ++e) {
        out[e] = tap[e] > out[e] ? tap[e] : out[e];
      }
    }
  }
}

static void max_pixel_i8(int8_t *out, const int8_t *in, const lqc_pool_window *w, void *scratch) {
  lqc_pool_taps taps = lqc_pool_taps_at(w, in, sizeof(*in));
  (void)scratch;
  w->state->kernels->max_i8(out, &taps, w->state->elements);
}

static void max_pixel_f32(float *out, const float *in, const lqc_pool_window *w, void *scratch) {
  lqc_pool_taps taps = lqc_pool_taps_at(w, in, sizeof(*in));
  (void)scratch;
  w->state->kernels->max_f32(out, &taps, w->state->elements);
}

LQC_DEFINE_POOL(max_pool_f32, max_pixel_f32, float)
LQC_DEFINE_POOL(max_pool_i8, max_pixel_i8, int8_t)
LQC_DEFINE_POOL(max_pool_i16, max_pixel_i16, int16_t)

static lqc_status keep_pool(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input, const lqc_tensor *output,
                            uint32_t elements, const uint64_t *invert, lqc_node *node) {
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(input->info.dtype)));
  LQC_TRY(lqc_expect_pool_window(prepare, op, input, output));
  lqc_pool_state state = {.rows = lqc_row_axis(&op->window, input, output),
                          .columns = lqc_column_axis(&op->window, input, output),
                          .elements = elements,
                          .invert = invert,
                          .kernels = prepare->kernels};
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}

lqc_status lqc_prepare_BitMaxPool2D(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                    const lqc_tensor *output, lqc_node *node) {
  lqc_constant invert;
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_BIT)));
  LQC_TRY(
      lqc_expect_constant(prepare, op, "invert", op->invert, LQC_MASK(LQC_BIT), &input->channels, 1, false, &invert));
  node->kernel = "bit_max_pool2d";
  node->run = run_bit_max_pool;
  return keep_pool(prepare, op, input, output, lqc_words(input->channels), invert.data, node);
}

lqc_status lqc_prepare_MaxPool2D(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                 const lqc_tensor *output, lqc_node *node) {
  unsigned accepted = LQC_MASK(LQC_FLOAT32) | LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16);
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", accepted));
  LQC_TRY(lqc_expect_same_fractions(prepare, op, input, output));
  switch (input->info.dtype) {
  case LQC_FLOAT32:
    node->kernel = "max_pool2d_f32";
    node->run = run_max_pool_f32;
    break;
  case LQC_INT8:
    node->kernel = "max_pool2d_i8";
    node->run = run_max_pool_i8;
    break;
  default:
    node->kernel = "max_pool2d_i16";
    node->run = run_max_pool_i16;
    break;
  }
  return keep_pool(prepare, op, input, output, input->channels, NULL, node);
}
