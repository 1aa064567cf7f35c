#include "op.h"

#include <string.h>

#include "checked.h"

static lqc_status too_small(const lqc_bump *bump, lqc_error *error) {
  return lqc_fail(error, LQC_ERROR_ARENA_TOO_SMALL, "the session needs more than %zu bytes of memory", bump->bytes);
}

lqc_status lqc_bump_take(lqc_bump *bump, size_t count, size_t element_bytes, void **memory, lqc_error *error) {
  size_t bytes, end;
  if (!lqc_multiply_size(count, element_bytes, &bytes) || !lqc_align_size(bytes, LQC_ALIGNMENT, &bytes) ||
      !lqc_add_size(bump->used, bytes, &end) || end > PTRDIFF_MAX) {
    return lqc_fail(error, LQC_ERROR_UNSUPPORTED, "the session needs more memory than this machine can address");
  }
  if (bump->base && end > bump->bytes) {
    return too_small(bump, error);
  }
  *memory = bump->base ? bump->base + bump->used : NULL;
  bump->used = end;
  return LQC_OK;
}

lqc_status lqc_spend_work(const lqc_prepare *prepare, const lqc_op *op, uint64_t steps) {
  if (steps <= *prepare->work_left) {
    *prepare->work_left -= steps;
    return LQC_OK;
  }
  return lqc_fail(prepare->error, LQC_ERROR_UNSUPPORTED,
                  "op '%s' (%s): preparing the model takes more work than a file of %u bytes is given", op->name,
                  lqc_op_kind_name(op->kind), prepare->view->buffer.size);
}

lqc_status lqc_expect_dtype(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *tensor, const char *role,
                            unsigned mask) {
  if (mask & LQC_MASK(tensor->info.dtype)) {
    return LQC_OK;
  }
  const char *accepted[4] = {"", "", "", ""};
  uint32_t count = 0;
  for (int dtype = 0; dtype < LQC_DTYPE_COUNT && count < 4; ++dtype) {
    if (mask & LQC_MASK(dtype)) {
      accepted[count++] = lqc_dtype_name((lqc_dtype)dtype);
    }
  }
  return lqc_fail(prepare->error, LQC_ERROR_UNSUPPORTED, "op '%s' (%s): %s '%s' is %s; accepted: %s%s%s%s%s%s%s",
                  op->name, lqc_op_kind_name(op->kind), role, tensor->info.name, lqc_dtype_name(tensor->info.dtype),
                  accepted[0], count > 1 ? ", " : "", accepted[1], count > 2 ? ", " : "", accepted[2],
                  count > 3 ? ", " : "", accepted[3]);
}

lqc_status lqc_expect_same_channels(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                    const lqc_tensor *output) {
  if (input->channels == output->channels) {
    return LQC_OK;
  }
  return lqc_fail(prepare->error, LQC_ERROR_MALFORMED, "op '%s' (%s) makes %u channels of %u; accepted is as many",
                  op->name, lqc_op_kind_name(op->kind), output->channels, input->channels);
}

lqc_status lqc_expect_same_shape(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                 const lqc_tensor *output) {
  if (input->height != output->height || input->width != output->width) {
    return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                    "op '%s' (%s) makes %u x %u pixels of %u x %u; accepted is as many", op->name,
                    lqc_op_kind_name(op->kind), output->height, output->width, input->height, input->width);
  }
  return lqc_expect_same_channels(prepare, op, input, output);
}

lqc_status lqc_expect_groups(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                             const lqc_tensor *output) {
  if (input->channels % op->groups == 0 && output->channels % op->groups == 0) {
    return LQC_OK;
  }
  return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                  "op '%s' (%s): groups is %u with %u input and %u output channels; accepted are common divisors",
                  op->name, lqc_op_kind_name(op->kind), op->groups, input->channels, output->channels);
}

int lqc_fraction_of(const lqc_tensor *tensor, uint32_t c) {
  return tensor->fraction_count == 0 ? 0 : tensor->fraction_bits[tensor->fraction_count == 1 ? 0 : c];
}

lqc_status lqc_expect_same_fractions(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                     const lqc_tensor *output) {
  /* Of two formats by channel, one repeats the other: an image [h, w, c] becomes [h * w * c]. */
  uint32_t in = input->channels, out = output->channels;
  bool same = input->fraction_count <= 1 || output->fraction_count <= 1 || in % out == 0 || out % in == 0;
  uint32_t count = input->fraction_count > output->fraction_count ? input->fraction_count : output->fraction_count;
  for (uint32_t c = 0; same && c < count; ++c) {
    same = lqc_fraction_of(input, c % in) == lqc_fraction_of(output, c % out);
  }
  if (same) {
    return LQC_OK;
  }
  return lqc_fail(prepare->error, LQC_ERROR_MALFORMED, "op '%s' (%s): '%s' and '%s' must have the same fraction_bits",
                  op->name, lqc_op_kind_name(op->kind), input->info.name, output->info.name);
}

static lqc_status expect_taps(const lqc_prepare *prepare, const lqc_op *op, const lqc_axis *axis, const char *name) {
  for (lqc_span span = {0, 0, {0, 0}}; span.end < axis->out;) {
    span = lqc_axis_span(axis, span.end);
    if (span.taps.first == span.taps.end) {
      return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                      "op '%s' (%s): the window of output %s %u lies outside the image", op->name,
                      lqc_op_kind_name(op->kind), name, span.first);
    }
  }
  return LQC_OK;
}

lqc_status lqc_expect_pool_window(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                  const lqc_tensor *output) {
  lqc_axis rows = lqc_row_axis(&op->window, input, output), columns = lqc_column_axis(&op->window, input, output);
  LQC_TRY(lqc_expect_same_channels(prepare, op, input, output));
  LQC_TRY(expect_taps(prepare, op, &rows, "row"));
  return expect_taps(prepare, op, &columns, "column");
}

static lqc_status fail_constant(const lqc_prepare *prepare, const lqc_op *op, const char *field,
                                const lqc_constant *constant, const char *problem) {
  return lqc_fail(prepare->error, LQC_ERROR_MALFORMED, "op '%s' (%s): %s (constant %u) %s", op->name,
                  lqc_op_kind_name(op->kind), field, constant->index, problem);
}

/* Whether float32 values hold a NaN, or an infinity where that is not accepted. */
static bool has_bad_float(const lqc_constant *constant, bool infinities) {
  for (size_t i = 0; i < constant->bytes / 4; ++i) {
    uint32_t magnitude = lqc_float_bits(constant->data, i) & 0x7fffffffu;
    if (magnitude > 0x7f800000u || (magnitude == 0x7f800000u && !infinities)) {
      return true;
    }
  }
  return false;
}

static bool has_tail_bits(const lqc_constant *constant) {
  uint32_t used = 1; /* bits of the last word */
  for (uint32_t i = 0; i < constant->rank; ++i) {
    used = used * (constant->shape[i] % 64) % 64;
  }
  const uint64_t *words = constant->data;
  return used != 0 && words[constant->bytes / 8 - 1] >> used != 0;
}

lqc_status lqc_expect_constant(const lqc_prepare *prepare, const lqc_op *op, const char *field, int32_t index,
                               unsigned mask, const uint32_t *shape, uint32_t rank, bool infinities,
                               lqc_constant *constant) {
  *constant = (lqc_constant){0};
  if (index == LQC_NO_CONSTANT) {
    return LQC_OK;
  }
  LQC_TRY(lqc_read_constant(prepare->view, (uint32_t)index, constant, prepare->error));
  LQC_TRY(lqc_spend_work(prepare, op, constant->bytes));
  if (!(mask & LQC_MASK(constant->dtype))) {
    return lqc_fail(prepare->error, LQC_ERROR_MALFORMED, "op '%s' (%s): %s (constant %u) has the wrong dtype %s",
                    op->name, lqc_op_kind_name(op->kind), field, constant->index, lqc_dtype_name(constant->dtype));
  }
  if (constant->rank != rank) {
    return lqc_fail(prepare->error, LQC_ERROR_MALFORMED, "op '%s' (%s): %s (constant %u) has %u axes instead of %u",
                    op->name, lqc_op_kind_name(op->kind), field, constant->index, constant->rank, rank);
  }
  for (uint32_t i = 0; i < rank; ++i) {
    if (constant->shape[i] != shape[i]) {
      return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                      "op '%s' (%s): axis %u of %s (constant %u) has %u elements instead of %u", op->name,
                      lqc_op_kind_name(op->kind), i, field, constant->index, constant->shape[i], shape[i]);
    }
  }
  if (constant->dtype == LQC_FLOAT32 && has_bad_float(constant, infinities)) {
    return fail_constant(prepare, op, field, constant, infinities ? "holds a NaN" : "holds a NaN or an infinity");
  }
  if (constant->dtype == LQC_BIT && has_tail_bits(constant)) {
    return fail_constant(prepare, op, field, constant, "has bits set above the last one");
  }
  return LQC_OK;
}

lqc_status lqc_pad_floats(lqc_prepare *prepare, const lqc_constant *constant, uint32_t channels, const float **padded) {
  size_t count = ((size_t)channels + LQC_SUMS_MULTIPLE - 1) / LQC_SUMS_MULTIPLE * LQC_SUMS_MULTIPLE;
  void *memory = NULL;
  *padded = NULL;
  if (constant->data == NULL) {
    return LQC_OK;
  }
  LQC_TRY(lqc_bump_take(prepare->bump, count, sizeof(float), &memory, prepare->error));
  if (memory) {
    memset(memory, 0, count * sizeof(float));
    memcpy(memory, constant->data, channels * sizeof(float));
  }
  *padded = memory;
  return LQC_OK;
}

void lqc_need_thread_scratch(lqc_prepare *prepare, size_t bytes) {
  if (bytes > prepare->thread_scratch) {
    prepare->thread_scratch = bytes;
  }
}

lqc_status lqc_take_scratch(lqc_prepare *prepare, size_t bytes, void **memory) {
  lqc_bump *bump = prepare->bump;
  size_t aligned, end = bump->bytes - bump->bytes % LQC_ALIGNMENT;
  if (!lqc_align_size(bytes, LQC_ALIGNMENT, &aligned)) {
    aligned = PTRDIFF_MAX; /* refused when the session's memory is added up */
  }
  if (aligned > prepare->scratch) {
    prepare->scratch = aligned;
  }
  *memory = NULL;
  if (bump->base == NULL) {
    return LQC_OK;
  }
  if (bump->used > end || aligned > end - bump->used) {
    return too_small(bump, prepare->error);
  }
  *memory = bump->base + (end - aligned);
  bump->bytes = end - aligned;
  return LQC_OK;
}

lqc_status lqc_keep_state(lqc_prepare *prepare, lqc_node *node, const void *state, size_t bytes) {
  void *memory = NULL;
  LQC_TRY(lqc_bump_take(prepare->bump, 1, bytes, &memory, prepare->error));
  if (memory) {
    memcpy(memory, state, bytes);
  }
  node->state = memory;
  return LQC_OK;
}

uint64_t lqc_count_macs(const lqc_window *window, const lqc_tensor *output, uint32_t in_channels) {
  const uint64_t factors[] = {window->kernel_h, window->kernel_w, in_channels,
                              output->height,   output->width,    output->channels};
  uint64_t product = 1;
  for (size_t i = 0; i < sizeof(factors) / sizeof(factors[0]); ++i) {
    if (__builtin_mul_overflow(product, factors[i], &product)) {
      return UINT64_MAX;
    }
  }
  return product;
}
