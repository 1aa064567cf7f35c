/* BinaryConv2D, preparation: everything that does not depend on the image is computed here, once. */
#include <string.h>

#include "bconv2d.h"
#include "checked.h"

typedef struct conv_constants {
  lqc_constant weights, thresholds, invert, multiplier, offset;
} conv_constants;

static lqc_status check_shapes(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                               const lqc_tensor *output, uint32_t *k) {
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_BIT)));
  LQC_TRY(lqc_expect_groups(prepare, op, input, output));
  uint64_t taps = (uint64_t)op->window.kernel_h * op->window.kernel_w;
  uint64_t channels = input->channels / op->groups;
  if (taps > LQC_MAX_K || taps * channels > LQC_MAX_K) {
    return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_UNSUPPORTED,
                          "%llu taps of %llu channels make an accumulator beyond %u", (unsigned long long)taps,
                          (unsigned long long)channels, LQC_MAX_K);
  }
  *k = (uint32_t)(taps * channels);
  return LQC_OK;
}

static lqc_status check_constants(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                  const lqc_tensor *output, conv_constants *constants) {
  const uint32_t shape[4] = {output->channels, op->window.kernel_h, op->window.kernel_w, input->channels / op->groups};
  const uint32_t *channels = &output->channels;
  unsigned integers = LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16) | LQC_MASK(LQC_INT32);
  LQC_TRY(lqc_expect_constant(prepare, op, "weights", op->weights, LQC_MASK(LQC_BIT), shape, 4, false,
                              &constants->weights));
  LQC_TRY(lqc_expect_constant(prepare, op, "thresholds", op->thresholds, integers, channels, 1, false,
                              &constants->thresholds));
  LQC_TRY(lqc_expect_constant(prepare, op, "invert", op->invert, LQC_MASK(LQC_BIT), channels, 1, false,
                              &constants->invert));
  LQC_TRY(lqc_expect_constant(prepare, op, "multiplier", op->multiplier, LQC_MASK(LQC_FLOAT32), channels, 1, false,
                              &constants->multiplier));
  return lqc_expect_constant(prepare, op, "offset", op->offset, LQC_MASK(LQC_FLOAT32), channels, 1, false,
                             &constants->offset);
}

/* The epilogue has what it needs and nothing that belongs to another one. */
static lqc_status check_epilogue(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *output) {
  static const char *const names[] = {"Threshold", "Clip", "Affine", "FixedPoint"};
  static const unsigned dtypes[] = {LQC_MASK(LQC_BIT), LQC_MASK(LQC_INT8), LQC_MASK(LQC_FLOAT32), ~0u};
  if (op->epilogue != LQC_FIXED_POINT && (op->input_count > 1 || op->output_count > 1)) {
    return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_UNSUPPORTED,
                          "%u inputs and %u outputs with epilogue %s; accepted is 1 of each", op->input_count,
                          op->output_count, names[op->epilogue]);
  }
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", dtypes[op->epilogue]));
  bool threshold = op->epilogue == LQC_THRESHOLD, affine = op->epilogue == LQC_AFFINE;
  if ((op->thresholds != LQC_NO_CONSTANT) != threshold || (op->invert != LQC_NO_CONSTANT && !threshold) ||
      (op->multiplier != LQC_NO_CONSTANT) != affine || (op->offset != LQC_NO_CONSTANT) != affine) {
    return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_MALFORMED,
                          "epilogue %s takes %s; thresholds %d, invert %d, multiplier %d, offset %d were given",
                          names[op->epilogue],
                          threshold ? "thresholds and perhaps invert"
                          : affine  ? "multiplier and offset"
                                    : "no constant",
                          (int)op->thresholds, (int)op->invert, (int)op->multiplier, (int)op->offset);
  }
  if (op->clip_limit == 0 && op->step_log2 != 0) {
    return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_MALFORMED, "step_log2 is %d without a clip_limit; accepted is 0",
                          (int)op->step_log2);
  }
  if (op->epilogue == LQC_CLIP && (op->clip_limit == 0 || op->clip_limit > INT8_MAX)) {
    return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_MALFORMED,
                          "clip_limit is %u with epilogue Clip; accepted are 1 to 127", op->clip_limit);
  }
  if (affine && op->clip_limit > LQC_MAX_K) { /* a saturated v would not be exact in float32 */
    return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_UNSUPPORTED,
                          "clip_limit is %u with epilogue Affine; accepted are 0 to %u", op->clip_limit, LQC_MAX_K);
  }
  if (op->epilogue == LQC_CLIP && output->fraction_count == 0 && op->step_log2 != 0) {
    return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_MALFORMED,
                          "'%s' has no fraction_bits; with step_log2 %d it must have %d", output->info.name,
                          (int)op->step_log2, -op->step_log2);
  }
  /* A fixed-point epilogue stores with the fraction bits that its shifts lead to, which only the writer knows. */
  for (uint32_t i = 0; op->epilogue != LQC_FIXED_POINT && i < output->fraction_count; ++i) {
    if (output->fraction_bits[i] != -op->step_log2) {
      return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_MALFORMED,
                            "fraction_bits[%u] of '%s' is %d; with step_log2 %d it must be %d", i, output->info.name,
                            (int)output->fraction_bits[i], (int)op->step_log2, -op->step_log2);
    }
  }
  return LQC_OK;
}

static int32_t threshold_at(const lqc_constant *thresholds, uint32_t c) {
  switch (thresholds->dtype) {
  case LQC_INT8:
    return ((const int8_t *)thresholds->data)[c];
  case LQC_INT16:
    return ((const int16_t *)thresholds->data)[c];
  default:
    return ((const int32_t *)thresholds->data)[c];
  }
}

static lqc_status prepare_limits(lqc_prepare *prepare, const lqc_op *op, const lqc_constant *thresholds,
                                 lqc_bconv_state *s) {
  void *memory = NULL;
  LQC_TRY(lqc_bump_take(prepare->bump, s->joined_stride, s->sum_bytes, &memory, prepare->error));
  if (memory == NULL) {
    return LQC_OK;
  }
  uint16_t *narrow = s->kernel->wide ? NULL : memory;
  uint32_t *wide = s->kernel->wide ? memory : NULL;
  uint32_t highest = narrow ? UINT16_MAX : UINT32_MAX;
  for (uint32_t c = 0; c < s->joined_stride; ++c) {
    uint32_t limit = c < s->params.channels ? lqc_threshold_limit(threshold_at(thresholds, c), s->params.k,
                                                                  op->clip_limit, op->step_log2, highest)
                                            : highest;
    if (narrow) {
      narrow[c] = (uint16_t)limit;
    } else {
      wide[c] = limit;
    }
  }
  s->params.limits = narrow;
  s->params.limits_wide = wide;
  return LQC_OK;
}

static lqc_status prepare_epilogue(lqc_prepare *prepare, const lqc_op *op, const conv_constants *constants,
                                   lqc_bconv_state *s) {
  s->epilogue = op->epilogue;
  s->params.step_log2 = op->step_log2;
  s->params.clip_limit = (int32_t)op->clip_limit;
  s->params.invert = constants->invert.data;
  if (op->epilogue == LQC_THRESHOLD) {
    LQC_TRY(prepare_limits(prepare, op, &constants->thresholds, s));
  }
  LQC_TRY(lqc_pad_floats(prepare, &constants->multiplier, s->params.channels, &s->params.multiplier));
  return lqc_pad_floats(prepare, &constants->offset, s->params.channels, &s->params.offset);
}

/* Bits of the file without gaps: every tap gets words of its own, as in an image. */
static lqc_status expand_filters(lqc_prepare *prepare, const lqc_op *op, const lqc_constant *weights,
                                 const lqc_bconv_state *s, const uint64_t **filters) {
  size_t words = lqc_words(s->group_inputs), taps, count, bytes;
  *filters = weights->data;
  if (s->group_inputs % 64 == 0) {
    return LQC_OK; /* as they are */
  }
  if (!lqc_multiply_size(weights->shape[0], (size_t)weights->shape[1] * weights->shape[2], &taps) ||
      !lqc_multiply_size(taps, words, &count) || !lqc_multiply_size(count, sizeof(uint64_t), &bytes)) {
    return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_UNSUPPORTED,
                          "%u filters of %u bits are more than this machine can address", weights->shape[0],
                          s->params.k);
  }
  LQC_TRY(lqc_spend_work(prepare, op, count));
  void *memory;
  LQC_TRY(lqc_take_scratch(prepare, bytes, &memory));
  uint64_t *expanded = memory;
  for (size_t t = 0, bit = 0; expanded && t < taps; ++t, bit += s->group_inputs) {
    lqc_copy_bits(expanded + t * words, *filters + bit / 64, bit % 64, s->group_inputs);
  }
  *filters = expanded;
  return LQC_OK;
}

static lqc_status prepare_weights(lqc_prepare *prepare, const lqc_op *op, const uint64_t *filters, lqc_bconv_state *s) {
  void *memory = NULL;
  s->packed_bytes = s->kernel->packed_bytes(s->group_outputs, s->filter_words);
  if (s->packed_bytes == 0) {
    return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_UNSUPPORTED,
                          "%u filters of %u words are more than this machine can address", s->group_outputs,
                          s->filter_words);
  }
  LQC_TRY(lqc_bump_take(prepare->bump, s->groups, s->packed_bytes, &memory, prepare->error));
  for (uint32_t g = 0; memory != NULL && g < s->groups; ++g) {
    s->kernel->pack((uint8_t *)memory + g * s->packed_bytes, filters + (size_t)g * s->group_outputs * s->filter_words,
                    s->group_outputs, s->filter_words);
  }
  s->packed = memory;
  return LQC_OK;
}

/* Scratch memory: sums of a tile for each thread; the regrouped image for all threads together. */
static lqc_status prepare_scratch(lqc_prepare *prepare, const lqc_op *op, lqc_bconv_state *s) {
  size_t strides = s->sums_stride + (s->groups > 1 ? s->joined_stride : 0);
  size_t thread_bytes = s->kernel->max_pixels * strides * s->sum_bytes; /* below 2^32 */
  if (s->epilogue == LQC_FIXED_POINT && !lqc_add_size(thread_bytes, lqc_bconv_fixed_scratch(s), &thread_bytes)) {
    return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_UNSUPPORTED,
                          "%u channels take more memory than this machine can address", s->params.channels);
  }
  lqc_need_thread_scratch(prepare, thread_bytes);
  if (s->gathers) {
    size_t words;
    if (!lqc_multiply_size(s->input_group_words, s->groups, &words) || words > PTRDIFF_MAX / 8) {
      return LQC_FAIL_BCONV(prepare, op, LQC_ERROR_UNSUPPORTED,
                            "%u groups take more memory than this machine can address", s->groups);
    }
    if (words * 8 > prepare->shared_scratch) {
      prepare->shared_scratch = words * 8;
    }
  }
  return LQC_OK;
}

static size_t round_to_sums(uint32_t channels) {
  return ((size_t)channels + LQC_SUMS_MULTIPLE - 1) / LQC_SUMS_MULTIPLE * LQC_SUMS_MULTIPLE;
}

static const lqc_bconv_kernel *choose_kernel(const lqc_kernels *kernels, uint32_t k, uint32_t tap_words) {
  if (k > LQC_BCONV_MAX_K) {
    return kernels->bconv_wide;
  }
  return kernels->bconv_pairs && tap_words % 2 == 0 ? kernels->bconv_pairs : kernels->bconv;
}

/* Groups are joined before the epilogue, which therefore stays apart. */
static lqc_fused_bconv choose_fused(const lqc_bconv_kernel *kernel, const lqc_op *op) {
  if (op->groups > 1) {
    return NULL;
  }
  switch (op->epilogue) {
  case LQC_THRESHOLD:
    return kernel->threshold;
  case LQC_CLIP:
    return kernel->clip;
  case LQC_AFFINE:
    return kernel->affine;
  default:
    return NULL;
  }
}

lqc_status lqc_prepare_BinaryConv2D(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                    const lqc_tensor *output, lqc_node *node) {
  conv_constants constants;
  uint32_t k = 0;
  LQC_TRY(check_shapes(prepare, op, input, output, &k));
  LQC_TRY(check_epilogue(prepare, op, output));
  LQC_TRY(check_constants(prepare, op, input, output, &constants));
  lqc_bconv_state s = {
      .kernel = choose_kernel(prepare->kernels, k, lqc_words(input->channels / op->groups)),
      .kernels = prepare->kernels,
      .params = {.channels = output->channels, .k = k},
      .groups = op->groups,
      .group_outputs = output->channels / op->groups,
      .rows = lqc_row_axis(&op->window, input, output),
      .columns = lqc_column_axis(&op->window, input, output),
      .in_channels = input->channels,
      .group_inputs = input->channels / op->groups,
      .output_pixel_bytes = output->info.bytes / output->height / output->width,
  };
  s.fused = choose_fused(s.kernel, op);
  s.sum_bytes = s.kernel->wide ? sizeof(uint32_t) : sizeof(uint16_t);
  s.sums_stride = round_to_sums(s.group_outputs);
  s.joined_stride = round_to_sums(output->channels);
  /* K <= 2^24 bounds the taps, and so the words: no overflow. */
  s.filter_words = op->window.kernel_h * op->window.kernel_w * lqc_words(s.group_inputs);
  s.gathers = op->groups > 1 && s.group_inputs % 64 != 0;
  s.input_pixel_words = lqc_words(s.gathers ? s.group_inputs : s.in_channels);
  s.input_group_words =
      s.gathers ? (size_t)input->height * input->width * s.input_pixel_words : lqc_words(s.group_inputs);
  LQC_TRY(prepare_epilogue(prepare, op, &constants, &s));
  if (op->epilogue == LQC_FIXED_POINT) {
    LQC_TRY(lqc_prepare_bconv_fixed(prepare, op, input, output, &s));
  }
  const uint64_t *filters;
  LQC_TRY(expand_filters(prepare, op, &constants.weights, &s, &filters));
  LQC_TRY(prepare_weights(prepare, op, filters, &s));
  LQC_TRY(lqc_prepare_bconv_regions(prepare, op, filters, &s));
  LQC_TRY(prepare_scratch(prepare, op, &s));
  node->weights = s.packed;
  node->weights_bytes = s.groups * s.packed_bytes;
  node->kernel = s.kernel->name;
  node->binary_macs = lqc_count_macs(&op->window, output, s.group_inputs);
  node->run = lqc_run_bconv2d;
  return lqc_keep_state(prepare, node, &s, sizeof(s));
}
