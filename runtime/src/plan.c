#include "plan.h"

/* Time 0 is before the first op, op i runs at time i + 1, and outputs are read at time (number of ops) + 1. */
#define NEVER UINT16_MAX

_Static_assert(LQC_MAX_ITEMS + 1 < NEVER, "times must fit 16 bits");

/* On the stack: 12 KiB. */
typedef struct lifetimes {
  uint16_t written[LQC_MAX_ITEMS];
  uint16_t last_read[LQC_MAX_ITEMS]; /* `written` where nothing reads it */
  uint16_t shared[LQC_MAX_ITEMS];    /* first tensor of the chain of Reshapes that it shares its place with */
} lifetimes;

static const char *tensor_name(const lqc_model_view *view, uint32_t tensor) {
  lqc_tensor found;
  return lqc_read_tensor(view, tensor, &found, NULL) == LQC_OK ? found.info.name : "?";
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
    times->last_read[op->outputs[i]] = now; /* so no output shares memory with an input or another output */
  }
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

lqc_status lqc_check_plan(const lqc_model_view *view, lqc_error *error) {
  lifetimes times;
  LQC_TRY(find_lifetimes(view, &times, error));
  for (uint32_t a = 0; a < view->tensors.count; ++a) {
    lqc_tensor first, second;
    LQC_TRY(lqc_read_tensor(view, a, &first, error));
    for (uint32_t b = 0; b < a; ++b) {
      if (times.written[a] > times.last_read[b] || times.written[b] > times.last_read[a] ||
          times.shared[a] == times.shared[b]) {
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
