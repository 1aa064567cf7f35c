/* Conv2D, float32. Every output is one chain of additions in the order kernel_h, kernel_w, in_channels, so all
 * machines give the same number; what runs side by side are output channels. Taps outside the image are skipped: a
 * product of 0 added to a sum that starts from +0 never changes it. */
#include "op.h"

/* Output channels whose sums stay in registers. */
#define LANES 16u

typedef struct conv_state {
  lqc_axis rows, columns;
  uint32_t in_channels, out_channels;
  uint32_t depth, each; /* input and output channels of a group */
  const float *weights, *bias;
  lqc_activation activation;
} conv_state;

typedef struct conv_pixel {
  lqc_taps rows, columns;
  int64_t y, x;
} conv_pixel;

/* Sums of one tap: `lanes` channels of one group, or, depthwise, of as many. */
static inline void add_tap(float *sums, const float *pixel, const float *weights, const conv_state *s, uint32_t lanes,
                           bool depthwise) {
  if (depthwise) {
    for (uint32_t c = 0; c < lanes; ++c) {
      sums[c] += pixel[c] * weights[c];
    }
    return;
  }
  for (uint32_t k = 0; k < s->depth; ++k, weights += s->out_channels) {
    float value = pixel[k];
    for (uint32_t c = 0; c < lanes; ++c) {
      sums[c] += value * weights[c];
    }
  }
}

/* Channels [first, first + lanes) of one output pixel, which read input channels from `source` on. Inlined with a
 * constant `lanes` for whole blocks. */
static inline void sum_channels(const conv_state *s, const float *in, const conv_pixel *at, uint32_t source,
                                uint32_t first, uint32_t lanes, bool depthwise, float *out) {
  float sums[LANES] = {0};
  for (uint32_t i = at->rows.first; i < at->rows.end; ++i) {
    size_t y = (size_t)(at->y + (int64_t)i * s->rows.dilation);
    for (uint32_t j = at->columns.first; j < at->columns.end; ++j) {
      size_t x = (size_t)(at->x + (int64_t)j * s->columns.dilation);
      const float *pixel = in + (y * s->columns.size + x) * s->in_channels + source;
      const float *weights = s->weights + ((size_t)i * s->columns.kernel + j) * s->depth * s->out_channels + first;
      add_tap(sums, pixel, weights, s, lanes, depthwise);
    }
  }
  for (uint32_t c = 0; c < lanes; ++c) {
    float sum = s->bias ? sums[c] + s->bias[first + c] : sums[c];
    out[first + c] = lqc_activate(s->activation, sum);
  }
}

static void conv_pixel_channels(const conv_state *s, const float *in, const conv_pixel *at, float *out) {
  for (uint32_t first = 0, source = 0; first < s->out_channels; source += s->depth) {
    uint32_t end = first + s->each;
    for (; first + LANES <= end; first += LANES) {
      sum_channels(s, in, at, source, first, LANES, false, out);
    }
    if (first < end) {
      sum_channels(s, in, at, source, first, end - first, false, out);
      first = end;
    }
  }
}

static void depthwise_pixel_channels(const conv_state *s, const float *in, const conv_pixel *at, float *out) {
  uint32_t first = 0;
  for (; first + LANES <= s->out_channels; first += LANES) {
    sum_channels(s, in, at, first, first, LANES, true, out);
  }
  if (first < s->out_channels) {
    sum_channels(s, in, at, first, first, s->out_channels - first, true, out);
  }
}

static void conv_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const conv_state *s = node->state;
  bool depthwise = s->depth == 1 && s->each == 1;
  float *out = (float *)node->output + begin * s->columns.out * s->out_channels;
  (void)thread;
  for (size_t y = begin; y < end; ++y) {
    for (uint32_t x = 0; x < s->columns.out; ++x, out += s->out_channels) {
      conv_pixel at = {lqc_axis_taps(&s->rows, (uint32_t)y), lqc_axis_taps(&s->columns, x),
                       lqc_axis_start(&s->rows, (uint32_t)y), lqc_axis_start(&s->columns, x)};
      if (depthwise) {
        depthwise_pixel_channels(s, node->input, &at, out);
      } else {
        conv_pixel_channels(s, node->input, &at, out);
      }
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
  const uint32_t shape[4] = {op->window.kernel_h, op->window.kernel_w, depth, output->channels};
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_constant(prepare, op, "weights", op->weights, LQC_MASK(LQC_FLOAT32), shape, 4, false, &weights));
  LQC_TRY(
      lqc_expect_constant(prepare, op, "bias", op->bias, LQC_MASK(LQC_FLOAT32), &output->channels, 1, false, &bias));
  conv_state state = {.rows = lqc_row_axis(&op->window, input, output),
                      .columns = lqc_column_axis(&op->window, input, output),
                      .in_channels = input->channels,
                      .out_channels = output->channels,
                      .depth = depth,
                      .each = output->channels / op->groups,
                      .weights = weights.data,
                      .bias = bias.data,
                      .activation = op->activation};
  node->kernel = "conv2d_f32";
  node->float_macs = lqc_count_macs(&op->window, output, depth);
  node->run = run_conv;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
