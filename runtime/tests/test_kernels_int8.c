/* Every int8 convolution kernel, and every depthwise one, against a naive sum. Input, weights, patches, bias and sums
 * end where memory ends. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <stdbool.h>

#include "kernels_testing.h"

enum { MAX_PIXELS = LQC_INT8_TILE_PIXELS, GUARD = 0x5a5a5a5a };

typedef struct int8_case {
  uint32_t kernel_h, kernel_w, depth, out_channels, pixels, image_w, groups;
  int extreme; /* weights and pixels of -128 and 127 alone */
} int8_case;

#define CASE_FORMAT "%ux%u taps of %u of %u groups to %u channels, %u pixels%s"
#define CASE_VALUES(c) \
  (c)->kernel_h, (c)->kernel_w, (c)->depth, (c)->groups, (c)->out_channels, (c)->pixels, (c)->extreme ? ", extreme" : ""

static int8_t random_int8(uint64_t *seed, int extreme) {
  uint32_t bits = random_below(seed, 256);
  return (int8_t)(extreme ? (bits & 1 ? 127 : -128) : (int)bits - 128);
}

/* The taps of pixel p that are inside: some leave out a border. */
typedef struct inside {
  uint32_t first_row, end_row, first_column, end_column;
} inside;

static inside random_inside(const int8_case *c, uint64_t *seed) {
  inside in = {0, c->kernel_h, 0, c->kernel_w};
  if (random_below(seed, 2)) {
    in.first_row = random_below(seed, c->kernel_h);
    in.end_row = in.first_row + 1 + random_below(seed, c->kernel_h - in.first_row);
    in.first_column = random_below(seed, c->kernel_w);
    in.end_column = in.first_column + 1 + random_below(seed, c->kernel_w - in.first_column);
  }
  return in;
}

/* Gathers the taps inside from an image of which they are the last bytes; group `group` of them. */
static void gather(const lqc_int8_kernel *kernel, const int8_case *c, const int8_t *image, const inside *in,
                   uint32_t group, void *patch) {
  size_t pixel = (size_t)c->depth * c->groups;
  lqc_int8_gather taps = {
      .input = image + ((size_t)in->first_row * c->image_w + in->first_column) * pixel + (size_t)group * c->depth,
      .row_stride = c->image_w * pixel,
      .column_stride = pixel,
      .rows = in->end_row - in->first_row,
      .columns = in->end_column - in->first_column,
      .run = c->depth,
      .place = ((size_t)in->first_row * c->kernel_w + in->first_column) * c->depth,
      .place_row = (size_t)c->kernel_w * c->depth,
      .place_column = c->depth,
  };
  if (c->groups == 1) {
    taps.run *= taps.columns;
    taps.columns = 1;
  }
  kernel->gather(patch, &taps);
}

/* Returns whether they may hold -128. */
static bool fill_filters(int8_t *filters, size_t count, int extreme, uint64_t *seed) {
  const bool any = random_below(seed, 2) == 0;
  for (size_t i = 0; i < count; ++i) {
    filters[i] = random_int8(seed, extreme);
    filters[i] = !any && filters[i] == INT8_MIN ? -INT8_MAX : filters[i];
  }
  return any;
}

static void check(const lqc_int8_kernel *kernel, const int8_case *c, uint64_t *seed) {
  size_t taps = (size_t)c->kernel_h * c->kernel_w, size = taps * c->depth, pixel = (size_t)c->depth * c->groups;
  size_t image_bytes = (((size_t)c->kernel_h - 1) * c->image_w + c->kernel_w) * pixel;
  size_t patch_bytes = (size + kernel->multiple) * kernel->element_bytes / 64 * 64 + 64;
  size_t packed_bytes = lqc_int8_packed_bytes(kernel, c->out_channels, 1, size),
         stride = padded_channels(c->out_channels);
  size_t sum_count = MAX_PIXELS * stride, patches_bytes = MAX_PIXELS * patch_bytes + LQC_INT8_OVERRUN;
  guarded image_memory = guarded_new(image_bytes), packed_memory = guarded_new(packed_bytes),
          patches_memory = guarded_new(patches_bytes), sums_memory = guarded_new(sum_count * sizeof(int32_t));
  int8_t *image = guarded_last(&image_memory, image_bytes), *filters = malloc(c->out_channels * size);
  int32_t *bias = random_below(seed, 4) ? malloc(c->out_channels * sizeof(int32_t)) : NULL;
  int32_t *sums = guarded_last(&sums_memory, sum_count * sizeof(int32_t));
  uint8_t *patches = guarded_last(&patches_memory, patches_bytes);
  void *packed = guarded_last(&packed_memory, packed_bytes);
  uint32_t group = random_below(seed, c->groups);
  inside in[MAX_PIXELS];
  const bool any_weights = fill_filters(filters, c->out_channels * size, c->extreme, seed);
  for (uint32_t i = 0; bias && i < c->out_channels; ++i) {
    bias[i] = (int32_t)random_below(seed, 2000000) - 1000000;
  }
  for (size_t i = 0; i < image_bytes; ++i) {
    image[i] = random_int8(seed, c->extreme);
  }
  for (size_t i = 0; i < sum_count; ++i) {
    sums[i] = GUARD;
  }
  memset(patches, 0x77, MAX_PIXELS * patch_bytes); /* what lies behind a patch must not matter */
  const lqc_int8_filters of_taps = {filters,           bias,       c->out_channels, .taps = (uint32_t)taps,
                                    .depth = c->depth, .merged = 1};
  lqc_int8_pack(kernel, packed, &of_taps, 1);
  for (uint32_t p = 0; p < c->pixels; ++p) {
    uint8_t *patch = patches + p * patch_bytes;
    in[p] = random_inside(c, seed);
    memset(patch, kernel->offset, size * kernel->element_bytes);
    gather(kernel, c, image, &in[p], group, patch);
  }
  const lqc_int8_tile tile = {.patches = patches,
                              .patch_bytes = patch_bytes,
                              .runs = 1,
                              .pixels = c->pixels,
                              .out_channels = c->out_channels,
                              .weights = packed,
                              .size = size,
                              .any_weights = any_weights,
                              .sums = sums,
                              .sums_stride = stride};
  kernel->accumulate(&tile);
  for (uint32_t p = 0; p < MAX_PIXELS; ++p) {
    for (uint32_t channel = 0; channel < stride; ++channel) {
      int32_t expected = GUARD;
      if (p < c->pixels && channel < c->out_channels) {
        expected = bias ? bias[channel] : 0;
        for (uint32_t i = in[p].first_row; i < in[p].end_row; ++i) {
          for (uint32_t j = in[p].first_column; j < in[p].end_column; ++j) {
            for (uint32_t k = 0; k < c->depth; ++k) {
              int32_t x = image[((size_t)i * c->image_w + j) * pixel + (size_t)group * c->depth + k];
              expected += x * filters[channel * size + ((size_t)i * c->kernel_w + j) * c->depth + k];
            }
          }
        }
      }
      if (sums[p * stride + channel] != expected) {
        FAIL("%s: " CASE_FORMAT ": pixel %u channel %u is %d, not %d", kernel->name, CASE_VALUES(c), p, channel,
             sums[p * stride + channel], expected);
      }
    }
  }
  free(filters);
  free(bias);
  guarded_free(&sums_memory);
  guarded_free(&patches_memory);
  guarded_free(&image_memory);
  guarded_free(&packed_memory);
}

/* Patches of several runs in rows, which overlap as those of neighbouring pixels do. */
static void check_runs(const lqc_int8_kernel *kernel, uint64_t *seed) {
  static const uint32_t sizes[] = {1, 3, 6, 21, 64, 130};
  const uint32_t runs = 1 + random_below(seed, 7), size = sizes[random_below(seed, 6)];
  const uint32_t step = 1 + random_below(seed, 9), pixels = 1 + random_below(seed, MAX_PIXELS);
  const uint32_t outputs = 1 + random_below(seed, 90);
  const size_t row = (size_t)(MAX_PIXELS - 1) * step + size, elements = (row + 63) / 64 * 64, all = runs * size;
  const size_t packed_bytes = lqc_int8_packed_bytes(kernel, outputs, runs, size), stride = padded_channels(outputs);
  int8_t *image = malloc(runs * row), *filters = malloc(outputs * all);
  int32_t *bias = malloc(outputs * sizeof(int32_t)), *sums = malloc(MAX_PIXELS * stride * sizeof(int32_t));
  const size_t band_bytes = runs * elements * kernel->element_bytes + LQC_INT8_OVERRUN;
  guarded packed_memory = guarded_new(packed_bytes), band_memory = guarded_new(band_bytes);
  uint8_t *band = guarded_last(&band_memory, band_bytes);
  void *packed = guarded_last(&packed_memory, packed_bytes);
  const bool any_weights = fill_filters(filters, outputs * all, 0, seed);
  for (uint32_t i = 0; i < outputs; ++i) {
    bias[i] = (int32_t)random_below(seed, 2000000) - 1000000;
  }
  for (size_t i = 0; i < runs * row; ++i) {
    image[i] = random_int8(seed, 0);
  }
  memset(band, 0x77, band_bytes);
  for (uint32_t r = 0; r < runs; ++r) {
    const lqc_int8_gather taps = {.input = image + r * row, .rows = 1, .columns = 1, .run = row};
    kernel->gather(band + r * elements * kernel->element_bytes, &taps);
  }
  const lqc_int8_filters of_runs = {filters, bias, outputs, .taps = runs, .depth = size, .merged = 1};
  lqc_int8_pack(kernel, packed, &of_runs, runs);
  const lqc_int8_tile tile = {.patches = band,
                              .patch_bytes = (size_t)step * kernel->element_bytes,
                              .run_bytes = elements * kernel->element_bytes,
                              .runs = runs,
                              .pixels = pixels,
                              .out_channels = outputs,
                              .weights = packed,
                              .size = size,
                              .any_weights = any_weights,
                              .sums = sums,
                              .sums_stride = stride};
  kernel->accumulate(&tile);
  for (uint32_t p = 0; p < pixels; ++p) {
    for (uint32_t channel = 0; channel < outputs; ++channel) {
      int32_t expected = bias[channel];
      for (uint32_t i = 0; i < all; ++i) {
        expected += image[i / size * row + (size_t)p * step + i % size] * filters[channel * all + i];
      }
      if (sums[p * stride + channel] != expected) {
        FAIL("%s: %u runs of %u, step %u, pixel %u, channel %u: %d, not %d", kernel->name, runs, size, step, p, channel,
             sums[p * stride + channel], expected);
      }
    }
  }
  free(image);
  free(filters);
  free(bias);
  free(sums);
  guarded_free(&band_memory);
  guarded_free(&packed_memory);
}

static void check_random(const lqc_int8_kernel *kernel, uint64_t *seed) {
  static const uint32_t kernels[] = {1, 1, 2, 3, 5, 7}, depths[] = {1, 2, 3, 4, 5, 8, 16, 31, 64, 65, 130};
  int8_case c = {.kernel_h = kernels[random_below(seed, 6)],
                 .kernel_w = kernels[random_below(seed, 6)],
                 .depth = depths[random_below(seed, 11)],
                 .out_channels = 1 + random_below(seed, random_below(seed, 4) ? 40 : 200),
                 .pixels = 1 + random_below(seed, MAX_PIXELS),
                 .groups = 1 + (random_below(seed, 3) == 0),
                 .extreme = random_below(seed, 3) == 0};
  c.image_w = c.kernel_w + random_below(seed, 3);
  check(kernel, &c, seed);
}

/* ---- Depthwise --------------------------------------------------------------------------------------------------- */

typedef struct depthwise_case {
  uint32_t rows, columns, image_w, channels, each; /* outputs of a channel */
  int extreme;
} depthwise_case;

static void *last_random_int8(guarded *memory, size_t count, int extreme, uint64_t *seed) {
  *memory = guarded_new(count + 1);
  int8_t *values = guarded_last(memory, count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = random_int8(seed, extreme);
  }
  return values;
}

static void check_depthwise(const lqc_kernels *kernels, const depthwise_case *c, uint64_t *seed) {
  const size_t outputs = (size_t)c->channels * c->each, sum_bytes = outputs * sizeof(int32_t);
  const size_t image_bytes = c->rows == 0 ? 0 : (((size_t)c->rows - 1) * c->image_w + c->columns) * c->channels;
  const size_t weight_bytes = (size_t)c->rows * c->columns * outputs;
  guarded image_memory, weight_memory, bias_memory = guarded_new(sum_bytes), sum_memory = guarded_new(sum_bytes);
  const int8_t *image = last_random_int8(&image_memory, image_bytes, c->extreme, seed);
  const int8_t *weights = last_random_int8(&weight_memory, weight_bytes, c->extreme, seed);
  int32_t *bias = guarded_last(&bias_memory, sum_bytes), *sums = guarded_last(&sum_memory, sum_bytes);
  for (size_t i = 0; i < outputs; ++i) {
    bias[i] = (int32_t)random_below(seed, 2000000) - 1000000;
    sums[i] = GUARD;
  }
  const lqc_depthwise_pixel pixel = {.input = image,
                                     .row_stride = (size_t)c->image_w * c->channels,
                                     .column_stride = c->channels,
                                     .rows = c->rows,
                                     .columns = c->columns,
                                     .weights = weights,
                                     .row_weights = c->columns * outputs,
                                     .column_weights = outputs,
                                     .channels = c->channels,
                                     .out_channels = (uint32_t)outputs,
                                     .bias = bias,
                                     .sums = sums};
  kernels->int8_depthwise(&pixel);
  for (uint32_t o = 0; o < outputs; ++o) {
    int32_t expected = bias[o];
    for (uint32_t i = 0; i < c->rows; ++i) {
      for (uint32_t j = 0; j < c->columns; ++j) {
        expected += image[((size_t)i * c->image_w + j) * c->channels + o / c->each] *
                    weights[((size_t)i * c->columns + j) * outputs + o];
      }
    }
    if (sums[o] != expected) {
      FAIL("depthwise, %s: %u x %u taps of %u channels, %u outputs each%s: output %u is %d, not %d",
           lqc_isa_name(kernels->isa), c->rows, c->columns, c->channels, c->each, c->extreme ? ", extreme" : "", o,
           sums[o], expected);
    }
  }
  guarded_free(&image_memory);
  guarded_free(&weight_memory);
  guarded_free(&bias_memory);
  guarded_free(&sum_memory);
}

static void check_depthwise_kernels(uint64_t *seed) {
  lqc_kernels tables[LQC_ISA_COUNT];
  size_t count = tables_to_test(tables);
  for (size_t t = 0; t < count; ++t) {
    for (int i = 0; i < 400; ++i) {
      depthwise_case c = {.rows = random_below(seed, 6),
                          .columns = random_below(seed, 6),
                          .channels = 1 + random_below(seed, random_below(seed, 4) ? 40 : 200),
                          .each = random_below(seed, 4) ? 1 : 1 + random_below(seed, 3),
                          .extreme = random_below(seed, 3) == 0};
      c.rows = c.columns == 0 ? 0 : c.rows; /* all taps outside */
      c.image_w = c.columns + random_below(seed, 3);
      check_depthwise(&tables[t], &c, seed);
    }
  }
}

static void check_sums_of_filters(uint64_t *seed) {
  lqc_kernels tables[LQC_ISA_COUNT];
  size_t count = tables_to_test(tables);
  for (size_t t = 0; t < count; ++t) {
    for (int i = 0; i < 100; ++i) {
      guarded memory;
      const size_t n = random_below(seed, 300);
      const int8_t *values = last_random_int8(&memory, n, random_below(seed, 3) == 0, seed);
      int32_t sum = 0, magnitudes = 0, got_magnitudes = -1;
      for (size_t e = 0; e < n; ++e) {
        sum += values[e];
        magnitudes += abs(values[e]);
      }
      int32_t got = tables[t].sum_and_magnitudes(values, n, &got_magnitudes);
      if (got != sum || got_magnitudes != magnitudes) {
        FAIL("%s: %zu values have sum %d and magnitudes %d, not %d and %d", lqc_isa_name(tables[t].isa), n, got,
             got_magnitudes, sum, magnitudes);
      }
      guarded_free(&memory);
    }
  }
}

int main(void) {
  uint64_t seed = 11;
  check_sums_of_filters(&seed);
  check_depthwise_kernels(&seed);
  const lqc_int8_kernel *kernel;
  for (size_t n = 0; (kernel = lqc_int8_kernel_at(n)) != NULL; ++n) {
    for (int i = 0; i < 300; ++i) {
      check_random(kernel, &seed);
    }
    for (int i = 0; kernel->takes_runs && i < 200; ++i) {
      check_runs(kernel, &seed);
    }
    /* A classifier of many elements, all of one sign: the largest sums. */
    const int8_case dense = {1, 1, 2048, 67, 1, 1, 1, 1};
    check(kernel, &dense, &seed);
  }
  return 0;
}
