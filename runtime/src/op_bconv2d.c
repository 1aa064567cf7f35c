/* BinaryConv2D, preparation: everything that does not depend on the image is computed here, once. */
#include <string.h>

#include "bconv2d.h"
#include "checked.h"

#define FAIL(prepare, op, status, format, ...) \
  lqc_fail((prepare)->error, status, "op '%s' (BinaryConv2D): " format, (op)->name, __VA_ARGS__)

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
    return FAIL(prepare, op, LQC_ERROR_UNSUPPORTED, "%llu taps of %llu channels make an accumulator beyond %u",
                (unsigned long long)taps, (unsigned long long)channels, LQC_MAX_K);
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
    return FAIL(prepare, op, LQC_ERROR_UNSUPPORTED, "%u inputs and %u outputs with epilogue %s; accepted is 1 of each",
                op->input_count, op->output_count, names[op->epilogue]);
  }
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", dtypes[op->epilogue]));
  bool threshold = op->epilogue == LQC_THRESHOLD, affine = op->epilogue == LQC_AFFINE;
  if ((op->thresholds != LQC_NO_CONSTANT) != threshold || (op->invert != LQC_NO_CONSTANT && !threshold) ||
      (op->multiplier != LQC_NO_CONSTANT) != affine || (op->offset != LQC_NO_CONSTANT) != affine) {
    return FAIL(prepare, op, LQC_ERROR_MALFORMED,
                "epilogue %s takes %s; thresholds %d, invert %d, multiplier %d, offset %d were given",
                names[op->epilogue],
                threshold ? "thresholds and perhaps invert"
                : affine  ? "multiplier and offset"
                          : "no constant",
                (int)op->thresholds, (int)op->invert, (int)op->multiplier, (int)op->offset);
  }
  if (op->clip_limit == 0 && op->step_log2 != 0) {
    return FAIL(prepare, op, LQC_ERROR_MALFORMED, "step_log2 is %d without a clip_limit; accepted is 0",
                (int)op->step_log2);
  }
  if (op->epilogue == LQC_CLIP && (op->clip_limit == 0 || op->clip_limit > INT8_MAX)) {
    return FAIL(prepare, op, LQC_ERROR_MALFORMED, "clip_limit is %u with epilogue Clip; accepted are 1 to 127",
                op->clip_limit);
  }
  if (affine && op->clip_limit > LQC_MAX_K) { /* a saturated v would not be exact in float32 */
    return FAIL(prepare, op, LQC_ERROR_UNSUPPORTED, "clip_limit is %u with epilogue Affine; accepted are 0 to %u",
                op->clip_limit, LQC_MAX_K);
  }
  if (op->epilogue == LQC_CLIP && output->fraction_count == 0 && op->step_log2 != 0) {
    return FAIL(prepare, op, LQC_ERROR_MALFORMED, "'%s' has no fraction_bits; with step_log2 %d it must have %d",
                output->info.name, (int)op->step_log2, -op->step_log2);
  }
  /* A fixed-point epilogue stores with the fraction bits that its shifts lead to, which only the writer knows. */
  for (uint32_t i = 0; op->epilogue != LQC_FIXED_POINT && i < output->fraction_count; ++i) {
    if (output->fraction_bits[i] != -op->step_log2) {
      return FAIL(prepare, op, LQC_ERROR_MALFORMED, "fraction_bits[%u] of '%s' is %d; with step_log2 %d it must be %d",
                  i, output->info.name, (int)output->fraction_bits[i], (int)op->step_log2, -op->step_log2);
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
    return FAIL(prepare, op, LQC_ERROR_UNSUPPORTED, "%u filters of %u bits are more than this machine can address",
                weights->shape[0], s->params.k);
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
    return FAIL(prepare, op, LQC_ERROR_UNSUPPORTED, "%u filters of %u words are more than this machine can address",
                s->group_outputs, s->filter_words);
  }
  LQC_TRY(lqc_bump_take(prepare->bump, s->groups, s->packed_bytes, &memory, prepare->error));
  for (uint32_t g = 0; memory != NULL && g < s->groups; ++g) {
    s->kernel->pack((uint8_t *)memory + g * s->packed_bytes, filters + (size_t)g * s->group_outputs * s->filter_words,
                    s->group_outputs, s->filter_words);
  }
  s->packed = memory;
  return LQC_OK;
}

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

/* As few tiles as there must be, of nearly the same number of pixels: 25 pixels are 13 and 12, not 16 and 9, which both
 * threads of two and tiles in registers share out better. */
static uint32_t tile_pixels(uint32_t pixels, uint32_t max_pixels) {
  const uint32_t tiles = (pixels - 1) / max_pixels + 1;
  return (pixels - 1) / tiles + 1;
}

static lqc_status prepare_region(lqc_prepare *prepare, const lqc_op *op, const lqc_bconv_state *s, lqc_span rows,
                                 lqc_span columns, lqc_region *region) {
  const lqc_run_geometry geometry = {s->columns.kernel,    s->rows.dilation,
                                     s->columns.dilation,  lqc_words(s->group_inputs),
                                     s->input_pixel_words, s->input_pixel_words * s->columns.size};
  uint64_t pixels = (uint64_t)(rows.end - rows.first) * (columns.end - columns.first);
  if (pixels > INT32_MAX) {
    return FAIL(prepare, op, LQC_ERROR_UNSUPPORTED, "an image of %llu pixels is too large", (unsigned long long)pixels);
  }
  uint32_t inside = (rows.taps.end - rows.taps.first) * (columns.taps.end - columns.taps.first);
  uint32_t outside = s->rows.kernel * s->columns.kernel - inside;
  *region = (lqc_region){.first_row = rows.first,
                         .first_column = columns.first,
                         .row_taps = rows.taps,
                         .column_taps = columns.taps,
                         .columns = columns.end - columns.first,
                         .pixels = (uint32_t)pixels,
                         .tile_pixels = tile_pixels((uint32_t)pixels, s->kernel->max_pixels),
                         .first_tile = s->tile_count,
                         .run_count = lqc_region_runs(NULL, &geometry, rows.taps, columns.taps),
                         .missing = op->pad_value == 0 ? outside * s->group_inputs : 0};
  void *memory = NULL;
  LQC_TRY(lqc_bump_take(prepare->bump, region->run_count, sizeof(lqc_run), &memory, prepare->error));
  if (memory) {
    lqc_region_runs(memory, &geometry, rows.taps, columns.taps);
  }
  region->runs = memory;
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

static lqc_status prepare_regions(lqc_prepare *prepare, const lqc_op *op, const uint64_t *filters, lqc_bconv_state *s) {
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
      s->tile_count += (region.pixels + region.tile_pixels - 1) / region.tile_pixels;
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

/* Scratch memory: sums of a tile for each thread; the regrouped image for all threads together. */
static lqc_status prepare_scratch(lqc_prepare *prepare, const lqc_op *op, lqc_bconv_state *s) {
  size_t strides = s->sums_stride + (s->groups > 1 ? s->joined_stride : 0);
  size_t thread_bytes = s->kernel->max_pixels * strides * s->sum_bytes; /* below 2^32 */
  if (s->epilogue == LQC_FIXED_POINT && !lqc_add_size(thread_bytes, lqc_bconv_fixed_scratch(s), &thread_bytes)) {
    return FAIL(prepare, op, LQC_ERROR_UNSUPPORTED, "%u channels take more memory than this machine can address",
                s->params.channels);
  }
  lqc_need_thread_scratch(prepare, thread_bytes);
  if (s->gathers) {
    size_t words;
    if (!lqc_multiply_size(s->input_group_words, s->groups, &words) || words > PTRDIFF_MAX / 8) {
      return FAIL(prepare, op, LQC_ERROR_UNSUPPORTED, "%u groups take more memory than this machine can address",
                  s->groups);
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
  LQC_TRY(prepare_regions(prepare, op, filters, &s));
  LQC_TRY(prepare_scratch(prepare, op, &s));
  node->weights = s.packed;
  node->weights_bytes = s.groups * s.packed_bytes;
  node->kernel = s.kernel->name;
  node->binary_macs = lqc_count_macs(&op->window, output, s.group_inputs);
  node->run = lqc_run_bconv2d;
  return lqc_keep_state(prepare, node, &s, sizeof(s));
}
