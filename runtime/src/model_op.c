/* Decoding the ops of a model file. */
#include "model.h"

const char *lqc_op_kind_name(lqc_op_kind kind) {
  static const char *const names[] = {"NONE",
#define LQC_OP_NAME(NAME, name) #name,
                                      LQC_OP_LIST(LQC_OP_NAME)
#undef LQC_OP_NAME
  };
  return (unsigned)kind < LQC_OP_KIND_COUNT ? names[kind] : "unknown";
}

static lqc_status fail_value(const lqc_table *t, const lqc_op *op, lqc_field field, long long value, long long lowest,
                             long long highest) {
  return lqc_fail(t->error, LQC_ERROR_UNSUPPORTED, "op '%s' (%s): %s is %lld; accepted are %lld to %lld", op->name,
                  t->type, field.name, value, lowest, highest);
}

static lqc_status read_window(const lqc_table *t, lqc_op *op) {
  static const lqc_field window = {0, "window"};
  static const lqc_field names[8] = {{0, "kernel_h"},   {0, "kernel_w"},   {0, "stride_h"}, {0, "stride_w"},
                                     {0, "dilation_h"}, {0, "dilation_w"}, {0, "pad_top"},  {0, "pad_left"}};
  uint32_t values[8];
  _Static_assert(sizeof(values) == sizeof(op->window), "Window of the schema");
  LQC_TRY(lqc_table_struct(t, window, values, sizeof(values)));
  for (uint32_t i = 0; i < 8; ++i) {
    uint32_t lowest = i < 6 ? 1 : 0;
    if (values[i] < lowest || values[i] > LQC_MAX_WINDOW) {
      return fail_value(t, op, names[i], values[i], lowest, LQC_MAX_WINDOW);
    }
  }
  op->window = (lqc_window){values[0], values[1], values[2], values[3], values[4], values[5], values[6], values[7]};
  return LQC_OK;
}

static lqc_status read_constant_index(const lqc_table *t, const lqc_op *op, lqc_field field, uint32_t constants,
                                      int32_t absent, int32_t *index) {
  int32_t value = absent;
  LQC_TRY(lqc_table_scalar(t, field, &value, 4));
  if (value < absent || (value >= 0 && (uint32_t)value >= constants)) {
    return lqc_fail(t->error, LQC_ERROR_MALFORMED, "op '%s' (%s): %s is constant %lld; the file has %u constants",
                    op->name, t->type, field.name, (long long)value, constants);
  }
  *index = value;
  return LQC_OK;
}

/* An enum or number of one byte, signed where negative values are accepted. */
static lqc_status read_byte(const lqc_table *t, const lqc_op *op, lqc_field field, int lowest, int highest,
                            int8_t *value) {
  int8_t byte = 0;
  LQC_TRY(lqc_table_scalar(t, field, &byte, 1));
  int number = lowest < 0 ? byte : (uint8_t)byte;
  if (number < lowest || number > highest) {
    return fail_value(t, op, field, number, lowest, highest);
  }
  *value = byte;
  return LQC_OK;
}

static lqc_status read_activation(const lqc_table *t, uint16_t slot, lqc_op *op) {
  int8_t value = 0;
  LQC_TRY(read_byte(t, op, (lqc_field){slot, "activation"}, 0, LQC_ACTIVATION_COUNT - 1, &value));
  op->activation = (lqc_activation)value;
  return LQC_OK;
}

static lqc_status read_binary_conv2d(const lqc_table *t, uint32_t constants, lqc_op *op) {
  static const lqc_field groups = {1, "groups"}, clip_limit = {4, "clip_limit"};
  int8_t epilogue = 0;
  LQC_TRY(read_window(t, op));
  LQC_TRY(lqc_table_scalar(t, groups, &op->groups, 4));
  if (op->groups == 0 || op->groups > LQC_MAX_DIMENSION) {
    return fail_value(t, op, groups, op->groups, 1, LQC_MAX_DIMENSION);
  }
  LQC_TRY(read_byte(t, op, (lqc_field){2, "pad_value"}, -1, 1, &op->pad_value));
  LQC_TRY(read_constant_index(t, op, (lqc_field){3, "weights"}, constants, 0, &op->weights));
  LQC_TRY(lqc_table_scalar(t, clip_limit, &op->clip_limit, 4));
  if (op->clip_limit > INT32_MAX) {
    return fail_value(t, op, clip_limit, op->clip_limit, 0, INT32_MAX);
  }
  LQC_TRY(read_byte(t, op, (lqc_field){5, "step_log2"}, -6, 14, &op->step_log2));
  LQC_TRY(read_byte(t, op, (lqc_field){6, "epilogue"}, 0, LQC_EPILOGUE_COUNT - 1, &epilogue));
  op->epilogue = (lqc_epilogue)epilogue;
  LQC_TRY(read_constant_index(t, op, (lqc_field){7, "thresholds"}, constants, LQC_NO_CONSTANT, &op->thresholds));
  LQC_TRY(read_constant_index(t, op, (lqc_field){8, "invert"}, constants, LQC_NO_CONSTANT, &op->invert));
  LQC_TRY(read_constant_index(t, op, (lqc_field){9, "multiplier"}, constants, LQC_NO_CONSTANT, &op->multiplier));
  return read_constant_index(t, op, (lqc_field){10, "offset"}, constants, LQC_NO_CONSTANT, &op->offset);
}

static lqc_status read_params(const lqc_table *t, uint32_t constants, lqc_op *op) {
  switch (op->kind) {
  case LQC_OP_BINARY_CONV_2D:
    return read_binary_conv2d(t, constants, op);
  case LQC_OP_BIT_MAX_POOL_2D:
    LQC_TRY(read_window(t, op));
    return read_constant_index(t, op, (lqc_field){1, "invert"}, constants, LQC_NO_CONSTANT, &op->invert);
  case LQC_OP_BITPACK:
    LQC_TRY(read_constant_index(t, op, (lqc_field){0, "thresholds"}, constants, LQC_NO_CONSTANT, &op->thresholds));
    return read_constant_index(t, op, (lqc_field){1, "invert"}, constants, LQC_NO_CONSTANT, &op->invert);
  case LQC_OP_CONV_2D:
    LQC_TRY(read_window(t, op));
    LQC_TRY(read_constant_index(t, op, (lqc_field){1, "weights"}, constants, 0, &op->weights));
    LQC_TRY(read_constant_index(t, op, (lqc_field){2, "bias"}, constants, LQC_NO_CONSTANT, &op->bias));
    return read_activation(t, 3, op);
  case LQC_OP_MAX_POOL_2D:
  case LQC_OP_AVERAGE_POOL_2D:
    return read_window(t, op);
  case LQC_OP_AFFINE:
    LQC_TRY(read_constant_index(t, op, (lqc_field){0, "multiplier"}, constants, LQC_NO_CONSTANT, &op->multiplier));
    LQC_TRY(read_constant_index(t, op, (lqc_field){1, "offset"}, constants, LQC_NO_CONSTANT, &op->offset));
    return read_activation(t, 2, op);
  default: /* Unpack, Softmax and Reshape have no fields */
    return LQC_OK;
  }
}

/* The one tensor of `field`: every op of this format version reads one tensor and writes one. */
static lqc_status read_tensor_index(const lqc_table *t, lqc_field field, const lqc_op *op, uint32_t tensors,
                                    uint32_t *tensor) {
  lqc_vector indices;
  LQC_TRY(lqc_table_vector(t, field, 4, true, &indices));
  if (indices.count != 1) {
    return lqc_fail(t->error, LQC_ERROR_UNSUPPORTED, "op '%s' (%s) has %u %s; accepted is 1", op->name,
                    lqc_op_kind_name(op->kind), indices.count, field.name);
  }
  *tensor = lqc_vector_u32(&indices, 0);
  if (*tensor >= tensors) {
    return lqc_fail(t->error, LQC_ERROR_MALFORMED, "op '%s' (%s): %s names tensor %u; the file has %u tensors",
                    op->name, lqc_op_kind_name(op->kind), field.name, *tensor, tensors);
  }
  return LQC_OK;
}

lqc_status lqc_read_op(const lqc_model_view *view, uint32_t index, lqc_op *op, lqc_error *error) {
  static const lqc_field name = {0, "name"}, inputs = {1, "inputs"}, outputs = {2, "outputs"},
                         params_type = {3, "params_type"}, params = {4, "params"};
  lqc_table t, child;
  uint8_t kind = LQC_OP_NONE;
  *op = (lqc_op){.index = index,
                 .groups = 1,
                 .weights = LQC_NO_CONSTANT,
                 .thresholds = LQC_NO_CONSTANT,
                 .invert = LQC_NO_CONSTANT,
                 .multiplier = LQC_NO_CONSTANT,
                 .offset = LQC_NO_CONSTANT,
                 .bias = LQC_NO_CONSTANT};
  LQC_TRY(lqc_vector_table(view->buffer, &view->ops, index, "Op", &t, error));
  LQC_TRY(lqc_table_string(&t, name, true, &op->name));
  LQC_TRY(lqc_table_scalar(&t, params_type, &kind, 1));
  if (kind == LQC_OP_NONE || kind >= LQC_OP_KIND_COUNT) {
    return lqc_fail(error, LQC_ERROR_UNSUPPORTED, "op '%s' has type %u; known are 1 to %d", op->name, (unsigned)kind,
                    (int)LQC_OP_KIND_COUNT - 1);
  }
  op->kind = (lqc_op_kind)kind;
  LQC_TRY(read_tensor_index(&t, inputs, op, view->tensors.count, &op->input));
  LQC_TRY(read_tensor_index(&t, outputs, op, view->tensors.count, &op->output));
  LQC_TRY(lqc_table_table(&t, params, lqc_op_kind_name(op->kind), &child));
  return read_params(&child, view->constants.count, op);
}
