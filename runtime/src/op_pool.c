/* BitMaxPool2D, MaxPool2D (float32, int8) and AveragePool2D: one output row is one item of work. */
#include "op.h"

typedef struct pool_state {
  lqc_axis rows, columns;
  uint32_t elements; /* of a pixel: words or channels */
  const uint64_t *invert;
} pool_state;

/* The window of one output pixel: taps and the input position of tap (0, 0). */
typedef struct window_at {
  const pool_state *state;
  lqc_taps rows, columns;
  int64_t y, x;
} window_at;

static window_at window_of(const pool_state *s, uint32_t row, uint32_t column) {
  return (window_at){s, lqc_axis_taps(&s->rows, row), lqc_axis_taps(&s->columns, column), lqc_axis_start(&s->rows, row),
                     lqc_axis_start(&s->columns, column)};
}

/* First element, in the input, of tap (i, j). */
static size_t element_of(const window_at *w, uint32_t i, uint32_t j) {
  const pool_state *s = w->state;
  size_t y = (size_t)(w->y + (int64_t)i * s->rows.dilation);
  size_t x = (size_t)(w->x + (int64_t)j * s->columns.dilation);
  return (y * s->columns.size + x) * s->elements;
}

static void bit_max_pixel(uint64_t *out, const uint64_t *in, const window_at *w) {
  const pool_state *s = w->state;
  for (uint32_t e = 0; e < s->elements; ++e) {
    out[e] = ~(uint64_t)0; /* the tail becomes 0 with the first tap: every window has one */
  }
  for (uint32_t i = w->rows.first; i < w->rows.end; ++i) {
    for (uint32_t j = w->columns.first; j < w->columns.end; ++j) {
      const uint64_t *tap = in + element_of(w, i, j);
      for (uint32_t e = 0; e < s->elements; ++e) {
        out[e] &= tap[e];
      }
    }
  }
  for (uint32_t e = 0; s->invert && e < s->elements; ++e) {
    out[e] ^= s->invert[e];
  }
}

#define LQC_DEFINE_MAX_PIXEL(name, type)                                     \
  static void name(type *out, const type *in, const window_at *w) {          \
    const pool_state *s = w->state;                                          \
    const type *start = in + element_of(w, w->rows.first, w->columns.first); \
    for (uint32_t e = 0; e < s->elements; ++e) {                             \
      out[e] = start[e];                                                     \
    }                                                                        \
    for (uint32_t i = w->rows.first; i < w->rows.end; ++i) {                 \
      for (uint32_t j = w->columns.first; j < w->columns.end; ++j) {         \
        const type *tap = in + element_of(w, i, j);                          \
        for (uint32_t e = 0; e < s->elements; ++e) {                         \
          out[e] = tap[e] > out[e] ? tap[e] : out[e];                        \
        }                                                                    \
      }                                                                      \
    }                                                                        \
  }
LQC_DEFINE_MAX_PIXEL(max_pixel_f32, float)
LQC_DEFINE_MAX_PIXEL(max_pixel_i8, int8_t)

static void average_pixel(float *out, const float *in, const window_at *w) {
  const pool_state *s = w->state;
  uint32_t count = (w->rows.end - w->rows.first) * (w->columns.end - w->columns.first);
  for (uint32_t e = 0; e < s->elements; ++e) {
    out[e] = 0.0f;
  }
  for (uint32_t i = w->rows.first; i < w->rows.end; ++i) {
    for (uint32_t j = w->columns.first; j < w->columns.end; ++j) {
      const float *tap = in + element_of(w, i, j);
      for (uint32_t e = 0; e < s->elements; ++e) {
        out[e] += tap[e];
      }
    }
  }
  for (uint32_t e = 0; e < s->elements; ++e) {
    out[e] /= (float)count;
  }
}

#define LQC_DEFINE_POOL(name, pixel, type)                                                      \
  static void name##_rows(const void *context, uint32_t thread, size_t begin, size_t end) {     \
    const lqc_node *node = context;                                                             \
    const pool_state *s = node->state;                                                          \
    type *out = (type *)node->output + begin * s->columns.out * s->elements;                    \
    (void)thread;                                                                               \
    for (size_t y = begin; y < end; ++y) {                                                      \
      for (uint32_t x = 0; x < s->columns.out; ++x, out += s->elements) {                       \
        window_at w = window_of(s, (uint32_t)y, x);                                             \
        pixel(out, node->input, &w);                                                            \
      }                                                                                         \
    }                                                                                           \
  }                                                                                             \
  static void run_##name(const lqc_node *node, const lqc_runner *runner) {                      \
    lqc_pool_run(runner->pool, name##_rows, node, ((const pool_state *)node->state)->rows.out); \
  }
LQC_DEFINE_POOL(bit_max_pool, bit_max_pixel, uint64_t)
LQC_DEFINE_POOL(max_pool_f32, max_pixel_f32, float)
LQC_DEFINE_POOL(max_pool_i8, max_pixel_i8, int8_t)
LQC_DEFINE_POOL(average_pool, average_pixel, float)

static lqc_status keep_pool(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input, const lqc_tensor *output,
                            uint32_t elements, const uint64_t *invert, lqc_node *node) {
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(input->info.dtype)));
  LQC_TRY(lqc_expect_pool_window(prepare, op, input, output));
  pool_state state = {lqc_row_axis(&op->window, input, output), lqc_column_axis(&op->window, input, output), elements,
                      invert};
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
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32) | LQC_MASK(LQC_INT8)));
  LQC_TRY(lqc_expect_same_fractions(prepare, op, input, output));
  bool is_float = input->info.dtype == LQC_FLOAT32;
  node->kernel = is_float ? "max_pool2d_f32" : "max_pool2d_i8";
  node->run = is_float ? run_max_pool_f32 : run_max_pool_i8;
  return keep_pool(prepare, op, input, output, input->channels, NULL, node);
}

lqc_status lqc_prepare_AveragePool2D(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                     const lqc_tensor *output, lqc_node *node) {
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32)));
  node->kernel = "average_pool2d_f32";
  node->run = run_average_pool;
  return keep_pool(prepare, op, input, output, input->channels, NULL, node);
}
