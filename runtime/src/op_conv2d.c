/* Conv2D, float32. Every output is one chain of additions in the order kernel_h, kernel_w, in_channels, so all
 * machines give the same number; what runs side by side are output channels and pixels. Taps outside the image are
 * skipped: a product of 0 added to a sum that starts from +0 never changes it. */
#include "op.h"

typedef struct conv_state {
  lqc_axis rows, columns;
  uint32_t in_channels, out_channels, groups; /* 1 group where depthwise: then all channels are one to the kernel */
  uint32_t depth;                             /* input channels of a group */
  const float *weights, *bias;
  lqc_activation activation;
  bool by_pixel; /* 1x1 over every pixel: all rows are one */
  bool joined;   /* the taps of a row are neighbours, in the image as in the filter: one tap of more channels */
  void (*kernel)(const lqc_conv_tile *tile);
} conv_state;

/* Output pixels [span->first, span->end) of one row. Positions are those of the first tap inside: no pointer is ever
 * formed outside the image. */
static void conv_span(const conv_state *s, const float *in, uint32_t y, const lqc_span *span, float *out) {
  lqc_taps rows = lqc_axis_taps(&s->rows, y), columns = span->taps;
  bool none = rows.first == rows.end || columns.first == columns.end;
  uint32_t taps = none ? 0 : columns.end - columns.first;
  size_t row = none ? 0 : (size_t)(lqc_axis_start(&s->rows, y) + (int64_t)rows.first * s->rows.dilation);
  size_t column =
      none ? 0 : (size_t)(lqc_axis_start(&s->columns, span->first) + (int64_t)columns.first * s->columns.dilation);
  size_t tap_weights = (size_t)s->depth * s->out_channels;
  lqc_conv_tile tile = {.input = in + (row * s->columns.size + column) * s->in_channels,
                        .row_stride = (size_t)s->rows.dilation * s->columns.size * s->in_channels,
                        .column_stride = (size_t)s->columns.dilation * s->in_channels,
                        .pixel_stride = (size_t)s->columns.stride * s->in_channels,
                        .rows = none ? 0 : rows.end - rows.first,
                        .columns = s->joined && taps > 0 ? 1 : taps,
                        .depth = s->joined ? s->depth * taps : s->depth,
                        .weights = s->weights +
                                   (none ? 0 : (size_t)rows.first * s->columns.kernel + columns.first) * tap_weights,
                        .row_weights = s->columns.kernel * tap_weights,
                        .column_weights = tap_weights,
                        .weight_stride = s->out_channels,
                        .pixels = span->end - span->first,
                        .channels = s->out_channels / s->groups,
                        .bias = s->bias,
                        .low = s->activation.low,
                        .high = s->activation.high,
                        .out = out + (size_t)span->first * s->out_channels,
                        .out_stride = s->out_channels};
  for (uint32_t g = 0; g < s->groups; ++g) {
    s->kernel(&tile);
    tile.input += s->depth;
    tile.weights += tile.channels;
    tile.bias = tile.bias ? tile.bias + tile.channels : NULL;
    tile.out += tile.channels;
  }
}

static void conv_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const conv_state *s = node->state;
  float *out = (float *)node->output + begin * s->columns.out * s->out_channels;
  (void)thread;
  if (s->by_pixel && begin < end) {
    lqc_span all = {0, (uint32_t)(end - begin) * s->columns.out, {0, 1}};
    conv_span(s, node->input, (uint32_t)begin, &all, out);
    return;
  }
  for (size_t y = begin; y < end; ++y, out += (size_t)s->columns.out * s->out_channels) {
    for (lqc_span span = {0, 0, {0, 0}}; span.end < s->columns.out;) {
      span = lqc_axis_span(&s->columns, span.end);
      conv_span(s, node->input, (uint32_t)y, &span, out);
    }
  }
}

static void run_conv(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, conv_rows, node, ((const conv_state *)node->state)->rows.out);
}

lqc_status lqc_prepare_Conv2D(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input, const lqc_tensor *output,
                              lqc_node *node) {
  lqc_constant weights, bias;
  LQC_TRY(lqc_expect_groups(prepare, op, input, output));
  uint32_t depth = input->channels / op->groups;
  bool depthwise = depth == 1 && op->groups == output->channels;
  const uint32_t shape[4] = {op->window.kernel_h, op->window.kernel_w, depth, output->channels};
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_constant(prepare, op, "weights", op->weights, LQC_MASK(LQC_FLOAT32), shape, 4, false, &weights));
  LQC_TRY(
      lqc_expect_constant(prepare, op, "bias", op->bias, LQC_MASK(LQC_FLOAT32), &output->channels, 1, false, &bias));
  const lqc_window *w = &op->window;
  bool by_pixel = w->kernel_h == 1 && w->kernel_w == 1 && w->stride_h == 1 && w->stride_w == 1 && w->pad_top == 0 &&
                  w->pad_left == 0 && input->height == output->height && input->width == output->width &&
                  (uint64_t)input->height * input->width <= UINT32_MAX;
  conv_state state = {.rows = lqc_row_axis(&op->window, input, output),
                      .columns = lqc_column_axis(&op->window, input, output),
                      .in_channels = input->channels,
                      .out_channels = output->channels,
                      .groups = depthwise ? 1 : op->groups,
                      .depth = depth,
                      .weights = weights.data,
                      .bias = bias.data,
                      .activation = op->activation,
                      .by_pixel = by_pixel,
                      .joined = !depthwise && op->groups == 1 && op->window.dilation_w == 1,
                      .kernel = depthwise ? prepare->kernels->depthwise_f32 : prepare->kernels->conv_f32};
  node->kernel = depthwise ? "depthwise_f32" : "conv2d_f32";
  node->float_macs = lqc_count_macs(&op->window, output, depth);
  node->run = run_conv;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
