/* Taps, spans and runs against brute force. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "model_builder.h"
#include "window.h"

/* Whether tap k of an output position is inside the image. */
static int inside(const lqc_axis *a, uint32_t position, uint32_t k) {
  int64_t at = (int64_t)position * a->stride - a->pad + (int64_t)k * a->dilation;
  return at >= 0 && at < a->size;
}

static void check_axis(const lqc_axis *a) {
  for (uint32_t position = 0; position < a->out; ++position) {
    lqc_taps taps = lqc_axis_taps(a, position);
    for (uint32_t k = 0; k < a->kernel; ++k) {
      EXPECT(inside(a, position, k) == (k >= taps.first && k < taps.end),
             "size %u kernel %u stride %u dilation %u pad %u position %u tap %u: taps %u to %u", a->size, a->kernel,
             a->stride, a->dilation, a->pad, position, k, taps.first, taps.end);
    }
  }
  uint32_t spans = 0;
  for (lqc_span span = {0, 0, {0, 0}}; span.end < a->out; ++spans) {
    uint32_t first = span.end;
    span = lqc_axis_span(a, first);
    EXPECT(span.first == first && span.end > first && span.end <= a->out, "span %u to %u", span.first, span.end);
    for (uint32_t position = span.first; position < span.end; ++position) {
      lqc_taps taps = lqc_axis_taps(a, position);
      EXPECT(taps.first == span.taps.first && taps.end == span.taps.end, "position %u", position);
    }
  }
  EXPECT(spans <= 2 * a->kernel + 1, "%u spans for a kernel of %u", spans, a->kernel);
}

/* Every word of every tap is met once, by the filter word that belongs to it. */
static void check_runs(const lqc_axis *rows, const lqc_axis *columns, uint32_t tap_words, uint32_t pixel_words) {
  const lqc_run_geometry geometry = {columns->kernel, rows->dilation, columns->dilation,
                                     tap_words,       pixel_words,    (size_t)pixel_words * columns->size};
  uint32_t filter_words = rows->kernel * columns->kernel * tap_words;
  lqc_run *runs = calloc(filter_words, sizeof(lqc_run));
  ptrdiff_t *met = malloc(filter_words * sizeof(ptrdiff_t));
  for (uint32_t y = 0; y < rows->out; ++y) {
    for (uint32_t x = 0; x < columns->out; ++x) {
      lqc_taps row_taps = lqc_axis_taps(rows, y), column_taps = lqc_axis_taps(columns, x);
      uint32_t count = lqc_region_runs(runs, &geometry, row_taps, column_taps);
      EXPECT(count == lqc_region_runs(NULL, &geometry, row_taps, column_taps), "count %u", count);
      memset(met, 0xff, filter_words * sizeof(ptrdiff_t));
      int64_t first_y = lqc_axis_start(rows, y) + (int64_t)row_taps.first * rows->dilation;
      int64_t first_x = lqc_axis_start(columns, x) + (int64_t)column_taps.first * columns->dilation;
      ptrdiff_t place = (ptrdiff_t)((first_y * columns->size + first_x) * (int64_t)pixel_words);
      EXPECT(count == 0 || (place >= 0 && first_y < rows->size && first_x < columns->size), "first tap outside");
      for (uint32_t r = 0; r < count; ++r) {
        EXPECT(runs[r].input_offset >= 0, "run %u starts at %td", r, runs[r].input_offset);
        for (uint32_t i = 0; i < runs[r].words; ++i) {
          EXPECT(met[runs[r].weight_word + i] == -1, "filter word %u met twice", runs[r].weight_word + i);
          met[runs[r].weight_word + i] = place + runs[r].input_offset + (ptrdiff_t)i;
        }
      }
      for (uint32_t word = 0; word < filter_words; ++word) {
        uint32_t i = word / tap_words / columns->kernel, j = word / tap_words % columns->kernel;
        ptrdiff_t expected = -1;
        if (inside(rows, y, i) && inside(columns, x, j)) {
          int64_t at_y = lqc_axis_start(rows, y) + (int64_t)i * rows->dilation;
          int64_t at_x = lqc_axis_start(columns, x) + (int64_t)j * columns->dilation;
          expected = (ptrdiff_t)((at_y * columns->size + at_x) * (int64_t)pixel_words + word % tap_words);
        }
        EXPECT(met[word] == expected, "pixel (%u, %u) filter word %u: %td instead of %td", y, x, word, met[word],
               expected);
      }
      if (columns->dilation == 1 && tap_words == pixel_words) {
        EXPECT(count <= row_taps.end - row_taps.first, "%u runs for %u rows", count, row_taps.end - row_taps.first);
      }
    }
  }
  free(met);
  free(runs);
}

int main(void) {
  uint64_t seed = 1;
  for (int i = 0; i < 20000; ++i) {
    lqc_axis a = {1 + random_below(&seed, 9), 1 + random_below(&seed, 7), 1 + random_below(&seed, 4),
                  1 + random_below(&seed, 5), random_below(&seed, 9),     1 + random_below(&seed, 12)};
    check_axis(&a);
  }
  const lqc_axis extreme = {1u << 24, 65535, 65535, 65535, 65535, 1u << 24};
  lqc_axis_span(&extreme, 0);
  for (int i = 0; i < 1000; ++i) {
    lqc_axis rows = {1 + random_below(&seed, 6), 1 + random_below(&seed, 4), 1 + random_below(&seed, 3),
                     1 + random_below(&seed, 2), random_below(&seed, 4),     1 + random_below(&seed, 6)};
    lqc_axis columns = rows;
    columns.size = 1 + random_below(&seed, 6);
    columns.kernel = 1 + random_below(&seed, 4);
    columns.dilation = 1 + random_below(&seed, 2);
    uint32_t tap_words = 1 + random_below(&seed, 2);
    check_runs(&rows, &columns, tap_words, tap_words + random_below(&seed, 2));
  }
  /* A kernel as large as the image is one run. */
  const lqc_run_geometry whole = {7, 1, 1, 2, 2, 14};
  lqc_run run;
  EXPECT(lqc_region_runs(&run, &whole, (lqc_taps){0, 7}, (lqc_taps){0, 7}) == 1 && run.words == 98, "%u", run.words);
  return 0;
}
