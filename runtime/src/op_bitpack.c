/* Bitpack: signs of float32, int8 or int16 into bits, or the bit planes of levels. Unpack: bits into float32. */
#include "op.h"

typedef struct bitpack_state {
  size_t pixels;
  uint32_t channels;
  size_t out_stride; /* words of one pixel */
  uint32_t planes;
  size_t row_bytes; /* of the thresholds of one level */
  const void *thresholds;
  const uint64_t *invert;
  void (*pack_f32)(uint64_t *out, const float *in, size_t pixels, uint32_t channels, const float *thresholds,
                   const uint64_t *invert);
  void (*pack_i8)(uint64_t *out, const int8_t *in, size_t pixels, uint32_t channels, const int8_t *thresholds,
                  const uint64_t *invert);
  void (*pack_i16)(uint64_t *out, const int16_t *in, size_t pixels, uint32_t channels, const int16_t *thresholds,
                   const uint64_t *invert);
} bitpack_state;

typedef struct bitpack_work {
  const lqc_node *node;
  const lqc_runner *runner;
} bitpack_work;

/* Signs of `count` pixels from pixel `first` on. */
static void pack_pixels(const bitpack_state *s, uint64_t *out, const void *in, size_t first, size_t count,
                        const void *thresholds) {
  first *= s->channels;
  if (s->pack_f32) {
    s->pack_f32(out, (const float *)in + first, count, s->channels, thresholds, s->invert);
  } else if (s->pack_i16) {
    s->pack_i16(out, (const int16_t *)in + first, count, s->channels, thresholds, s->invert);
  } else {
    s->pack_i8(out, (const int8_t *)in + first, count, s->channels, thresholds, s->invert);
  }
}

/* The planes of one pixel. As the level n grows, bit j of it changes at every multiple i of 2^j, so it is the xor of
 * the signs 'n >= i' over these i; of which there is an odd number, so it is the same for packed signs, whose bits are
 * 1 where n < i, and for inverted ones. */
static void pack_planes(const bitpack_state *s, const lqc_node *node, size_t pixel, uint64_t *signs) {
  for (uint32_t i = 1; i < 1u << s->planes; ++i) {
    pack_pixels(s, signs, node->input, pixel, 1, (const uint8_t *)s->thresholds + (i - 1) * s->row_bytes);
    for (uint32_t j = 0; j < s->planes && i % (1u << j) == 0; ++j) {
      uint64_t *out = (uint64_t *)node->outputs[j] + pixel * s->out_stride;
      for (size_t word = 0; word < s->out_stride; ++word) {
        out[word] = i == 1u << j ? signs[word] : out[word] ^ signs[word];
      }
    }
  }
}

static void bitpack_pixels(const void *context, uint32_t thread, size_t begin, size_t end) {
  const bitpack_work *work = context;
  const lqc_node *node = work->node;
  const bitpack_state *s = node->state;
  if (s->planes == 1) {
    uint64_t *out = (uint64_t *)node->output + begin * s->out_stride;
    pack_pixels(s, out, node->input, begin, end - begin, s->thresholds);
    return;
  }
  void *signs = work->runner->thread_scratch + thread * work->runner->thread_scratch_bytes;
  for (size_t p = begin; p < end; ++p) {
    pack_planes(s, node, p, signs);
  }
}

static void run_bitpack(const lqc_node *node, const lqc_runner *runner) {
  bitpack_work work = {node, runner};
  lqc_pool_run(runner->pool, bitpack_pixels, &work, ((const bitpack_state *)node->state)->pixels);
}

static double threshold_at(const lqc_constant *thresholds, size_t i) {
  switch (thresholds->dtype) {
  case LQC_INT8:
    return ((const int8_t *)thresholds->data)[i];
  case LQC_INT16:
    return ((const int16_t *)thresholds->data)[i];
  default:
    return (double)((const float *)thresholds->data)[i];
  }
}

/* 2^planes - 1 thresholds a channel, in ascending order. */
static lqc_status check_levels(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                               lqc_constant *thresholds) {
  const uint32_t shape[2] = {(1u << op->output_count) - 1, input->channels};
  if (op->thresholds == LQC_NO_CONSTANT) {
    return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                    "op '%s' (Bitpack) has %u outputs and no thresholds; accepted are [%u, %u]", op->name,
                    op->output_count, shape[0], shape[1]);
  }
  LQC_TRY(lqc_expect_constant(prepare, op, "thresholds", op->thresholds, LQC_MASK(input->info.dtype), shape, 2, true,
                              thresholds));
  for (size_t i = input->channels; i < (size_t)shape[0] * shape[1]; ++i) {
    if (threshold_at(thresholds, i) < threshold_at(thresholds, i - input->channels)) {
      return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                      "op '%s' (Bitpack): threshold %zu of channel %zu is below the one before; accepted are ascending "
                      "ones",
                      op->name, i / input->channels, i % input->channels);
    }
  }
  return LQC_OK;
}

lqc_status lqc_prepare_Bitpack(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                               const lqc_tensor *outputs, lqc_node *node) {
  lqc_constant thresholds, invert;
  LQC_TRY(
      lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32) | LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16)));
  for (uint32_t j = 0; j < op->output_count; ++j) {
    LQC_TRY(lqc_expect_dtype(prepare, op, &outputs[j], "output", LQC_MASK(LQC_BIT)));
    LQC_TRY(lqc_expect_same_shape(prepare, op, input, &outputs[j]));
  }
  if (op->output_count > 1) {
    LQC_TRY(check_levels(prepare, op, input, &thresholds));
    lqc_need_thread_scratch(prepare, lqc_words(input->channels) * sizeof(uint64_t));
  } else {
    LQC_TRY(lqc_expect_constant(prepare, op, "thresholds", op->thresholds, LQC_MASK(input->info.dtype),
                                &input->channels, 1, true, &thresholds));
  }
  LQC_TRY(
      lqc_expect_constant(prepare, op, "invert", op->invert, LQC_MASK(LQC_BIT), &input->channels, 1, false, &invert));
  bool is_float = input->info.dtype == LQC_FLOAT32, is_int16 = input->info.dtype == LQC_INT16;
  bitpack_state state = {
      .pixels = (size_t)input->height * input->width,
      .channels = input->channels,
      .out_stride = lqc_words(input->channels),
      .planes = op->output_count,
      .row_bytes = lqc_array_bytes(input->info.dtype, &input->channels, 1),
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
