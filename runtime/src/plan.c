#include "plan.h"

/* Time 0 is before the first op, op i runs at time i + 1, and outputs are read at time (number of ops) + 1. */
#define NEVER UINT16_MAX

_Static_assert(LQC_MAX_ITEMS + 1 < NEVER, "times must fit 16 bits");

#define NO_TENSOR UINT16_MAX

_Static_assert(LQC_MAX_ITEMS <= NO_TENSOR, "indices must fit 16 bits");

/* On the stack: 16 KiB. */
typedef struct lifetimes {
  uint16_t written[LQC_MAX_ITEMS];
  uint16_t last_read[LQC_MAX_ITEMS]; /* `written` where nothing reads it */
  uint16_t shared[LQC_MAX_ITEMS];    /* first tensor of the chain of Reshapes that it shares its place with */
  uint16_t replaced[LQC_MAX_ITEMS];  /* input that the op which writes it may overwrite with it, or NO_TENSOR */
} lifetimes;

static const char *tensor_name(const lqc_model_view *view, uint32_t tensor) {
  lqc_tensor found;
  return lqc_read_tensor(view, tensor, &found, NULL) == LQC_OK ? found.info.name : "?";
}

/* Whether the op reads of input `place`, for a pixel of its outputs, that very pixel alone, before it writes it. What
 * an op's file does must agree with this table; so must memory.py of the converter. */
static bool reads_by_pixel(const lqc_op *op, uint32_t place) {
  switch (op->kind) {
  case LQC_OP_AFFINE:
  case LQC_OP_SOFTMAX:
  case LQC_OP_ELEMENTWISE:
  case LQC_OP_ARITHMETIC: /* of an operand that repeats pixels, the shape is another */
  case LQC_OP_PRELU:
  case LQC_OP_FUNCTION:
    return true;
  case LQC_OP_BINARY_CONV_2D:
  case LQC_OP_INT8_CONV_2D:
    return place > 0; /* an operand; the first is the image */
  default:
    return false;
  }
}

/* Whether an op may write `output` where `input` lies. A pixel then takes the bytes of the same pixel, whichever thread
 * writes it. */
static bool may_replace(const lqc_op *op, const lqc_tensor *input, const lqc_tensor *output) {
  if (input->offset != output->offset || input->info.dtype != output->info.dtype || input->height != output->height ||
      input->width != output->width || input->channels != output->channels) {
    return false;
  }
  for (uint32_t i = 0; i < op->input_count; ++i) {
    if (op->inputs[i] == input->index && !reads_by_pixel(op, i)) {
      return false;
    }
  }
  return true;
}

/* Finds the input that each output of an op replaces. */
static lqc_status find_replaced(const lqc_model_view *view, const lqc_op *op, lifetimes *times, lqc_error *error) {
  for (uint32_t o = 0; o < op->output_count; ++o) {
    lqc_tensor input, output;
    LQC_TRY(lqc_read_tensor(view, op->outputs[o], &output, error));
    for (uint32_t i = 0; i < op->input_count; ++i) {
      LQC_TRY(lqc_read_tensor(view, op->inputs[i], &input, error));
      if (may_replace(op, &input, &output)) {
        times->replaced[op->outputs[o]] = (uint16_t)op->inputs[i];
      }
    }
  }
  return LQC_OK;
}

static lqc_status follow_op(const lqc_model_view *view, const lqc_op *op, lifetimes *times, lqc_error *error) {
  uint16_t now = (uint16_t)(op->index + 1);
  for (uint32_t i = 0; i < op->input_count; ++i) {
    if (times->written[op->inputs[i]] == NEVER) {
      return lqc_fail(error, LQC_ERROR_MALFORMED, "op '%s' (%s) reads tensor '%s' before anything has written it",
                      op->name, lqc_op_kind_name(op->kind), tensor_name(view, op->inputs[i]));
    }
    times->last_read[op->inputs[i]] = now;
  }
  for (uint32_t i = 0; i < op->output_count; ++i) {
    uint16_t *written = &times->written[op->outputs[i]];
    if (*written != NEVER) {
      return lqc_fail(error, LQC_ERROR_MALFORMED, "op '%s' (%s) writes tensor '%s', which %s already", op->name,
                      lqc_op_kind_name(op->kind), tensor_name(view, op->outputs[i]),
                      *written == 0     ? "is a model input"
                      : *written == now ? "it has written"
                                        : "an earlier op has written");
    }
    *written = now;
    times->last_read[op->outputs[i]] = now; /* so no output shares memory with another output */
  }
  LQC_TRY(find_replaced(view, op, times, error));
  if (op->kind == LQC_OP_RESHAPE) {
    lqc_tensor input, output;
    LQC_TRY(lqc_read_tensor(view, op->inputs[0], &input, error));
    LQC_TRY(lqc_read_tensor(view, op->outputs[0], &output, error));
    if (input.offset == output.offset) {
      times->shared[op->outputs[0]] = times->shared[op->inputs[0]];
    }
  }
  return LQC_OK;
}

static lqc_status find_lifetimes(const lqc_model_view *view, lifetimes *times, lqc_error *error) {
  for (uint32_t t = 0; t < view->tensors.count; ++t) {
    times->written[t] = NEVER;
    times->shared[t] = (uint16_t)t;
    times->replaced[t] = NO_TENSOR;
  }
  for (uint32_t i = 0; i < view->inputs.count; ++i) {
    uint32_t tensor = lqc_vector_u32(&view->inputs, i);
    times->written[tensor] = 0;
    times->last_read[tensor] = 0;
  }
  for (uint32_t i = 0; i < view->ops.count; ++i) {
    lqc_op op;
    LQC_TRY(lqc_read_op(view, i, &op, error));
    LQC_TRY(follow_op(view, &op, times, error));
  }
  for (uint32_t t = 0; t < view->tensors.count; ++t) {
    if (times->written[t] == NEVER) {
      return lqc_fail(error, LQC_ERROR_MALFORMED, "tensor '%s' is no model input and no op writes it",
                      tensor_name(view, t));
    }
  }
  for (uint32_t i = 0; i < view->outputs.count; ++i) {
    times->last_read[lqc_vector_u32(&view->outputs, i)] = (uint16_t)(view->ops.count + 1);
  }
  return LQC_OK;
}

/* Whether both hold values at some time, which forbids them to share memory. */
static bool meet(const lifetimes *times, uint32_t a, uint32_t b) {
  if (times->written[a] > times->last_read[b] || times->written[b] > times->last_read[a] ||
      times->shared[a] == times->shared[b]) {
    return false;
  }
  /* What an op overwrites must not be needed after it, so its last reader is that op. */
  return !(times->replaced[a] == b && times->last_read[b] == times->written[a]) &&
         !(times->replaced[b] == a && times->last_read[a] == times->written[b]);
}

lqc_status lqc_check_plan(const lqc_model_view *view, lqc_error *error) {
  lifetimes times;
  LQC_TRY(find_lifetimes(view, &times, error));
  for (uint32_t a = 0; a < view->tensors.count; ++a) {
    lqc_tensor first, second;
    LQC_TRY(lqc_read_tensor(view, a, &first, error));
    for (uint32_t b = 0; b < a; ++b) {
      if (!meet(&times, a, b)) {
        continue;
      }
      LQC_TRY(lqc_read_tensor(view, b, &second, error));
      /* Offsets plus sizes are within arena_bytes: no overflow. */
      if (first.offset < second.offset + second.info.bytes && second.offset < first.offset + first.info.bytes) {
        return lqc_fail(error, LQC_ERROR_MALFORMED,
                        "tensors '%s' and '%s' hold values at the same time and share memory (offsets %llu and %llu)",
                        second.info.name, first.info.name, (unsigned long long)second.offset,
                        (unsigned long long)first.offset);
      }
    }
  }
  return LQC_OK;
}
