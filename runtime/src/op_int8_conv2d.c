/* Int8Conv2D: direct convolution in int32, then fixed point. One output row is one item of work; its pixels that see
 * the same taps are taken a few at a time. */
#include "checked.h"
#include "fixed_point.h"

#define FAIL(prepare, op, status, format, ...) \
  lqc_fail((prepare)->error, status, "op '%s' (Int8Conv2D): " format, (op)->name, __VA_ARGS__)

typedef struct conv_state {
  lqc_axis rows, columns;
  uint32_t in_channels, out_channels;
  uint32_t groups; /* 1 where depthwise: then all channels are one group to the kernel */
  uint32_t depth;  /* input channels of a group */
  bool depthwise, joins_columns;
  const int8_t *weights; /* packed, see lqc_int8_tile */
  size_t group_weights, block_stride, column_weights;
  const int32_t *bias;
  size_t sums_stride;
  const lqc_kernels *kernels;
  lqc_fixed fixed;
} conv_state;

/* ---- Running ----------------------------------------------------------------------------------------------------- */

typedef struct conv_work {
  const lqc_node *node;
  const lqc_runner *runner;
} conv_work;

/* The tile of group 0 at output pixel (row, column). */
static lqc_int8_tile tile_at(const conv_state *s, const int8_t *input, uint32_t row, uint32_t column, lqc_taps rows,
                             lqc_taps columns) {
  lqc_int8_tile tile = {.input = input,
                        .pixel_stride = (size_t)s->columns.stride * s->in_channels,
                        .row_stride = (size_t)s->rows.dilation * s->columns.size * s->in_channels,
                        .column_stride = (size_t)s->columns.dilation * s->in_channels,
                        .rows = rows.end - rows.first,
                        .columns = columns.end - columns.first,
                        .depth = s->depth,
                        .weights = s->weights,
                        .block_stride = s->block_stride,
                        .row_weights = s->columns.kernel * s->column_weights,
                        .column_weights = s->column_weights,
                        .out_channels = s->out_channels / s->groups,
                        .sums_stride = s->sums_stride};
  if (tile.rows == 0 || tile.columns == 0) { /* no tap is inside, so no place in the input either */
    tile.rows = 0;
    return tile;
  }
  size_t y = (size_t)(lqc_axis_start(&s->rows, row) + (int64_t)rows.first * s->rows.dilation);
  size_t x = (size_t)(lqc_axis_start(&s->columns, column) + (int64_t)columns.first * s->columns.dilation);
  tile.input += (y * s->columns.size + x) * s->in_channels;
  tile.weights += rows.first * tile.row_weights + columns.first * tile.column_weights;
  if (s->joins_columns) { /* neighbours in memory, in the input and in the weights */
    tile.depth *= tile.columns;
    tile.columns = 1;
  }
  return tile;
}

static void run_tile(const conv_state *s, lqc_int8_tile *tile, int32_t *sums) {
  uint32_t outputs = s->out_channels / s->groups;
  for (uint32_t g = 0; g < s->groups; ++g) {
    tile->bias = s->bias + (size_t)g * outputs;
    tile->sums = sums + (size_t)g * outputs;
    if (s->depthwise) {
      s->kernels->int8_depthwise(tile);
    } else {
      s->kernels->int8_conv(tile);
    }
    tile->input += s->depth;
    tile->weights += s->group_weights;
  }
}

static void conv_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const conv_work *work = context;
  const conv_state *s = work->node->state;
  void *scratch = work->runner->thread_scratch + thread * work->runner->thread_scratch_bytes;
  int32_t *sums = scratch;
  for (uint32_t row = (uint32_t)begin; row < end; ++row) {
    lqc_taps rows = lqc_axis_taps(&s->rows, row);
    for (lqc_span span = {0, 0, {0, 0}}; span.end < s->columns.out;) {
      span = lqc_axis_span(&s->columns, span.end);
      for (uint32_t x = span.first; x < span.end; x += LQC_INT8_TILE_PIXELS) {
        lqc_int8_tile tile = tile_at(s, work->node->input, row, x, rows, span.taps);
        tile.pixels = span.end - x < LQC_INT8_TILE_PIXELS ? span.end - x : LQC_INT8_TILE_PIXELS;
        run_tile(s, &tile, sums);
        for (uint32_t p = 0; p < tile.pixels; ++p) {
          lqc_run_fixed_point(&s->fixed, s->kernels, work->node, (size_t)row * s->columns.out + x + p,
                              sums + p * s->sums_stride, sums + LQC_INT8_TILE_PIXELS * s->sums_stride);
        }
      }
    }
  }
}

static void run_conv(const lqc_node *node, const lqc_runner *runner) {
  conv_work work = {node, runner};
  lqc_pool_run(runner->pool, conv_rows, &work, ((const conv_state *)node->state)->rows.out);
}

/* ---- Preparing --------------------------------------------------------------------------------------------------- */

typedef struct filters {
  const int8_t *weights; /* [channels][size] */
  const int32_t *bias;   /* or NULL */
  size_t size;
} filters;

/* Sums of a channel whatever the image: any tap may also be outside, where it adds 0, so every partial sum is in there
 * too. Below 2^31 weights of 2^14 at most: no overflow. */
static lqc_range range_of_sum(const void *context, uint32_t channel) {
  const filters *f = context;
  const int8_t *w = f->weights + channel * f->size;
  lqc_range range = {0, 0};
  for (size_t i = 0; i < f->size; ++i) {
    range.low += w[i] > 0 ? w[i] * INT8_MIN : w[i] * INT8_MAX;
    range.high += w[i] > 0 ? w[i] * INT8_MAX : w[i] * INT8_MIN;
  }
  int32_t bias = f->bias ? f->bias[channel] : 0;
  return (lqc_range){range.low + bias, range.high + bias};
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

/* From [out_channels][tap][depth] to blocks of lanes, or [tap][out_channels] where depthwise. */
static void pack_weights(const conv_state *s, const filters *f, int8_t *packed) {
  uint32_t outputs = s->out_channels / s->groups;
  for (uint32_t c = 0; c < s->out_channels; ++c) {
    const int8_t *from = f->weights + c * f->size;
    uint32_t at = c % outputs, lanes = s->depthwise ? outputs : LQC_INT8_LANES;
    int8_t *to = packed + c / outputs * s->group_weights + at / lanes * s->block_stride + at % lanes;
    for (size_t i = 0; i < f->size; ++i) {
      to[i * lanes] = from[i];
    }
  }
}

static lqc_status prepare_weights(lqc_prepare *prepare, const filters *f, conv_state *s) {
  uint32_t outputs = s->out_channels / s->groups, lanes = s->depthwise ? outputs : LQC_INT8_LANES;
  size_t blocks = ((size_t)outputs + lanes - 1) / lanes;
  void *memory = NULL;
  if (!lqc_multiply_size(f->size, lanes, &s->block_stride) ||
      !lqc_multiply_size(blocks, s->block_stride, &s->group_weights)) {
    s->group_weights = SIZE_MAX; /* refused in the next line */
  }
  LQC_TRY(lqc_bump_take(prepare->bump, s->groups, s->group_weights, &memory, prepare->error));
  if (memory) {
    memset(memory, 0, s->groups * s->group_weights);
    pack_weights(s, f, memory);
  }
  s->weights = memory;
  s->column_weights = (size_t)lanes * (s->depthwise ? 1 : s->depth);
  LQC_TRY(lqc_bump_take(prepare->bump, s->out_channels, sizeof(int32_t), &memory, prepare->error));
  if (memory && f->bias) {
    memcpy(memory, f->bias, s->out_channels * sizeof(int32_t));
  } else if (memory) {
    memset(memory, 0, s->out_channels * sizeof(int32_t));
  }
  s->bias = memory;
  return LQC_OK;
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
  const filters f = {weights.data, bias.data, weights.bytes / output->channels};
  conv_state state = {.rows = lqc_row_axis(&op->window, input, output),
                      .columns = lqc_column_axis(&op->window, input, output),
                      .in_channels = input->channels,
                      .out_channels = output->channels,
                      .groups = depthwise ? 1 : op->groups,
                      .depth = depthwise ? input->channels : depth,
                      .depthwise = depthwise,
                      .joins_columns = op->groups == 1 && op->window.dilation_w == 1,
                      .sums_stride = lqc_lane_count(output->channels),
                      .kernels = prepare->kernels};
  LQC_TRY(check_sums(prepare, op, &f, output->channels));
  LQC_TRY(lqc_prepare_fixed_point(prepare, op, input, output, range_of_sum, &f, &state.fixed));
  LQC_TRY(prepare_weights(prepare, &f, &state));
  lqc_need_thread_scratch(prepare, LQC_INT8_TILE_PIXELS * state.sums_stride * sizeof(int32_t) + state.fixed.row_bytes);
  node->kernel = depthwise ? "int8_depthwise" : "int8_conv2d";
  node->int8_macs = lqc_count_macs(&op->window, output, depth);
  node->run = run_conv;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
