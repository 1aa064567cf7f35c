/* Decoding the ops of a model file. */
#include <math.h>

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
  lqc_field field = {slot, "activation"};
  float ends[2] = {-INFINITY, INFINITY};
  _Static_assert(sizeof(ends) == sizeof(op->activation), "Activation of the schema");
  if (lqc_table_has(t, field)) {
    LQC_TRY(lqc_table_struct(t, field, ends, sizeof(ends)));
  }
  if (!(ends[0] <= ends[1] && ends[0] < INFINITY && ends[1] > -INFINITY)) {
    return lqc_fail(t->error, LQC_ERROR_MALFORMED,
                    "op '%s' (%s): its activation has ends that no finite number lies between; accepted are a low end "
                    "and a high one",
                    op->name, t->type);
  }
  op->activation = (lqc_activation){ends[0], ends[1]};
  return LQC_OK;
}

/* A number from 1 to LQC_MAX_DIMENSION. */
static lqc_status read_count(const lqc_table *t, const lqc_op *op, lqc_field field, uint32_t *count) {
  LQC_TRY(lqc_table_scalar(t, field, count, 4));
  return *count == 0 || *count > LQC_MAX_DIMENSION ? fail_value(t, op, field, *count, 1, LQC_MAX_DIMENSION) : LQC_OK;
}

static lqc_status read_begin(const lqc_table *t, const lqc_op *op, lqc_field field, int32_t *begin) {
  const int32_t limit = (int32_t)LQC_MAX_DIMENSION;
  LQC_TRY(lqc_table_scalar(t, field, begin, 4));
  return *begin < -limit || *begin > limit ? fail_value(t, op, field, *begin, -limit, limit) : LQC_OK;
}

/* A constant index that only one kind of step takes. */
static lqc_status read_step_constant(const lqc_table *t, const lqc_op *op, lqc_field field, uint32_t constants,
                                     bool belongs, int32_t *index) {
  LQC_TRY(read_constant_index(t, op, field, constants, LQC_NO_CONSTANT, index));
  if (*index != LQC_NO_CONSTANT && !belongs) {
    return lqc_fail(t->error, LQC_ERROR_MALFORMED, "op '%s' (%s): step %u has %s, which its kind does not take",
                    op->name, lqc_op_kind_name(op->kind), t->index, field.name);
  }
  return LQC_OK;
}

static lqc_status read_step(const lqc_table *t, uint32_t constants, const lqc_op *op, lqc_step *step) {
  int8_t kind = 0;
  *step = (lqc_step){.operand = 0};
  LQC_TRY(read_byte(t, op, (lqc_field){0, "kind"}, 0, LQC_STEP_COUNT - 1, &kind));
  step->kind = (lqc_step_kind)kind;
  bool affine = step->kind == LQC_STEP_AFFINE, add = step->kind == LQC_STEP_ADD;
  LQC_TRY(read_step_constant(t, op, (lqc_field){1, "multiplier"}, constants, affine, &step->multiplier));
  LQC_TRY(read_step_constant(t, op, (lqc_field){2, "offset"}, constants, affine, &step->offset));
  LQC_TRY(lqc_table_scalar(t, (lqc_field){3, "operand"}, &step->operand, 4));
  LQC_TRY(read_step_constant(t, op, (lqc_field){4, "shift"}, constants, add, &step->shift));
  LQC_TRY(read_step_constant(t, op, (lqc_field){5, "operand_shift"}, constants, add, &step->operand_shift));
  if (affine && step->multiplier == LQC_NO_CONSTANT) {
    return lqc_fail(t->error, LQC_ERROR_MALFORMED, "op '%s' (%s): step %u, Affine, has no multiplier", op->name,
                    lqc_op_kind_name(op->kind), t->index);
  }
  if (add ? step->operand == 0 || step->operand >= op->input_count : step->operand != 0) {
    return lqc_fail(t->error, LQC_ERROR_MALFORMED,
                    "op '%s' (%s): step %u has operand %u of %u inputs; accepted are inputs from 1 on for Add, 0 for "
                    "others",
                    op->name, lqc_op_kind_name(op->kind), t->index, step->operand, op->input_count);
  }
  return LQC_OK;
}

static lqc_status read_fixed_point(const lqc_table *parent, lqc_field field, uint32_t constants, lqc_op *op) {
  lqc_fixed_point *fixed = &op->fixed_point;
  lqc_table t, child;
  lqc_vector steps, stores;
  LQC_TRY(lqc_table_table(parent, field, "FixedPoint", &t));
  LQC_TRY(lqc_table_vector(&t, (lqc_field){0, "steps"}, 4, false, &steps));
  LQC_TRY(lqc_table_vector(&t, (lqc_field){1, "stores"}, 4, true, &stores));
  if (steps.count > LQC_MAX_STEPS) {
    return lqc_fail(t.error, LQC_ERROR_UNSUPPORTED, "op '%s' (%s) has %u fixed-point steps; accepted are up to %u",
                    op->name, lqc_op_kind_name(op->kind), steps.count, LQC_MAX_STEPS);
  }
  if (stores.count != op->output_count) {
    return lqc_fail(t.error, LQC_ERROR_MALFORMED, "op '%s' (%s) has %u stores and %u outputs; accepted is as many",
                    op->name, lqc_op_kind_name(op->kind), stores.count, op->output_count);
  }
  fixed->step_count = steps.count;
  fixed->store_count = stores.count;
  for (uint32_t i = 0; i < steps.count; ++i) {
    LQC_TRY(lqc_vector_table(t.buffer, &steps, i, "Step", &child, t.error));
    LQC_TRY(read_step(&child, constants, op, &fixed->steps[i]));
  }
  for (uint32_t i = 0; i < stores.count; ++i) {
    lqc_store *store = &fixed->stores[i];
    LQC_TRY(lqc_vector_table(t.buffer, &stores, i, "Store", &child, t.error));
    LQC_TRY(read_constant_index(&child, op, (lqc_field){0, "shift"}, constants, LQC_NO_CONSTANT, &store->shift));
    LQC_TRY(
        read_constant_index(&child, op, (lqc_field){1, "thresholds"}, constants, LQC_NO_CONSTANT, &store->thresholds));
    LQC_TRY(read_constant_index(&child, op, (lqc_field){2, "invert"}, constants, LQC_NO_CONSTANT, &store->invert));
  }
  return LQC_OK;
}

static lqc_status read_binary_conv2d(const lqc_table *t, uint32_t constants, lqc_op *op) {
  static const lqc_field clip_limit = {4, "clip_limit"}, fixed_point = {11, "fixed_point"};
  int8_t epilogue = 0;
  LQC_TRY(read_window(t, op));
  LQC_TRY(read_count(t, op, (lqc_field){1, "groups"}, &op->groups));
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
  LQC_TRY(read_constant_index(t, op, (lqc_field){10, "offset"}, constants, LQC_NO_CONSTANT, &op->offset));
  if (op->epilogue == LQC_FIXED_POINT) {
    return read_fixed_point(t, fixed_point, constants, op);
  }
  if (lqc_table_has(t, fixed_point)) {
    return lqc_fail(t->error, LQC_ERROR_MALFORMED, "op '%s' (%s): fixed_point is given, but the epilogue is another",
                    op->name, t->type);
  }
  return LQC_OK;
}

static lqc_status read_int8_conv2d(const lqc_table *t, uint32_t constants, lqc_op *op) {
  LQC_TRY(read_window(t, op));
  LQC_TRY(read_count(t, op, (lqc_field){1, "groups"}, &op->groups));
  LQC_TRY(read_constant_index(t, op, (lqc_field){2, "weights"}, constants, 0, &op->weights));
  LQC_TRY(read_constant_index(t, op, (lqc_field){3, "bias"}, constants, LQC_NO_CONSTANT, &op->bias));
  return read_fixed_point(t, (lqc_field){4, "fixed_point"}, constants, op);
}

static lqc_status read_conv2d(const lqc_table *t, uint32_t constants, lqc_op *op) {
  LQC_TRY(read_window(t, op));
  LQC_TRY(read_constant_index(t, op, (lqc_field){1, "weights"}, constants, 0, &op->weights));
  LQC_TRY(read_constant_index(t, op, (lqc_field){2, "bias"}, constants, LQC_NO_CONSTANT, &op->bias));
  LQC_TRY(read_activation(t, 3, op));
  return read_count(t, op, (lqc_field){4, "groups"}, &op->groups);
}

static lqc_status read_slice(const lqc_table *t, lqc_op *op) {
  LQC_TRY(read_begin(t, op, (lqc_field){0, "begin_h"}, &op->begin_h));
  LQC_TRY(read_begin(t, op, (lqc_field){1, "begin_w"}, &op->begin_w));
  LQC_TRY(read_begin(t, op, (lqc_field){2, "begin_c"}, &op->begin_c));
  LQC_TRY(lqc_table_scalar(t, (lqc_field){3, "value"}, &op->value, 4));
  if (!isfinite(op->value)) {
    return lqc_fail(t->error, LQC_ERROR_MALFORMED, "op '%s' (%s): value is not a finite number", op->name, t->type);
  }
  return LQC_OK;
}

/* An enum in the first field. */
static lqc_status read_kind(const lqc_table *t, const lqc_op *op, int count, int8_t *kind) {
  return read_byte(t, op, (lqc_field){0, "kind"}, 0, count - 1, kind);
}

static lqc_status read_params(const lqc_table *t, uint32_t constants, lqc_op *op) {
  int8_t kind = 0;
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
    return read_conv2d(t, constants, op);
  case LQC_OP_MAX_POOL_2D:
  case LQC_OP_AVERAGE_POOL_2D:
    return read_window(t, op);
  case LQC_OP_AFFINE:
    LQC_TRY(read_constant_index(t, op, (lqc_field){0, "multiplier"}, constants, LQC_NO_CONSTANT, &op->multiplier));
    LQC_TRY(read_constant_index(t, op, (lqc_field){1, "offset"}, constants, LQC_NO_CONSTANT, &op->offset));
    return read_activation(t, 2, op);
  case LQC_OP_INT8_CONV_2D:
    return read_int8_conv2d(t, constants, op);
  case LQC_OP_ELEMENTWISE:
    return read_fixed_point(t, (lqc_field){0, "fixed_point"}, constants, op);
  case LQC_OP_ARITHMETIC:
    LQC_TRY(read_kind(t, op, LQC_ARITHMETIC_COUNT, &kind));
    op->arithmetic = (lqc_arithmetic)kind;
    return LQC_OK;
  case LQC_OP_PRELU:
    return read_constant_index(t, op, (lqc_field){0, "slope"}, constants, 0, &op->slope);
  case LQC_OP_FUNCTION:
    LQC_TRY(read_kind(t, op, LQC_FUNCTION_COUNT, &kind));
    op->function = (lqc_function)kind;
    return LQC_OK;
  case LQC_OP_SLICE:
    return read_slice(t, op);
  case LQC_OP_DEPTH_TO_SPACE:
    LQC_TRY(read_count(t, op, (lqc_field){0, "block_h"}, &op->block_h));
    return read_count(t, op, (lqc_field){1, "block_w"}, &op->block_w);
  default: /* the others have no fields */
    return LQC_OK;
  }
}

/* The tensors of `field`, at least 1 and at most `limit`. */
static lqc_status read_tensor_indices(const lqc_table *t, lqc_field field, const lqc_op *op, uint32_t tensors,
                                      uint32_t limit, uint32_t *list, uint32_t *count) {
  lqc_vector indices;
  LQC_TRY(lqc_table_vector(t, field, 4, true, &indices));
  if (indices.count == 0 || indices.count > limit) {
    return lqc_fail(t->error, LQC_ERROR_UNSUPPORTED, "op '%s' (%s) has %u %s; accepted %s%u", op->name,
                    lqc_op_kind_name(op->kind), indices.count, field.name, limit == 1 ? "is " : "are 1 to ", limit);
  }
  for (uint32_t i = 0; i < indices.count; ++i) {
    list[i] = lqc_vector_u32(&indices, i);
    if (list[i] >= tensors) {
      return lqc_fail(t->error, LQC_ERROR_MALFORMED, "op '%s' (%s): %s names tensor %u; the file has %u tensors",
                      op->name, lqc_op_kind_name(op->kind), field.name, list[i], tensors);
    }
  }
  *count = indices.count;
  return LQC_OK;
}

static bool has_fixed_point(lqc_op_kind kind) {
  return kind == LQC_OP_BINARY_CONV_2D || kind == LQC_OP_INT8_CONV_2D || kind == LQC_OP_ELEMENTWISE;
}

static uint32_t most_inputs(lqc_op_kind kind) {
  return has_fixed_point(kind) || kind == LQC_OP_CONCATENATE ? LQC_MAX_INPUTS : kind == LQC_OP_ARITHMETIC ? 2 : 1;
}

static uint32_t most_outputs(lqc_op_kind kind) {
  return has_fixed_point(kind) ? LQC_MAX_OUTPUTS : kind == LQC_OP_BITPACK ? LQC_MAX_PLANES : 1;
}

lqc_status lqc_read_op(const lqc_model_view *view, uint32_t index, lqc_op *op, lqc_error *error) {
  static const lqc_field name = {0, "name"}, inputs = {1, "inputs"}, outputs = {2, "outputs"},
                         params_type = {3, "params_type"}, params = {4, "params"};
  lqc_table t, child;
  uint8_t kind = LQC_OP_NONE;
  *op = (lqc_op){.index = index,
                 .groups = 1,
                 .activation = {-INFINITY, INFINITY},
                 .block_h = 1,
                 .block_w = 1,
                 .weights = LQC_NO_CONSTANT,
                 .thresholds = LQC_NO_CONSTANT,
                 .invert = LQC_NO_CONSTANT,
                 .multiplier = LQC_NO_CONSTANT,
                 .offset = LQC_NO_CONSTANT,
                 .bias = LQC_NO_CONSTANT,
                 .slope = LQC_NO_CONSTANT};
  LQC_TRY(lqc_vector_table(view->buffer, &view->ops, index, "Op", &t, error));
  LQC_TRY(lqc_table_string(&t, name, true, &op->name));
  LQC_TRY(lqc_table_scalar(&t, params_type, &kind, 1));
  if (kind == LQC_OP_NONE || kind >= LQC_OP_KIND_COUNT) {
    return lqc_fail(error, LQC_ERROR_UNSUPPORTED, "op '%s' has type %u; known are 1 to %d", op->name, (unsigned)kind,
                    (int)LQC_OP_KIND_COUNT - 1);
  }
  op->kind = (lqc_op_kind)kind;
  LQC_TRY(
      read_tensor_indices(&t, inputs, op, view->tensors.count, most_inputs(op->kind), op->inputs, &op->input_count));
  LQC_TRY(read_tensor_indices(&t, outputs, op, view->tensors.count, most_outputs(op->kind), op->outputs,
                              &op->output_count));
  LQC_TRY(lqc_table_table(&t, params, lqc_op_kind_name(op->kind), &child));
  return read_params(&child, view->constants.count, op);
}
