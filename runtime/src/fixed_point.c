/* Preparing and running a FixedPoint. */
#include "fixed_point.h"

#include <string.h>

#define FAIL(prepare, op, status, format, ...) \
  lqc_fail((prepare)->error, status, "op '%s' (%s): " format, (op)->name, lqc_op_kind_name((op)->kind), __VA_ARGS__)

#define MAX_SHIFT 62
/* A left shift by as much saturates every integer but 0. */
#define MAX_LEFT 16

_Static_assert(INT16_MAX *((int64_t)1 << MAX_LEFT) <= INT32_MAX, "a clipped lane times `left` must fit 32 bits");
_Static_assert((1 << MAX_LEFT) > INT16_MAX, "a left shift by MAX_LEFT must saturate");

/* ---- Checking --------------------------------------------------------------------------------------------------- */

static lqc_status expect_shape(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *tensor,
                               const lqc_tensor *output) {
  if (tensor->height == output->height && tensor->width == output->width && tensor->channels == output->channels) {
    return LQC_OK;
  }
  return FAIL(prepare, op, LQC_ERROR_MALFORMED, "'%s' is [%u, %u, %u], '%s' [%u, %u, %u]; accepted is the same shape",
              tensor->info.name, tensor->height, tensor->width, tensor->channels, output->info.name, output->height,
              output->width, output->channels);
}

static lqc_status check_tensors(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *inputs,
                                const lqc_tensor *outputs) {
  unsigned operands = LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16);
  for (uint32_t i = 1; i < op->input_count; ++i) {
    LQC_TRY(lqc_expect_dtype(prepare, op, &inputs[i], "input", operands));
    LQC_TRY(expect_shape(prepare, op, &inputs[i], outputs));
  }
  for (uint32_t i = 0; i < op->output_count; ++i) {
    LQC_TRY(lqc_expect_dtype(prepare, op, &outputs[i], "output", operands | LQC_MASK(LQC_FLOAT32) | LQC_MASK(LQC_BIT)));
    LQC_TRY(expect_shape(prepare, op, &outputs[i], outputs));
  }
  return LQC_OK;
}

/* Int8 [channels] of lowest to MAX_SHIFT. */
static lqc_status read_shifts(const lqc_prepare *prepare, const lqc_op *op, const char *field, int32_t index,
                              const uint32_t *channels, int lowest, lqc_constant *constant) {
  LQC_TRY(lqc_expect_constant(prepare, op, field, index, LQC_MASK(LQC_INT8), channels, 1, false, constant));
  const int8_t *shifts = constant->data;
  for (uint32_t c = 0; shifts && c < *channels; ++c) {
    if (shifts[c] < lowest || shifts[c] > MAX_SHIFT) {
      return FAIL(prepare, op, LQC_ERROR_MALFORMED, "%s[%u] (constant %u) is %d; accepted are %d to %d", field, c,
                  constant->index, (int)shifts[c], lowest, MAX_SHIFT);
    }
  }
  return LQC_OK;
}

static lqc_status read_step_values(const lqc_prepare *prepare, const lqc_op *op, const lqc_step *step,
                                   const lqc_tensor *inputs, const uint32_t *channels, lqc_step_values *values) {
  static const lqc_range int8_range = {INT8_MIN, INT8_MAX}, int16_range = {INT16_MIN, INT16_MAX};
  LQC_TRY(lqc_expect_constant(prepare, op, "multiplier", step->multiplier, LQC_MASK(LQC_INT32), channels, 1, false,
                              &values->multiplier));
  LQC_TRY(lqc_expect_constant(prepare, op, "offset", step->offset, LQC_MASK(LQC_INT64), channels, 1, false,
                              &values->offset));
  LQC_TRY(read_shifts(prepare, op, "shift", step->shift, channels, 0, &values->shift));
  LQC_TRY(read_shifts(prepare, op, "operand_shift", step->operand_shift, channels, 0, &values->operand_shift));
  values->operand = inputs[step->operand].info.dtype == LQC_INT8 ? int8_range : int16_range;
  return LQC_OK;
}

static lqc_status read_store_values(const lqc_prepare *prepare, const lqc_op *op, const lqc_store *store,
                                    const lqc_tensor *output, lqc_store_values *values) {
  bool bits = output->info.dtype == LQC_BIT;
  if (bits ? store->shift != LQC_NO_CONSTANT
           : store->thresholds != LQC_NO_CONSTANT || store->invert != LQC_NO_CONSTANT) {
    return FAIL(prepare, op, LQC_ERROR_MALFORMED,
                "the store of '%s' (%s) has shift %d, thresholds %d, invert %d; accepted are %s", output->info.name,
                lqc_dtype_name(output->info.dtype), (int)store->shift, (int)store->thresholds, (int)store->invert,
                bits ? "thresholds and invert" : "a shift");
  }
  LQC_TRY(read_shifts(prepare, op, "shift", store->shift, &output->channels, -MAX_SHIFT, &values->shift));
  LQC_TRY(lqc_expect_constant(prepare, op, "thresholds", store->thresholds, LQC_MASK(LQC_INT64), &output->channels, 1,
                              false, &values->thresholds));
  return lqc_expect_constant(prepare, op, "invert", store->invert, LQC_MASK(LQC_BIT), &output->channels, 1, false,
                             &values->invert);
}

static lqc_status read_values(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *inputs,
                              const lqc_tensor *outputs, lqc_fixed_values *values) {
  const lqc_fixed_point *fixed = &op->fixed_point;
  for (uint32_t i = 0; i < fixed->step_count; ++i) {
    LQC_TRY(read_step_values(prepare, op, &fixed->steps[i], inputs, &outputs->channels, &values->steps[i]));
  }
  for (uint32_t i = 0; i < fixed->store_count; ++i) {
    LQC_TRY(read_store_values(prepare, op, &fixed->stores[i], &outputs[i], &values->stores[i]));
  }
  return LQC_OK;
}

/* ---- Constants as lanes ------------------------------------------------------------------------------------------ */

typedef int64_t (*lane_value)(const lqc_constant *constant, uint32_t c);

static int shift_at(const lqc_constant *shift, uint32_t c) {
  return shift->data ? ((const int8_t *)shift->data)[c] : 0;
}
static int64_t int32_at(const lqc_constant *constant, uint32_t c) {
  return ((const int32_t *)constant->data)[c];
}
static int64_t int64_at(const lqc_constant *constant, uint32_t c) {
  return constant->data ? ((const int64_t *)constant->data)[c] : 0;
}
static int64_t threshold_at(const lqc_constant *thresholds, uint32_t c) {
  return thresholds->data ? ((const int64_t *)thresholds->data)[c] : -1;
}
static int64_t left_shift_at(const lqc_constant *shift, uint32_t c) {
  return shift_at(shift, c);
}
static int64_t right_at(const lqc_constant *shift, uint32_t c) {
  return shift_at(shift, c) > 0 ? shift_at(shift, c) : 0;
}
static int64_t half_at(const lqc_constant *shift, uint32_t c) {
  return shift_at(shift, c) > 0 ? (int64_t)1 << (shift_at(shift, c) - 1) : 0;
}
static int64_t left_at(const lqc_constant *shift, uint32_t c) {
  int left = shift_at(shift, c) < 0 ? -shift_at(shift, c) : 0;
  return (int64_t)1 << (left < MAX_LEFT ? left : MAX_LEFT);
}

/* In lanes of 32 bits only thresholds may be out of range; the nearest lane compares in the same way, as no y is
 * INT32_MIN. */
static int32_t narrow_lane(int64_t value) {
  return value > INT32_MAX ? INT32_MAX : value < INT32_MIN ? INT32_MIN : (int32_t)value;
}

/* An array of lanes, zeros behind the last channel. */
static lqc_status keep_lanes(lqc_prepare *prepare, const lqc_fixed *fixed, const lqc_constant *constant,
                             lane_value value_at, const void **lanes) {
  uint32_t channels = fixed->program.channels;
  size_t count = lqc_lane_count(channels), bytes = fixed->wide ? sizeof(int64_t) : sizeof(int32_t);
  void *memory = NULL;
  LQC_TRY(lqc_bump_take(prepare->bump, count, bytes, &memory, prepare->error));
  *lanes = memory;
  if (memory == NULL) {
    return LQC_OK;
  }
  memset(memory, 0, count * bytes);
  for (uint32_t c = 0; c < channels; ++c) {
    int64_t value = value_at(constant, c);
    if (fixed->wide) {
      ((int64_t *)memory)[c] = value;
    } else {
      ((int32_t *)memory)[c] = narrow_lane(value);
    }
  }
  return LQC_OK;
}

static lqc_status keep_step(lqc_prepare *prepare, const lqc_fixed *fixed, const lqc_step *step,
                            const lqc_step_values *values, lqc_lane_step *lanes) {
  *lanes = (lqc_lane_step){.kind = LQC_LANE_RELU, .operand = step->operand};
  if (step->kind == LQC_STEP_AFFINE) {
    lanes->kind = LQC_LANE_AFFINE;
    LQC_TRY(keep_lanes(prepare, fixed, &values->multiplier, int32_at, &lanes->multiplier));
    return keep_lanes(prepare, fixed, &values->offset, int64_at, &lanes->offset);
  }
  if (step->kind == LQC_STEP_ADD) {
    lanes->kind = values->operand.high == INT8_MAX ? LQC_LANE_ADD_INT8 : LQC_LANE_ADD_INT16;
    LQC_TRY(keep_lanes(prepare, fixed, &values->shift, left_shift_at, &lanes->shift));
    return keep_lanes(prepare, fixed, &values->operand_shift, left_shift_at, &lanes->operand_shift);
  }
  return LQC_OK;
}

/* 2^-shift[c] as float32, [channels rounded up]. */
static lqc_status keep_scales(lqc_prepare *prepare, const lqc_fixed *fixed, const lqc_constant *shift,
                              const float **scales) {
  size_t count = lqc_lane_count(fixed->program.channels);
  void *memory = NULL;
  LQC_TRY(lqc_bump_take(prepare->bump, count, sizeof(float), &memory, prepare->error));
  *scales = memory;
  for (uint32_t c = 0; memory && c < count; ++c) {
    ((float *)memory)[c] = c < fixed->program.channels ? lqc_power_of_two(-shift_at(shift, c)) : 0.0f;
  }
  return LQC_OK;
}

static lqc_status keep_store(lqc_prepare *prepare, const lqc_fixed *fixed, const lqc_tensor *output,
                             const lqc_store_values *values, lqc_lane_store *lanes) {
  *lanes = (lqc_lane_store){.dtype = output->info.dtype, .invert = values->invert.data};
  if (output->info.dtype == LQC_BIT) {
    return keep_lanes(prepare, fixed, &values->thresholds, threshold_at, &lanes->thresholds);
  }
  if (output->info.dtype == LQC_FLOAT32) {
    return keep_scales(prepare, fixed, &values->shift, &lanes->scale);
  }
  bool left = false;
  for (uint32_t c = 0; c < fixed->program.channels; ++c) {
    left = left || shift_at(&values->shift, c) < 0;
  }
  LQC_TRY(keep_lanes(prepare, fixed, &values->shift, half_at, &lanes->half));
  LQC_TRY(keep_lanes(prepare, fixed, &values->shift, right_at, &lanes->right));
  return left ? keep_lanes(prepare, fixed, &values->shift, left_at, &lanes->left) : LQC_OK;
}

/* ---- Affine and addition in one -------------------------------------------------------------------------------- */

/* y = m y + t, then y = y 2^s + x 2^r, is y = (m 2^s) y + 2^r x + t 2^s: a PAIR, where the range of y fits, powers of
 * two moved from the factors to y and x included. Then |m 2^s y| <= 2^30 and |2^r x| <= 2^29, so their sum fits 32
 * bits, and the last one is y as before. */
typedef struct pair_plan {
  uint32_t first, steps; /* those that it replaces: two, one, or none, at the beginning or behind a RELU there */
  int y_log2, x_log2;
} pair_plan;

typedef struct pair_values {
  int64_t low, high, offset;
} pair_values;

enum { MAX_PAIR_SHIFT = 22 };

static pair_values pair_at(const lqc_fixed_values *values, const pair_plan *plan, uint32_t c) {
  const lqc_step_values *affine = &values->steps[plan->first], *add = affine + 1;
  bool adds = plan->steps == 2;
  int64_t scale = (int64_t)1 << (adds ? shift_at(&add->shift, c) : 0);
  return (pair_values){int32_at(&affine->multiplier, c) * scale / ((int64_t)1 << plan->y_log2),
                       adds ? (int64_t)1 << (shift_at(&add->operand_shift, c) - plan->x_log2) : 0,
                       int64_at(&affine->offset, c) * scale};
}

static bool fits_int16(int64_t value) {
  return value >= INT16_MIN && value <= INT16_MAX;
}

/* Whether the plan's factors are whole and fit. */
static bool pair_fits(const lqc_fixed_values *values, const pair_plan *plan, lqc_range y, uint32_t c) {
  const lqc_step_values *affine = &values->steps[plan->first], *add = affine + 1;
  int64_t y_scale = (int64_t)1 << plan->y_log2;
  bool adds = plan->steps == 2;
  if (adds && (shift_at(&add->shift, c) > MAX_PAIR_SHIFT || shift_at(&add->operand_shift, c) < plan->x_log2 ||
               shift_at(&add->operand_shift, c) - plan->x_log2 > 14)) {
    return false;
  }
  pair_values pair = pair_at(values, plan, c);
  int64_t scale = adds ? (int64_t)1 << shift_at(&add->shift, c) : 1;
  return fits_int16(y.low * y_scale) && fits_int16(y.high * y_scale) && fits_int16(pair.low) &&
         pair.low * y_scale == int32_at(&affine->multiplier, c) * scale && pair.offset >= -INT32_MAX &&
         pair.offset <= INT32_MAX;
}

static lqc_range range_behind(lqc_range y, bool relu) {
  return relu ? (lqc_range){y.low > 0 ? y.low : 0, y.high > 0 ? y.high : 0} : y;
}

static pair_plan plan_pair(const lqc_op *op, const lqc_fixed_values *values, uint32_t channels, lqc_start_range start,
                           const void *context) {
  const lqc_fixed_point *fixed = &op->fixed_point;
  const pair_plan none = {0, 0, 0, 0};
  const bool relu = fixed->step_count > 0 && fixed->steps[0].kind == LQC_STEP_RELU;
  const uint32_t first = relu, second = first + 1;
  if (first >= fixed->step_count || fixed->steps[first].kind != LQC_STEP_AFFINE) {
    return none;
  }
  bool adds = second < fixed->step_count && fixed->steps[second].kind == LQC_STEP_ADD &&
              values->steps[second].operand.high == INT8_MAX;
  int largest = 0;
  for (uint32_t c = 0; adds && c < channels; ++c) {
    int shift = shift_at(&values->steps[second].operand_shift, c);
    largest = shift > largest ? shift : largest;
  }
  for (uint32_t steps = adds ? 2 : 1; steps > 0; --steps) {
    for (int y_log2 = 0; y_log2 < 8; ++y_log2) {
      pair_plan plan = {first, steps, y_log2, steps == 2 && largest > 14 ? largest - 14 : 0};
      uint32_t c = 0;
      while (plan.x_log2 <= 8 && c < channels && pair_fits(values, &plan, range_behind(start(context, c), relu), c)) {
        ++c;
      }
      if (c == channels) {
        return plan;
      }
    }
  }
  return none;
}

static lqc_status keep_pair(lqc_prepare *prepare, const lqc_op *op, const lqc_fixed *fixed,
                            const lqc_fixed_values *values, const pair_plan *plan, lqc_lane_step *step) {
  size_t count = lqc_lane_count(fixed->program.channels);
  void *pairs = NULL, *offsets = NULL;
  LQC_TRY(lqc_bump_take(prepare->bump, count, sizeof(int32_t), &pairs, prepare->error));
  LQC_TRY(lqc_bump_take(prepare->bump, count, sizeof(int32_t), &offsets, prepare->error));
  for (uint32_t c = 0; pairs && c < count; ++c) {
    pair_values pair = {0, 0, 0};
    if (c < fixed->program.channels) {
      pair = pair_at(values, plan, c);
    }
    ((int32_t *)pairs)[c] = (int32_t)((uint32_t)pair.high << 16 | (uint16_t)pair.low);
    ((int32_t *)offsets)[c] = (int32_t)pair.offset;
  }
  *step = (lqc_lane_step){.kind = LQC_LANE_PAIR,
                          .operand = plan->steps == 2 ? op->fixed_point.steps[plan->first + 1].operand : 0,
                          .y_log2 = plan->y_log2,
                          .x_log2 = plan->x_log2,
                          .offset = offsets,
                          .pairs = pairs};
  return LQC_OK;
}

static lqc_status keep_steps(lqc_prepare *prepare, const lqc_op *op, const lqc_fixed_values *values,
                             const pair_plan *plan, lqc_fixed *fixed) {
  void *memory = NULL;
  LQC_TRY(lqc_bump_take(prepare->bump, op->fixed_point.step_count, sizeof(lqc_lane_step), &memory, prepare->error));
  lqc_lane_step *steps = memory, step;
  uint32_t count = 0;
  for (uint32_t i = 0; i < op->fixed_point.step_count; ++count) {
    const bool is_pair = plan->steps > 0 && i == plan->first;
    LQC_TRY(is_pair ? keep_pair(prepare, op, fixed, values, plan, &step)
                    : keep_step(prepare, fixed, &op->fixed_point.steps[i], &values->steps[i], &step));
    if (steps) {
      steps[count] = step;
    }
    i += is_pair ? plan->steps : 1;
  }
  fixed->program.step_count = count;
  fixed->program.steps = steps;
  return LQC_OK;
}

static lqc_status keep_stores(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *outputs,
                              const lqc_fixed_values *values, lqc_fixed *fixed) {
  void *stores = NULL;
  LQC_TRY(lqc_bump_take(prepare->bump, op->fixed_point.store_count, sizeof(lqc_lane_store), &stores, prepare->error));
  for (uint32_t i = 0; i < op->fixed_point.store_count; ++i) {
    lqc_lane_store store;
    LQC_TRY(keep_store(prepare, fixed, &outputs[i], &values->stores[i], &store));
    if (stores) {
      ((lqc_lane_store *)stores)[i] = store;
    }
  }
  fixed->program.store_count = op->fixed_point.store_count;
  fixed->program.stores = stores;
  return LQC_OK;
}

static size_t pixel_bytes(const lqc_tensor *tensor) {
  return tensor->info.bytes / tensor->height / tensor->width;
}

lqc_status lqc_prepare_fixed_point(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *inputs,
                                   const lqc_tensor *outputs, lqc_start_range start, const void *context,
                                   lqc_fixed *fixed) {
  lqc_fixed_values values;
  lqc_fixed_bounds bounds;
  LQC_TRY(check_tensors(prepare, op, inputs, outputs));
  LQC_TRY(read_values(prepare, op, inputs, outputs, &values));
  LQC_TRY(lqc_check_ranges(prepare, op, outputs, &values, start, context, &bounds));
  *fixed = (lqc_fixed){.program = {.channels = outputs->channels,
                                   .rounds_far = bounds.rounds_far,
                                   .rounds_narrow = bounds.rounds_narrow},
                       .wide = !bounds.narrow,
                       .input_count = op->input_count,
                       .output_count = op->output_count,
                       .scratch_bytes =
                           lqc_lane_count(outputs->channels) * (bounds.narrow ? sizeof(int32_t) : sizeof(int64_t))};
  for (uint32_t i = 0; i < op->input_count; ++i) {
    fixed->input_bytes[i] = pixel_bytes(&inputs[i]);
  }
  for (uint32_t i = 0; i < op->output_count; ++i) {
    fixed->output_bytes[i] = pixel_bytes(&outputs[i]);
  }
  pair_plan plan = {0, 0, 0, 0};
  if (bounds.narrow) {
    LQC_TRY(lqc_spend_work(prepare, op, 16 * (uint64_t)outputs->channels));
    plan = plan_pair(op, &values, outputs->channels, start, context);
  }
  LQC_TRY(keep_steps(prepare, op, &values, &plan, fixed));
  return keep_stores(prepare, op, outputs, &values, fixed);
}

/* ---- Running ----------------------------------------------------------------------------------------------------- */

void lqc_run_fixed_point(const lqc_fixed *fixed, const lqc_kernels *kernels, const lqc_node *node,
                         lqc_lane_pixels *pixels, void *scratch) {
  pixels->inputs = (const void *const *)node->inputs;
  pixels->outputs = node->outputs;
  pixels->input_bytes = fixed->input_bytes;
  pixels->output_bytes = fixed->output_bytes;
  (fixed->wide ? kernels->fixed_point_wide : kernels->fixed_point)(&fixed->program, pixels, scratch);
}
