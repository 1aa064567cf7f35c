/* Bitpack: signs of float32, int8 or int16 into bits. Unpack: bits into float32. */
#include "op.h"

typedef struct bitpack_state {
  size_t pixels;
  uint32_t channels;
  size_t out_stride; /* words of one pixel */
  const void *thresholds;
  const uint64_t *invert;
  void (*pack_f32)(uint64_t *out, const float *in, size_t pixels, uint32_t channels, const float *thresholds,
                   const uint64_t *invert);
  void (*pack_i8)(uint64_t *out, const int8_t *in, size_t pixels, uint32_t channels, const int8_t *thresholds,
                  const uint64_t *invert);
  void (*pack_i16)(uint64_t *out, const int16_t *in, size_t pixels, uint32_t channels, const int16_t *thresholds,
                   const uint64_t *invert);
} bitpack_state;

static void bitpack_pixels(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const bitpack_state *s = node->state;
  (void)thread;
  uint64_t *out = (uint64_t *)node->output + begin * s->out_stride;
  if (s->pack_f32) {
    const float *in = (const float *)node->input + begin * s->channels;
    s->pack_f32(out, in, end - begin, s->channels, s->thresholds, s->invert);
  } else if (s->pack_i16) {
    const int16_t *in = (const int16_t *)node->input + begin * s->channels;
    s->pack_i16(out, in, end - begin, s->channels, s->thresholds, s->invert);
  } else {
    const int8_t *in = (const int8_t *)node->input + begin * s->channels;
    s->pack_i8(out, in, end - begin, s->channels, s->thresholds, s->invert);
  }
}

static void run_bitpack(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, bitpack_pixels, node, ((const bitpack_state *)node->state)->pixels);
}

lqc_status lqc_prepare_Bitpack(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                               const lqc_tensor *output, lqc_node *node) {
  lqc_constant thresholds, invert;
  LQC_TRY(
      lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32) | LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_BIT)));
  LQC_TRY(lqc_expect_same_shape(prepare, op, input, output));
  LQC_TRY(lqc_expect_constant(prepare, op, "thresholds", op->thresholds, LQC_MASK(input->info.dtype), &input->channels,
                              1, true, &thresholds));
  LQC_TRY(
      lqc_expect_constant(prepare, op, "invert", op->invert, LQC_MASK(LQC_BIT), &input->channels, 1, false, &invert));
  bool is_float = input->info.dtype == LQC_FLOAT32, is_int16 = input->info.dtype == LQC_INT16;
  bitpack_state state = {
      .pixels = (size_t)input->height * input->width,
      .channels = input->channels,
      .out_stride = lqc_words(input->channels),
      .thresholds = thresholds.data,
      .invert = invert.data,
      .pack_f32 = is_float ? prepare->kernels->bitpack_f32 : NULL,
      .pack_i8 = is_float || is_int16 ? NULL : prepare->kernels->bitpack_i8,
      .pack_i16 = is_int16 ? prepare->kernels->bitpack_i16 : NULL,
  };
  node->kernel = is_float ? "bitpack_f32" : is_int16 ? "bitpack_i16" : "bitpack_i8";
  node->run = run_bitpack;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}

typedef struct unpack_state {
  size_t pixels;
  uint32_t channels;
} unpack_state;

static void unpack_pixels(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const unpack_state *s = node->state;
  size_t words = lqc_words(s->channels);
  (void)thread;
  for (size_t p = begin; p < end; ++p) {
    const uint64_t *in = (const uint64_t *)node->input + p * words;
    float *out = (float *)node->output + p * s->channels;
    for (uint32_t c = 0; c < s->channels; ++c) {
      out[c] = 1.0f - 2.0f * (float)(in[c / 64] >> (c % 64) & 1);
    }
  }
}

static void run_unpack(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, unpack_pixels, node, ((const unpack_state *)node->state)->pixels);
}

lqc_status lqc_prepare_Unpack(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input, const lqc_tensor *output,
                              lqc_node *node) {
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_BIT)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(LQC_FLOAT32)));
  LQC_TRY(lqc_expect_same_shape(prepare, op, input, output));
  unpack_state state = {(size_t)input->height * input->width, input->channels};
  node->kernel = "unpack";
  node->run = run_unpack;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
