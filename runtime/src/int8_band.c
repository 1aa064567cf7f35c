#include "int8_band.h"

#include <string.h>

#include "checked.h"

#define MAX_BYTES ((size_t)1 << 20) /* what is read again and again should stay in the second-level cache */
#define FEW_BYTES ((size_t)1 << 16) /* that may have several output rows: a row is then copied less often */

static uint64_t width_of(const lqc_axis *columns) {
  return (uint64_t)(columns->out - 1) * columns->stride + columns->kernel;
}

/* Rows of taps of some output rows: where neighbours share some, all from the first to the last. */
static uint32_t row_count(const lqc_axis *rows, uint32_t out_rows) {
  return (out_rows - 1) * rows->stride + rows->kernel;
}

static uint32_t out_rows_of(const lqc_axis *rows, size_t row_bytes) {
  uint32_t out_rows = 1;
  if (rows->dilation != 1 || rows->stride >= rows->kernel) {
    return out_rows;
  }
  while (out_rows < rows->out && row_count(rows, out_rows + 1) <= FEW_BYTES / row_bytes) {
    ++out_rows;
  }
  return out_rows;
}

bool lqc_int8_plan_band(const lqc_int8_kernel *kernel, const lqc_axis *rows, const lqc_axis *columns, uint32_t groups,
                        uint32_t depth, lqc_int8_band *band) {
  const size_t pixel = depth * (size_t)kernel->element_bytes;
  const uint64_t width = width_of(columns);
  size_t row, rows_of_groups, bytes;
  if (!kernel->takes_runs || columns->dilation != 1 || width > MAX_BYTES ||
      !lqc_multiply_size((size_t)width, pixel, &row) || !lqc_align_size(row, LQC_ALIGNMENT, &row) ||
      !lqc_multiply_size(row, groups, &rows_of_groups) || !lqc_multiply_size(rows_of_groups, rows->kernel, &bytes) ||
      bytes > MAX_BYTES) {
    return false;
  }
  const uint32_t out_rows = out_rows_of(rows, rows_of_groups);
  const size_t group = row_count(rows, out_rows) * row;
  *band = (lqc_int8_band){.groups = groups,
                          .depth = depth,
                          .out_rows = out_rows,
                          .row_bytes = row,
                          .pixel_bytes = columns->stride * pixel,
                          .out_row_bytes = rows->stride * row,
                          .group_bytes = group,
                          .bytes = groups * group + LQC_INT8_OVERRUN};
  return true;
}

/* Input row y, or padding. */
static void fill_row(const lqc_int8_kernel *kernel, const lqc_axis *rows, const lqc_axis *columns,
                     const lqc_int8_band *band, const int8_t *input, uint32_t group, int64_t y, uint8_t *memory) {
  const uint64_t width = width_of(columns);
  const size_t before = (size_t)(columns->pad < width ? columns->pad : width);
  const size_t inside = (size_t)(width - before < columns->size ? width - before : columns->size);
  const size_t pixel = band->depth * (size_t)kernel->element_bytes, channels = (size_t)band->groups * band->depth;
  size_t first = 0, end = 0;
  if (y >= 0 && y < rows->size && inside > 0) {
    lqc_int8_gather taps = {.input = input + (size_t)y * columns->size * channels + (size_t)group * band->depth,
                            .column_stride = channels,
                            .rows = 1,
                            .columns = (uint32_t)inside,
                            .run = band->depth,
                            .place_column = band->depth};
    if (band->groups == 1) { /* neighbours in memory */
      taps.run *= inside;
      taps.columns = 1;
    }
    first = before * pixel;
    end = first + inside * pixel;
    kernel->gather(memory + first, &taps); /* and some bytes beyond, which are overwritten */
  }
  memset(memory, kernel->offset, first);
  memset(memory + end, kernel->offset, band->row_bytes - end);
}

void lqc_int8_fill_band(const lqc_int8_kernel *kernel, const lqc_axis *rows, const lqc_axis *columns,
                        const lqc_int8_band *band, const int8_t *input, uint32_t row, uint32_t count, uint8_t *memory) {
  const uint32_t filled = row_count(rows, count);
  for (uint32_t g = 0; g < band->groups; ++g, memory += band->group_bytes) {
    for (uint32_t i = 0; i < filled; ++i) {
      const int64_t y = lqc_axis_start(rows, row) + (int64_t)i * rows->dilation;
      fill_row(kernel, rows, columns, band, input, g, y, memory + i * band->row_bytes);
    }
  }
}
