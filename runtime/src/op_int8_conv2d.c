/* Int8Conv2D: sums in int32, then fixed point. Depthwise, and where patches lie in a band, one output row is
 * one item of work; else one tile of a few pixels, whose patches are gathered first.
 *
 * Sums are made of LQC_INT8_LANES output channels at once. Neighbouring groups that together have no more are merged
 * into one: lanes that would be left out multiply by 0 instead, and there is less to go over. */
#include "checked.h"
#include "fixed_point.h"
#include "int8_band.h"

#define FAIL(prepare, op, status, format, ...) \
  lqc_fail((prepare)->error, status, "op '%s' (Int8Conv2D): " format, (op)->name, __VA_ARGS__)

/* Output pixels of a depthwise convolution whose sums are made before fixed point: its constants and its program are
 * then read once for all of them. */
enum { DEPTHWISE_RUN = 16 };

typedef struct conv_state {
  lqc_axis rows, columns;
  uint32_t in_channels, out_channels;
  uint32_t merged, groups; /* `groups` of as many of the op's */
  uint32_t depth;          /* input channels of each */
  const lqc_int8_kernel *kernel;
  size_t size, patch_bytes; /* of the patch of a group, gathered */
  bool has_band;            /* and patches are not gathered */
  lqc_int8_band band;
  const uint8_t *packed; /* group g at packed + g * packed_bytes */
  size_t packed_bytes;
  bool any_weights;                /* one is -128 */
  const int8_t *depthwise_weights; /* [tap][out_channels] */
  const int32_t *depthwise_bias;
  size_t sums_stride;
  const lqc_kernels *kernels;
  lqc_fixed fixed;
} conv_state;

/* ---- Running ----------------------------------------------------------------------------------------------------- */

typedef struct conv_work {
  const lqc_node *node;
  const lqc_runner *runner;
} conv_work;

/* The first tap inside, of group 0; at least one is. */
static const int8_t *first_tap(const conv_state *s, const int8_t *input, uint32_t row, uint32_t column, lqc_taps rows,
                               lqc_taps columns) {
  size_t y = (size_t)(lqc_axis_start(&s->rows, row) + (int64_t)rows.first * s->rows.dilation);
  size_t x = (size_t)(lqc_axis_start(&s->columns, column) + (int64_t)columns.first * s->columns.dilation);
  return input + (y * s->columns.size + x) * s->in_channels;
}

static size_t tap_row_stride(const conv_state *s) {
  return (size_t)s->rows.dilation * s->columns.size * s->in_channels;
}

static size_t tap_column_stride(const conv_state *s) {
  return (size_t)s->columns.dilation * s->in_channels;
}

static void gather_patch(const conv_state *s, const int8_t *input, uint32_t group, uint32_t row, uint32_t column,
                         lqc_taps rows, lqc_taps columns, void *patch) {
  uint32_t row_count = rows.end - rows.first, column_count = columns.end - columns.first;
  if (row_count * column_count < s->rows.kernel * s->columns.kernel) {
    memset(patch, s->kernel->offset, s->patch_bytes);
  }
  if (row_count == 0 || column_count == 0) {
    return;
  }
  lqc_int8_gather taps = {.input = first_tap(s, input, row, column, rows, columns) + (size_t)group * s->depth,
                          .row_stride = tap_row_stride(s),
                          .column_stride = tap_column_stride(s),
                          .rows = row_count,
                          .columns = column_count,
                          .run = s->depth,
                          .place = ((size_t)rows.first * s->columns.kernel + columns.first) * s->depth,
                          .place_row = (size_t)s->columns.kernel * s->depth,
                          .place_column = s->depth};
  if (s->groups == 1 && s->columns.dilation == 1) { /* neighbours in memory, in the input and in the patch */
    taps.run *= column_count;
    taps.columns = 1;
  }
  s->kernel->gather(patch, &taps);
}

/* Sums of `pixels` output pixels from pixel `first` on. */
static void sum_tile(const conv_state *s, const int8_t *input, size_t first, uint32_t pixels, int32_t *sums,
                     uint8_t *patches) {
  for (uint32_t g = 0; g < s->groups; ++g) {
    uint32_t row = (uint32_t)(first / s->columns.out), column = (uint32_t)(first % s->columns.out);
    lqc_taps rows = lqc_axis_taps(&s->rows, row);
    for (uint32_t p = 0; p < pixels; ++p) {
      gather_patch(s, input, g, row, column, rows, lqc_axis_taps(&s->columns, column), patches + p * s->patch_bytes);
      if (++column == s->columns.out && p + 1 < pixels) {
        column = 0;
        rows = lqc_axis_taps(&s->rows, ++row);
      }
    }
    uint32_t outputs = s->out_channels / s->groups;
    const lqc_int8_tile tile = {.patches = patches,
                                .patch_bytes = s->patch_bytes,
                                .runs = 1,
                                .pixels = pixels,
                                .out_channels = outputs,
                                .weights = s->packed + g * s->packed_bytes,
                                .size = s->size,
                                .any_weights = s->any_weights,
                                .sums = sums + (size_t)g * outputs,
                                .sums_stride = s->sums_stride};
    s->kernel->accumulate(&tile);
  }
}

/* Pixels whose sums are made before they go through fixed point, which loads what channels have once for them. */
enum { BAND_PIXELS = 16 };

static uint32_t band_pixels(const conv_state *s) {
  return s->columns.out < BAND_PIXELS ? s->columns.out : BAND_PIXELS;
}

static size_t tile_count(const conv_state *s) {
  return ((size_t)s->rows.out * s->columns.out + LQC_INT8_TILE_PIXELS - 1) / LQC_INT8_TILE_PIXELS;
}

static void conv_tiles(const void *context, uint32_t thread, size_t begin, size_t end) {
  const conv_work *work = context;
  const conv_state *s = work->node->state;
  uint8_t *scratch = work->runner->thread_scratch + thread * work->runner->thread_scratch_bytes;
  uint8_t *patches = scratch + LQC_INT8_TILE_PIXELS * s->sums_stride * sizeof(int32_t);
  void *lanes = patches + LQC_INT8_TILE_PIXELS * s->patch_bytes + LQC_INT8_OVERRUN, *sums = scratch;
  size_t pixels = (size_t)s->rows.out * s->columns.out;
  for (size_t first = begin * LQC_INT8_TILE_PIXELS; first < pixels && begin < end;
       first += LQC_INT8_TILE_PIXELS, ++begin) {
    uint32_t count = pixels - first < LQC_INT8_TILE_PIXELS ? (uint32_t)(pixels - first) : LQC_INT8_TILE_PIXELS;
    sum_tile(s, work->node->input, first, count, sums, patches);
    lqc_lane_pixels of_tile = {.count = count,
                               .first = first,
                               .source = LQC_LANES_INT32,
                               .values = sums,
                               .value_bytes = s->sums_stride * sizeof(int32_t)};
    lqc_run_fixed_point(&s->fixed, s->kernels, work->node, &of_tile, lanes);
  }
}

/* Sums of `pixels` output pixels from column `first` on, whose taps are in the band. */
static void sum_band(const conv_state *s, const uint8_t *band, uint32_t first, uint32_t pixels, int32_t *sums) {
  const uint32_t outputs = s->out_channels / s->groups;
  for (uint32_t g = 0; g < s->groups; ++g) {
    lqc_int8_tile tile = {.patches = band + g * s->band.group_bytes + first * s->band.pixel_bytes,
                          .patch_bytes = s->band.pixel_bytes,
                          .run_bytes = s->band.row_bytes,
                          .runs = s->rows.kernel,
                          .out_channels = outputs,
                          .weights = s->packed + g * s->packed_bytes,
                          .size = s->size / s->rows.kernel,
                          .any_weights = s->any_weights,
                          .sums = sums + (size_t)g * outputs,
                          .sums_stride = s->sums_stride};
    for (uint32_t p = 0; p < pixels; p += tile.pixels) {
      tile.pixels = pixels - p < LQC_INT8_TILE_PIXELS ? pixels - p : LQC_INT8_TILE_PIXELS;
      s->kernel->accumulate(&tile);
      tile.patches = (const uint8_t *)tile.patches + tile.pixels * s->band.pixel_bytes;
      tile.sums += tile.pixels * s->sums_stride;
    }
  }
}

static void conv_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const conv_work *work = context;
  const conv_state *s = work->node->state;
  uint8_t *scratch = work->runner->thread_scratch + thread * work->runner->thread_scratch_bytes;
  uint8_t *band = scratch + band_pixels(s) * s->sums_stride * sizeof(int32_t);
  void *lanes = band + s->band.bytes, *sums = scratch;
  for (uint32_t row = (uint32_t)begin; row < end; ++row) {
    const uint32_t of_band = (row - (uint32_t)begin) % s->band.out_rows;
    if (of_band == 0) {
      const uint32_t rows = (uint32_t)end - row < s->band.out_rows ? (uint32_t)end - row : s->band.out_rows;
      lqc_int8_fill_band(s->kernel, &s->rows, &s->columns, &s->band, work->node->input, row, rows, band);
    }
    for (uint32_t first = 0, count; first < s->columns.out; first += count) {
      count = s->columns.out - first < BAND_PIXELS ? s->columns.out - first : BAND_PIXELS;
      sum_band(s, band + of_band * s->band.out_row_bytes, first, count, sums);
      lqc_lane_pixels pixels = {.count = count,
                                .first = (size_t)row * s->columns.out + first,
                                .source = LQC_LANES_INT32,
                                .values = sums,
                                .value_bytes = s->sums_stride * sizeof(int32_t)};
      lqc_run_fixed_point(&s->fixed, s->kernels, work->node, &pixels, lanes);
    }
  }
}

static void depthwise_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const conv_work *work = context;
  const conv_state *s = work->node->state;
  void *scratch = work->runner->thread_scratch + thread * work->runner->thread_scratch_bytes;
  lqc_depthwise_pixel pixel = {.row_stride = tap_row_stride(s),
                               .column_stride = tap_column_stride(s),
                               .row_weights = (size_t)s->columns.kernel * s->out_channels,
                               .column_weights = s->out_channels,
                               .channels = s->in_channels,
                               .out_channels = s->out_channels,
                               .bias = s->depthwise_bias};
  lqc_lane_pixels of_run = {
      .source = LQC_LANES_INT32, .values = scratch, .value_bytes = s->sums_stride * sizeof(int32_t)};
  int32_t *sums = scratch;
  for (uint32_t row = (uint32_t)begin; row < end; ++row) {
    lqc_taps rows = lqc_axis_taps(&s->rows, row);
    for (uint32_t column = 0; column < s->columns.out; ++column) {
      lqc_taps columns = lqc_axis_taps(&s->columns, column);
      uint32_t of_column = column % DEPTHWISE_RUN;
      pixel.rows = rows.end - rows.first;
      pixel.columns = columns.end - columns.first;
      if (pixel.rows > 0 && pixel.columns > 0) {
        pixel.input = first_tap(s, work->node->input, row, column, rows, columns);
        pixel.weights = s->depthwise_weights + rows.first * pixel.row_weights + columns.first * pixel.column_weights;
      }
      pixel.sums = sums + of_column * s->sums_stride;
      s->kernels->int8_depthwise(&pixel);
      if (of_column + 1 == DEPTHWISE_RUN || column + 1 == s->columns.out) {
        of_run.count = of_column + 1;
        of_run.first = (size_t)row * s->columns.out + column - of_column;
        lqc_run_fixed_point(&s->fixed, s->kernels, work->node, &of_run, sums + DEPTHWISE_RUN * s->sums_stride);
      }
    }
  }
}

static void run_conv(const lqc_node *node, const lqc_runner *runner) {
  const conv_state *s = node->state;
  conv_work work = {node, runner};
  if (s->has_band) {
    lqc_pool_run(runner->pool, conv_rows, &work, s->rows.out);
  } else {
    lqc_pool_run(runner->pool, conv_tiles, &work, tile_count(s));
  }
}

static void run_depthwise(const lqc_node *node, const lqc_runner *runner) {
  conv_work work = {node, runner};
  lqc_pool_run(runner->pool, depthwise_rows, &work, ((const conv_state *)node->state)->rows.out);
}

/* ---- Preparing --------------------------------------------------------------------------------------------------- */

typedef struct filters {
  const int8_t *weights; /* [channels][size] */
  const int32_t *bias;   /* or NULL */
  size_t size;
  const lqc_kernels *kernels;
} filters;

/* Sums of a channel whatever the image: any tap may also be outside, where it adds 0, so every partial sum is in there
 * too. Below 2^31 weights of 2^14 at most: no overflow. With P the sum of the positive weights and N that of the
 * others' magnitudes, it is -128 P - 127 N to 127 P + 128 N; P + N and P - N are sums that a kernel makes. */
static lqc_range range_of_sum(const void *context, uint32_t channel) {
  enum { PART = 1 << 16 }; /* elements whose sums fit 32 bits */
  const filters *f = context;
  const int8_t *w = f->weights + channel * f->size;
  int64_t sum = 0, magnitudes = 0;
  for (size_t first = 0; first < f->size; first += PART) {
    size_t end = f->size - first < PART ? f->size : first + PART;
    int32_t part_magnitudes;
    sum += f->kernels->sum_and_magnitudes(w + first, end - first, &part_magnitudes);
    magnitudes += part_magnitudes;
  }
  int64_t positive = (magnitudes + sum) / 2, negative = (magnitudes - sum) / 2;
  int32_t bias = f->bias ? f->bias[channel] : 0;
  return (lqc_range){INT8_MIN * positive - INT8_MAX * negative + bias,
                     INT8_MAX * positive - INT8_MIN * negative + bias};
}

static lqc_status check_sums(const lqc_prepare *prepare, const lqc_op *op, const filters *f, uint32_t channels) {
  LQC_TRY(lqc_spend_work(prepare, op, 2 * (uint64_t)f->size * channels)); /* once here, once for the steps */
  for (uint32_t c = 0; c < channels; ++c) {
    lqc_range range = range_of_sum(f, c);
    int32_t bias = f->bias ? f->bias[c] : 0; /* which kernels may add first or last */
    if (range.low < -INT32_MAX || range.high > INT32_MAX || range.low - bias < -INT32_MAX ||
        range.high - bias > INT32_MAX) {
      return FAIL(prepare, op, LQC_ERROR_UNSUPPORTED,
                  "sums of channel %u may reach %lld to %lld; accepted are those that fit 32 bits", c,
                  (long long)range.low, (long long)range.high);
    }
  }
  return LQC_OK;
}

/* Weights from [out_channels][tap] to [tap][out_channels]. */
static lqc_status prepare_depthwise(lqc_prepare *prepare, const filters *f, conv_state *s) {
  void *weights = NULL, *bias = NULL;
  LQC_TRY(lqc_bump_take(prepare->bump, s->out_channels, f->size, &weights, prepare->error));
  LQC_TRY(lqc_bump_take(prepare->bump, s->out_channels, sizeof(int32_t), &bias, prepare->error));
  for (uint32_t c = 0; weights && c < s->out_channels; ++c) {
    for (size_t i = 0; i < f->size; ++i) {
      ((int8_t *)weights)[i * s->out_channels + c] = f->weights[c * f->size + i];
    }
    ((int32_t *)bias)[c] = f->bias ? f->bias[c] : 0;
  }
  s->depthwise_weights = weights;
  s->depthwise_bias = bias;
  size_t sums_bytes;
  if (!lqc_multiply_size(s->sums_stride, DEPTHWISE_RUN * sizeof(int32_t), &sums_bytes) ||
      sums_bytes > SIZE_MAX - s->fixed.scratch_bytes) {
    sums_bytes = SIZE_MAX - s->fixed.scratch_bytes; /* refused when it is taken */
  }
  lqc_need_thread_scratch(prepare, sums_bytes + s->fixed.scratch_bytes);
  return LQC_OK;
}

static bool has_lowest(const int8_t *weights, size_t count) {
  bool found = false;
  for (size_t i = 0; i < count; ++i) {
    found |= weights[i] == INT8_MIN;
  }
  return found;
}

static lqc_status prepare_dense(lqc_prepare *prepare, const filters *f, conv_state *s) {
  uint32_t outputs = s->out_channels / s->groups, runs = s->has_band ? s->rows.kernel : 1;
  void *memory = NULL;
  s->packed_bytes = lqc_int8_packed_bytes(s->kernel, outputs, runs, s->size / runs);
  if (s->packed_bytes == 0) {
    s->packed_bytes = SIZE_MAX; /* refused in the next line */
  }
  LQC_TRY(lqc_bump_take(prepare->bump, s->groups, s->packed_bytes, &memory, prepare->error));
  for (uint32_t g = 0; memory && g < s->groups; ++g) {
    size_t first = (size_t)g * outputs;
    const lqc_int8_filters of_group = {.weights = f->weights + first * f->size,
                                       .bias = f->bias ? f->bias + first : NULL,
                                       .out_channels = outputs,
                                       .taps = s->rows.kernel * s->columns.kernel,
                                       .depth = s->depth / s->merged,
                                       .merged = s->merged};
    lqc_int8_pack(s->kernel, (uint8_t *)memory + g * s->packed_bytes, &of_group, runs);
  }
  s->packed = memory;
  s->any_weights = memory != NULL && has_lowest(f->weights, f->size * s->out_channels);
  if (s->has_band) {
    lqc_need_thread_scratch(prepare,
                            band_pixels(s) * s->sums_stride * sizeof(int32_t) + s->band.bytes + s->fixed.scratch_bytes);
    return LQC_OK;
  }
  /* Filters are in the file, so there are bytes for as many elements: sums below do not overflow. */
  size_t elements = (s->size + s->kernel->multiple - 1) / s->kernel->multiple * s->kernel->multiple;
  if (!lqc_align_size(elements * s->kernel->element_bytes, LQC_ALIGNMENT, &s->patch_bytes)) {
    s->patch_bytes = SIZE_MAX / LQC_INT8_TILE_PIXELS / 2; /* refused when it is taken */
  }
  lqc_need_thread_scratch(prepare, LQC_INT8_TILE_PIXELS * (s->sums_stride * sizeof(int32_t) + s->patch_bytes) +
                                       LQC_INT8_OVERRUN + s->fixed.scratch_bytes);
  return LQC_OK;
}

/* The most groups, which share `groups` out evenly, whose outputs fit the lanes of one block. */
static uint32_t groups_to_merge(uint32_t groups, uint32_t outputs) {
  uint32_t merged = LQC_INT8_LANES / outputs;
  while (merged > 1 && groups % merged != 0) {
    --merged;
  }
  return merged > 1 ? merged : 1;
}

lqc_status lqc_prepare_Int8Conv2D(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                  const lqc_tensor *output, lqc_node *node) {
  lqc_constant weights, bias;
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_INT8)));
  LQC_TRY(lqc_expect_groups(prepare, op, input, output));
  uint32_t depth = input->channels / op->groups;
  const uint32_t shape[4] = {output->channels, op->window.kernel_h, op->window.kernel_w, depth};
  LQC_TRY(lqc_expect_constant(prepare, op, "weights", op->weights, LQC_MASK(LQC_INT8), shape, 4, false, &weights));
  LQC_TRY(lqc_expect_constant(prepare, op, "bias", op->bias, LQC_MASK(LQC_INT32), &output->channels, 1, false, &bias));
  bool depthwise = depth == 1 && op->groups > 1;
  const filters f = {weights.data, bias.data, weights.bytes / output->channels, prepare->kernels};
  const uint32_t merged = depthwise ? 1 : groups_to_merge(op->groups, output->channels / op->groups);
  conv_state state = {.rows = lqc_row_axis(&op->window, input, output),
                      .columns = lqc_column_axis(&op->window, input, output),
                      .in_channels = input->channels,
                      .out_channels = output->channels,
                      .merged = merged,
                      .groups = op->groups / merged,
                      .depth = merged * depth,
                      .kernel = prepare->kernels->int8_conv,
                      .size = merged * f.size,
                      .sums_stride = lqc_lane_count(output->channels),
                      .kernels = prepare->kernels};
  state.has_band =
      lqc_int8_plan_band(state.kernel, &state.rows, &state.columns, state.groups, state.depth, &state.band);
  LQC_TRY(check_sums(prepare, op, &f, output->channels));
  LQC_TRY(lqc_prepare_fixed_point(prepare, op, input, output, range_of_sum, &f, &state.fixed));
  LQC_TRY(depthwise ? prepare_depthwise(prepare, &f, &state) : prepare_dense(prepare, &f, &state));
  node->weights = state.packed;
  node->weights_bytes = state.groups * state.packed_bytes;
  node->kernel = depthwise ? "int8_depthwise" : state.kernel->name;
  node->int8_macs = lqc_count_macs(&op->window, output, depth);
  node->run = depthwise ? run_depthwise : run_conv;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
