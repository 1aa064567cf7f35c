/* What max and average pools share: the pixels of a window. One output row is one item of work. */
#ifndef LQC_OP_POOL_H
#define LQC_OP_POOL_H

#include "op.h"

typedef struct lqc_pool_state {
  lqc_axis rows, columns;
  uint32_t elements; /* of a pixel: words or channels */
  const uint64_t *invert;
  const int8_t *shifts;          /* average of integers: 2^shift[c] times the mean of channel c is stored */
  bool to_int16;                 /* average of integers */
  const lqc_lane_program *means; /* average of int8: [i] stores the mean of a window of 2^i pixels from their sum */
  const lqc_kernels *kernels;
} lqc_pool_state;

/* The window of one output pixel: taps and the input position of tap (0, 0). */
typedef struct lqc_pool_window {
  const lqc_pool_state *state;
  lqc_taps rows, columns;
  int64_t y, x;
} lqc_pool_window;

static inline lqc_pool_window lqc_pool_window_in_row(const lqc_pool_state *s, uint32_t row) {
  return (lqc_pool_window){.state = s, .rows = lqc_axis_taps(&s->rows, row), .y = lqc_axis_start(&s->rows, row)};
}

static inline void lqc_pool_move_to(lqc_pool_window *w, uint32_t column) {
  w->columns = lqc_axis_taps(&w->state->columns, column);
  w->x = lqc_axis_start(&w->state->columns, column);
}

/* First element, in the input, of tap (i, j). */
static inline size_t lqc_pool_element(const lqc_pool_window *w, uint32_t i, uint32_t j) {
  const lqc_pool_state *s = w->state;
  size_t y = (size_t)(w->y + (int64_t)i * s->rows.dilation);
  size_t x = (size_t)(w->x + (int64_t)j * s->columns.dilation);
  return (y * s->columns.size + x) * s->elements;
}

/* Elements are int8 or float32, of `bytes` each. */
static inline lqc_pool_taps lqc_pool_taps_at(const lqc_pool_window *w, const void *in, size_t bytes) {
  const lqc_pool_state *s = w->state;
  return (lqc_pool_taps){.input = (const int8_t *)in + lqc_pool_element(w, w->rows.first, w->columns.first) * bytes,
                         .row_stride = (size_t)s->rows.dilation * s->columns.size * s->elements * bytes,
                         .column_stride = (size_t)s->columns.dilation * s->elements * bytes,
                         .rows = w->rows.end - w->rows.first,
                         .columns = w->columns.end - w->columns.first};
}

/* Defines run_NAME(), which calls pixel(out, in, &window, scratch) for every output pixel; scratch is the thread's. */
#define LQC_DEFINE_POOL(name, pixel, out_type)                                                       \
  typedef struct name##_work {                                                                       \
    const lqc_node *node;                                                                            \
    const lqc_runner *runner;                                                                        \
  } name##_work;                                                                                     \
  static void name##_rows(const void *context, uint32_t thread, size_t begin, size_t end) {          \
    const name##_work *work = context;                                                               \
    const lqc_pool_state *s = work->node->state;                                                     \
    out_type *out = (out_type *)work->node->output + begin * s->columns.out * s->elements;           \
    void *scratch = work->runner->thread_scratch + thread * work->runner->thread_scratch_bytes;      \
    for (size_t y = begin; y < end; ++y) {                                                           \
      lqc_pool_window w = lqc_pool_window_in_row(s, (uint32_t)y);                                    \
      for (uint32_t x = 0; x < s->columns.out; ++x, out += s->elements) {                            \
        lqc_pool_move_to(&w, x);                                                                     \
        pixel(out, work->node->input, &w, scratch);                                                  \
      }                                                                                              \
    }                                                                                                \
  }                                                                                                  \
  static void run_##name(const lqc_node *node, const lqc_runner *runner) {                           \
    name##_work work = {node, runner};                                                               \
    lqc_pool_run(runner->pool, name##_rows, &work, ((const lqc_pool_state *)node->state)->rows.out); \
  }

#endif /* LQC_OP_POOL_H */
