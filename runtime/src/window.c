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

lqc_taps lqc_axis_taps(const lqc_axis *axis, uint32_t position) {
  int64_t start = lqc_axis_start(axis, position);
  int64_t last = (int64_t)axis->size - 1 - start; /* largest offset inside the image */
  if (last < 0) {
    return (lqc_taps){0, 0};
  }
  int64_t dilation = axis->dilation;
  int64_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
  int64_t end = last / dilation + 1;
  if (end > axis->kernel) {
    end = axis->kernel;
  }
  if (first >= end) {
    return (lqc_taps){0, 0};
  }
  return (lqc_taps){(uint32_t)first, (uint32_t)end};
}

lqc_span lqc_axis_span(const lqc_axis *axis, uint32_t first) {
  lqc_span span = {first, first + 1, lqc_axis_taps(axis, first)};
  while (span.end < axis->out) {
    lqc_taps next = lqc_axis_taps(axis, span.end);
    if (next.first != span.taps.first || next.end != span.taps.end) {
      break;
    }
    ++span.end;
  }
  return span;
}

uint32_t lqc_region_runs(lqc_run *runs, const lqc_run_geometry *geometry, lqc_taps rows, lqc_taps columns) {
  uint32_t count = 0;
  lqc_run run = {0, 0, 0};
  for (uint32_t i = rows.first; i < rows.end; ++i) {
    for (uint32_t j = columns.first; j < columns.end; ++j) {
      ptrdiff_t offset = (ptrdiff_t)((size_t)i * geometry->dilation_h * geometry->row_words +
                                     (size_t)j * geometry->dilation_w * geometry->pixel_words);
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
