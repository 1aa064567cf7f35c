#include "window.h"

lqc_axis lqc_row_axis(const lqc_window *window, const lqc_tensor *input, const lqc_tensor *output) {
  return (lqc_axis){.size = input->height,
                    .kernel = window->kernel_h,
                    .stride = window->stride_h,
                    .dilation = window->dilation_h,
                    .pad = window->pad_top,
                    .out = output->height};
}

lqc_axis lqc_column_axis(const lqc_window *window, const lqc_tensor *input, const lqc_tensor *output) {
  return (lqc_axis){.size = input->width,
                    .kernel = window->kernel_w,
                    .stride = window->stride_w,
                    .dilation = window->dilation_w,
                    .pad = window->pad_left,
                    .out = output->width};
}

/* The taps before the first one inside the image are [0, first), those after the last [end, kernel). Both numbers never
 * rise with the position; first >= end means that no tap is inside. */
static lqc_taps raw_taps(const lqc_axis *axis, uint32_t position) {
  int64_t start = lqc_axis_start(axis, position), dilation = axis->dilation, kernel = axis->kernel;
  int64_t last = (int64_t)axis->size - 1 - start; /* largest distance from tap 0 that is inside */
  int64_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
  /* Divided at borders alone: 32-bit processors do it in a function. */
  int64_t end = last < 0 ? 0 : last >= (kernel - 1) * dilation ? kernel : last / dilation + 1;
  return (lqc_taps){(uint32_t)(first < kernel ? first : kernel), (uint32_t)(end < kernel ? end : kernel)};
}

lqc_taps lqc_axis_taps(const lqc_axis *axis, uint32_t position) {
  lqc_taps taps = raw_taps(axis, position);
  return taps.first < taps.end ? taps : (lqc_taps){0, 0};
}

lqc_span lqc_axis_span(const lqc_axis *axis, uint32_t first) {
  lqc_taps taps = raw_taps(axis, first);
  uint32_t inside = first, outside = axis->out; /* bisection: `inside` belongs to the span, `outside` does not */
  while (outside - inside > 1) {
    uint32_t middle = inside + (outside - inside) / 2;
    lqc_taps other = raw_taps(axis, middle);
    if (other.first == taps.first && other.end == taps.end) {
      inside = middle;
    } else {
      outside = middle;
    }
  }
  return (lqc_span){first, outside, lqc_axis_taps(axis, first)};
}

uint32_t lqc_region_runs(lqc_run *runs, const lqc_run_geometry *geometry, lqc_taps rows, lqc_taps columns) {
  uint32_t count = 0;
  lqc_run run = {0, 0, 0};
  for (uint32_t i = rows.first; i < rows.end; ++i) {
    for (uint32_t j = columns.first; j < columns.end; ++j) {
      ptrdiff_t offset = (ptrdiff_t)((size_t)(i - rows.first) * geometry->dilation_h * geometry->row_words +
                                     (size_t)(j - columns.first) * geometry->dilation_w * geometry->pixel_words);
      uint32_t weight_word = (i * geometry->kernel_w + j) * geometry->tap_words;
      if (run.words > 0 && run.input_offset + (ptrdiff_t)run.words == offset &&
          run.weight_word + run.words == weight_word) {
        run.words += geometry->tap_words;
      } else {
        run = (lqc_run){offset, weight_word, geometry->tap_words};
        ++count;
      }
      if (runs) {
        runs[count - 1] = run;
      }
    }
  }
  return count;
}
