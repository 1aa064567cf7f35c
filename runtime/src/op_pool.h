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

/* The first window of a row and of a span of columns, all of which see the same taps. */
static inline lqc_pool_window lqc_pool_window_at(const lqc_pool_state *s, uint32_t row, const lqc_span *columns) {
  return (lqc_pool_window){s, lqc_axis_taps(&s->rows, row), columns->taps, lqc_axis_start(&s->rows, row),
                           lqc_axis_start(&s->columns, columns->first)};
}

/* The window of the next column of the span. */
static inline void lqc_pool_move_on(lqc_pool_window *w) {
  w->x += w->state->columns.stride;
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
    void *scratch = work->runner->thread_scratch + thread * work->runner->thread_scratch_bytes;      \
    for (lqc_span span = {0, 0, {0, 0}}; span.end < s->columns.out;) {                               \
      span = lqc_axis_span(&s->columns, span.end);                                                   \
      for (size_t y = begin; y < end; ++y) {                                                         \
        out_type *out = (out_type *)work->node->output;                                              \
        out += (y * s->columns.out + span.first) * s->elements;                                      \
        lqc_pool_window w = lqc_pool_window_at(s, (uint32_t)y, &span);                               \
        for (uint32_t x = span.first; x < span.end; ++x, out += s->elements) {                       \
          pixel(out, work->node->input, &w, scratch);                                                \
          lqc_pool_move_on(&w);                                                                      \
        }                                                                                            \
      }                                                                                              \
    }                                                                                                \
  }                                                                                                  \
  static void run_##name(const lqc_node *node, const lqc_runner *runner) {                           \
    name##_work work = {node, runner};                                                               \
    lqc_pool_run(runner->pool, name##_rows, &work, ((const lqc_pool_state *)node->state)->rows.out); \
  }

#endif /* LQC_OP_POOL_H */
