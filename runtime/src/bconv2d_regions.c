/* The regions of a binary convolution: which output pixels see the same taps, how they are cut into tiles, and what the
 * taps outside the image add to their sums. */
#include <string.h>

#include "bconv2d.h"

enum {
  FEW_TILES = 16,    /* for each thread: then one more or less would be felt */
  EPILOGUE_WORDS = 3 /* measured on x86: a fixed-point epilogue takes as long as so many words of a filter */
};

/* Ones of the filter's taps (i, j) with i < rows and j < columns, for every rows and columns: table[rows][columns]. */
static void sum_taps(const lqc_bconv_state *s, const uint64_t *filter, uint32_t *table) {
  size_t tap_words = lqc_words(s->group_inputs), stride = (size_t)s->columns.kernel + 1;
  memset(table, 0, stride * sizeof(*table));
  for (uint32_t i = 0; i < s->rows.kernel; ++i) {
    uint32_t row = 0;
    table += stride;
    table[0] = 0;
    for (uint32_t j = 0; j < s->columns.kernel; ++j, filter += tap_words) {
      row += lqc_count_bits(filter, tap_words);
      table[j + 1] = row + table[(ptrdiff_t)j + 1 - (ptrdiff_t)stride];
    }
  }
}

/* Disagreements of the taps outside, which hold +1 (bits 0) or -1 (bits 1) in every true channel; at most K. Any region
 * is a difference of four sums over corners, so each filter is read once, however many regions there are. */
static uint32_t outside_sum(const lqc_bconv_state *s, const lqc_region *region, int8_t pad_value,
                            const uint32_t *table) {
  size_t stride = (size_t)s->columns.kernel + 1;
  lqc_taps rows = region->row_taps, columns = region->column_taps;
  const uint32_t *top = table + rows.first * stride, *bottom = table + rows.end * stride;
  uint32_t inside_ones = bottom[columns.end] - bottom[columns.first] - top[columns.end] + top[columns.first];
  uint32_t ones = table[s->rows.kernel * stride + s->columns.kernel] - inside_ones;
  uint32_t taps = s->rows.kernel * s->columns.kernel - (rows.end - rows.first) * (columns.end - columns.first);
  return pad_value > 0 ? ones : taps * s->group_inputs - ones;
}

static void fill_initials(const lqc_bconv_state *s, int8_t pad_value, const uint64_t *filters, lqc_region *regions,
                          uint32_t *table) {
  for (uint32_t c = 0; c < s->groups * s->group_outputs; ++c) {
    size_t place = c / s->group_outputs * s->sums_stride + c % s->group_outputs;
    sum_taps(s, filters + (size_t)c * s->filter_words, table);
    for (size_t r = 0; r < s->region_count; ++r) {
      void *initial = regions[r].initial;
      if (initial == NULL) {
        continue;
      }
      uint32_t sum = outside_sum(s, &regions[r], pad_value, table);
      if (s->kernel->wide) {
        ((uint32_t *)initial)[place] = sum;
      } else {
        ((uint16_t *)initial)[place] = (uint16_t)sum;
      }
    }
  }
}

/* As few tiles as there must be, of nearly the same number of pixels: 25 pixels are 13 and 12, not 16 and 9, which
 * tiles in registers share out better. A few tiles are as many for each thread. */
static uint32_t tile_pixels(uint32_t pixels, uint32_t max_pixels, uint32_t threads) {
  uint32_t tiles = (pixels - 1) / max_pixels + 1;
  if (tiles > 1 && tiles < FEW_TILES * threads) {
    tiles = (tiles - 1) / threads * threads + threads;
  }
  tiles = tiles < pixels ? tiles : pixels;
  return (pixels - 1) / tiles + 1;
}

/* What a tile takes: its taps' words, and some as many more for its epilogue, for every pixel and filter. */
static uint32_t tile_cost(const lqc_bconv_state *s, uint32_t pixels, uint32_t inside) {
  const uint64_t words = lqc_words(s->group_inputs),
                 largest = s->kernel->max_pixels * (s->filter_words + EPILOGUE_WORDS);
  const uint64_t cost = LQC_TILE_COST * pixels * (inside * words + EPILOGUE_WORDS) / largest;
  return cost > 0 ? (uint32_t)cost : 1;
}

static lqc_status prepare_region(lqc_prepare *prepare, const lqc_op *op, const lqc_bconv_state *s, lqc_span rows,
                                 lqc_span columns, lqc_region *region) {
  const lqc_run_geometry geometry = {s->columns.kernel,    s->rows.dilation,
                                     s->columns.dilation,  lqc_words(s->group_inputs),
                                     s->input_pixel_words, s->input_pixel_words * s->columns.size};
  uint64_t pixels = (uint64_t)(rows.end - rows.first) * (columns.end - columns.first);
  if (pixels > INT32_MAX) {
    return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_UNSUPPORTED, "an image of %llu pixels is too large",
                          (unsigned long long)pixels);
  }
  uint32_t inside = (rows.taps.end - rows.taps.first) * (columns.taps.end - columns.taps.first);
  uint32_t outside = s->rows.kernel * s->columns.kernel - inside;
  *region = (lqc_region){.first_row = rows.first,
                         .first_column = columns.first,
                         .row_taps = rows.taps,
                         .column_taps = columns.taps,
                         .columns = columns.end - columns.first,
                         .pixels = (uint32_t)pixels,
                         .tile_pixels = tile_pixels((uint32_t)pixels, s->kernel->max_pixels, prepare->threads),
                         .first_tile = s->tile_count,
                         .first_cost = s->cost,
                         .run_count = lqc_region_runs(NULL, &geometry, rows.taps, columns.taps),
                         .missing = op->pad_value == 0 ? outside * s->group_inputs : 0};
  region->tile_cost = tile_cost(s, region->tile_pixels, inside);
  void *memory = NULL;
  LQC_TRY(lqc_bump_take(prepare->bump, region->run_count, sizeof(lqc_run), &memory, prepare->error));
  if (memory) {
    lqc_region_runs(memory, &geometry, rows.taps, columns.taps);
  }
  region->runs = memory;
  if (s->kernel->arrange) {
    LQC_TRY(lqc_bump_take(prepare->bump, 1, s->kernel->arranged_bytes(region->run_count), &memory, prepare->error));
    if (memory) {
      s->kernel->arrange(memory, region->runs, region->run_count);
    }
    region->arranged = memory;
  }
  if (op->pad_value != 0 && outside > 0) {
    LQC_TRY(lqc_bump_take(prepare->bump, s->groups * s->sums_stride, s->sum_bytes, &memory, prepare->error));
    if (memory) {
      memset(memory, 0, s->groups * s->sums_stride * s->sum_bytes);
    }
    region->initial = memory;
  }
  return LQC_OK;
}

/* Spans of an axis, and the taps of one output position of each, summed. */
static void measure_axis(const lqc_axis *axis, size_t *spans, uint64_t *taps) {
  for (lqc_span span = {0, 0, {0, 0}}; span.end < axis->out; ++*spans) {
    span = lqc_axis_span(axis, span.end);
    *taps += span.taps.end - span.taps.first;
  }
}

lqc_status lqc_prepare_bconv_regions(lqc_prepare *prepare, const lqc_op *op, const uint64_t *filters,
                                     lqc_bconv_state *s) {
  size_t row_spans = 0, column_spans = 0;
  uint64_t row_taps = 0, column_taps = 0;
  void *memory = NULL;
  measure_axis(&s->rows, &row_spans, &row_taps);
  measure_axis(&s->columns, &column_spans, &column_taps);
  /* K <= 2^24 bounds the taps and so the spans: no overflow. */
  LQC_TRY(lqc_spend_work(prepare, op, (uint64_t)row_spans * column_spans * 8 + row_taps * column_taps));
  LQC_TRY(lqc_bump_take(prepare->bump, row_spans * column_spans, sizeof(lqc_region), &memory, prepare->error));
  lqc_region *regions = memory;
  for (lqc_span rows = {0, 0, {0, 0}}; rows.end < s->rows.out;) {
    rows = lqc_axis_span(&s->rows, rows.end);
    for (lqc_span columns = {0, 0, {0, 0}}; columns.end < s->columns.out;) {
      lqc_region region = {0};
      columns = lqc_axis_span(&s->columns, columns.end);
      LQC_TRY(prepare_region(prepare, op, s, rows, columns, &region));
      if (regions) {
        regions[s->region_count] = region;
      }
      ++s->region_count;
      const uint32_t tiles = (region.pixels - 1) / region.tile_pixels + 1;
      s->tile_count += tiles;
      s->cost += (size_t)tiles * region.tile_cost;
    }
  }
  s->regions = regions;
  if (op->pad_value != 0) {
    size_t sums = ((size_t)s->rows.kernel + 1) * ((size_t)s->columns.kernel + 1);
    LQC_TRY(lqc_bump_take(prepare->bump, sums, sizeof(uint32_t), &memory, prepare->error));
    if (memory) {
      fill_initials(s, op->pad_value, filters, regions, memory);
    }
  }
  return LQC_OK;
}
