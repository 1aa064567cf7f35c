/* Conv2D, float32. Every output is one chain of additions in the order kernel_h, kernel_w, in_channels, so all
 * machines give the same number; what runs side by side are output channels. Taps outside the image are skipped: a
 * product of 0 added to a sum that starts from +0 never changes it. */
#include "op.h"

/* Output channels whose sums stay in registers. */
#define LANES 16u

typedef struct conv_state {
  lqc_axis rows, columns;
  uint32_t in_channels, out_channels;
  const float *weights, *bias;
  lqc_activation activation;
} conv_state;

typedef struct conv_pixel {
  lqc_taps rows, columns;
  int64_t y, x;
} conv_pixel;

/* Channels [first, first + lanes) of one output pixel. Inlined with a constant `lanes` for whole blocks. */
static inline void sum_channels(const conv_state *s, const float *in, const conv_pixel *at, uint32_t first,
                                uint32_t lanes, float *out) {
  float sums[LANES] = {0};
  for (uint32_t i = at->rows.first; i < at->rows.end; ++i) {
    size_t y = (size_t)(at->y + (int64_t)i * s->rows.dilation);
    for (uint32_t j = at->columns.first; j < at->columns.end; ++j) {
      size_t x = (size_t)(at->x + (int64_t)j * s->columns.dilation);
      const float *pixel = in + (y * s->columns.size + x) * s->in_channels;
      const float *weights =
          s->weights + ((size_t)i * s->columns.kernel + j) * s->in_channels * s->out_channels + first;
      for (uint32_t k = 0; k < s->in_channels; ++k, weights += s->out_channels) {
        float value = pixel[k];
        for (uint32_t c = 0; c < lanes; ++c) {
          sums[c] += value * weights[c];
        }
      }
    }
  }
  for (uint32_t c = 0; c < lanes; ++c) {
    float sum = s->bias ? sums[c] + s->bias[first + c] : sums[c];
    out[first + c] = s->activation == LQC_RELU ? lqc_relu(sum) : sum;
  }
}

static void conv_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const conv_state *s = node->state;
  float *out = (float *)node->output + begin * s->columns.out * s->out_channels;
  (void)thread;
  for (size_t y = begin; y < end; ++y) {
    for (uint32_t x = 0; x < s->columns.out; ++x, out += s->out_channels) {
      conv_pixel at = {lqc_axis_taps(&s->rows, (uint32_t)y), lqc_axis_taps(&s->columns, x),
                       lqc_axis_start(&s->rows, (uint32_t)y), lqc_axis_start(&s->columns, x)};
      uint32_t first = 0;
      for (; first + LANES <= s->out_channels; first += LANES) {
        sum_channels(s, node->input, &at, first, LANES, out);
      }
      if (first < s->out_channels) {
        sum_channels(s, node->input, &at, first, s->out_channels - first, out);
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
  const uint32_t shape[4] = {op->window.kernel_h, op->window.kernel_w, input->channels, output->channels};
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_constant(prepare, op, "weights", op->weights, LQC_MASK(LQC_FLOAT32), shape, 4, false, &weights));
  LQC_TRY(
      lqc_expect_constant(prepare, op, "bias", op->bias, LQC_MASK(LQC_FLOAT32), &output->channels, 1, false, &bias));
  conv_state state = {.rows = lqc_row_axis(&op->window, input, output),
                      .columns = lqc_column_axis(&op->window, input, output),
                      .in_channels = input->channels,
                      .out_channels = output->channels,
                      .weights = weights.data,
                      .bias = bias.data,
                      .activation = op->activation};
  node->kernel = "conv2d_f32";
  node->float_macs = lqc_count_macs(&op->window, output, input->channels);
  node->run = run_conv;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
