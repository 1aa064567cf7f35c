/* Where a window's taps fall. One axis at a time: rows and columns are independent.
 *
 * The taps of an output position that lie inside the image are a range [first, end) of kernel indices, and both ends
 * fall (or stay) as the position grows. So output positions with the same taps are neighbours: a span. Regions are
 * spans of rows x spans of columns; all pixels of a region see the same taps. */
#ifndef LQC_WINDOW_H
#define LQC_WINDOW_H

#include "kernels.h"
#include "model.h"

typedef struct lqc_axis {
  uint32_t size, kernel, stride, dilation, pad, out;
} lqc_axis;

typedef struct lqc_taps {
  uint32_t first, end; /* [first, end); {0, 0} where no tap is inside */
} lqc_taps;

/* Output positions [first, end) that see the same taps. */
typedef struct lqc_span {
  uint32_t first, end;
  lqc_taps taps;
} lqc_span;

/* Distances in words between neighbours in memory. */
typedef struct lqc_run_geometry {
  uint32_t kernel_w, dilation_h, dilation_w;
  uint32_t tap_words; /* that a tap takes part with */
  size_t pixel_words, row_words;
} lqc_run_geometry;

lqc_axis lqc_row_axis(const lqc_window *window, const lqc_tensor *input, const lqc_tensor *output);
lqc_axis lqc_column_axis(const lqc_window *window, const lqc_tensor *input, const lqc_tensor *output);

/* Input position of tap 0; may be negative. */
static inline int64_t lqc_axis_start(const lqc_axis *axis, uint32_t position) {
  return (int64_t)position * axis->stride - axis->pad;
}

lqc_taps lqc_axis_taps(const lqc_axis *axis, uint32_t position);

/* The span that starts at output position `first`. */
lqc_span lqc_axis_span(const lqc_axis *axis, uint32_t first);

/* The runs of a region: taps that are neighbours in memory, in the input and in the filter, become one run. Their input
 * offsets count from the first tap inside, so that they and the places of pixels both lie inside the image: no pointer
 * is ever formed outside it. Returns their number; with runs NULL it only counts. */
uint32_t lqc_region_runs(lqc_run *runs, const lqc_run_geometry *geometry, lqc_taps rows, lqc_taps columns);

#endif /* LQC_WINDOW_H */
