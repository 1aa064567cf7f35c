#include <string.h>

#include "checked.h"
#include "clock.h"
#include "op.h"
#include "plan.h"
#include "session.h"

/* Bound on the steps of preparing a model, a few nanoseconds each: no real model comes near. What is proportional to
 * the session's memory is not counted. */
#define WORK ((uint64_t)1 << 24)
#define WORK_PER_BYTE ((uint64_t)64)

/* About the nanoseconds below which an op is done by the calling thread alone, as handing out shares and waiting for
 * them takes a microsecond or two. */
#define LIGHT_NANOSECONDS ((uint64_t)1000)

struct lqc_session {
  lqc_model_view view;
  lqc_kernels kernels;
  int keep_tensors, profile;
  lqc_pool *pool, *alone; /* of all threads, of the calling one */
  lqc_runner runner;
  void **tensors;  /* [view.tensors.count] */
  lqc_node *nodes; /* [view.ops.count] */
};

/* ---- Preparing ------------------------------------------------------------------------------------------------ */

/* Checked options: threads is 1 or more, and kernels are those of the instruction set. */
static lqc_status read_options(const lqc_options *options, lqc_options *checked, lqc_kernels *kernels,
                               lqc_error *error) {
  *checked = options ? *options : (lqc_options){0};
  if (checked->threads == 0) {
    checked->threads = 1;
  }
  if (checked->threads > lqc_pool_max_threads()) {
    return lqc_fail(error, LQC_ERROR_OPTION, "threads is %u; this build accepts 0 to %u", checked->threads,
                    lqc_pool_max_threads());
  }
  const char *name = lqc_isa_name(checked->isa);
  if (name == NULL) {
    return lqc_fail(error, LQC_ERROR_OPTION, "isa is %d; accepted are 0 to %d", (int)checked->isa,
                    (int)LQC_ISA_COUNT - 1);
  }
  if (!lqc_kernels_select(kernels, checked->isa)) {
    return lqc_fail(error, LQC_ERROR_OPTION, "instruction set '%s' is not available in this build or on this processor",
                    name);
  }
  return LQC_OK;
}

/* Gives every tensor its place: the file's plan, or a place of its own. */
static lqc_status place_tensors(lqc_bump *bump, const lqc_model_view *view, bool keep, void **places,
                                lqc_error *error) {
  size_t arena_bytes = 0;
  void *arena = NULL;
  if (!keep) {
    if (!lqc_size_from_u64(view->arena_bytes, &arena_bytes)) {
      arena_bytes = SIZE_MAX; /* refused in the next line */
    }
    LQC_TRY(lqc_bump_take(bump, arena_bytes, 1, &arena, error));
    if (arena) {
      memset(arena, 0, arena_bytes); /* as a whole: any number of tensors may lie in the same place */
    }
  }
  for (uint32_t t = 0; t < view->tensors.count; ++t) {
    lqc_tensor tensor;
    void *place = NULL;
    LQC_TRY(lqc_read_tensor(view, t, &tensor, error));
    if (keep) {
      LQC_TRY(lqc_bump_take(bump, tensor.info.bytes, 1, &place, error));
    } else if (arena) {
      place = (uint8_t *)arena + tensor.offset;
    }
    if (places) {
      places[t] = place;
      if (keep) {
        memset(place, 0, tensor.info.bytes);
      }
    }
  }
  return LQC_OK;
}

/* Steps of preparing an op that are not counted elsewhere: comparing fraction bits, and finding the spans of its
 * window, each by a bisection of an axis. */
static uint64_t steps_of(const lqc_op *op, const lqc_tensor *inputs, const lqc_tensor *outputs) {
  uint64_t rows = 2 * (uint64_t)op->window.kernel_h + 1, columns = 2 * (uint64_t)op->window.kernel_w + 1;
  uint64_t spans =
      (rows < outputs->height ? rows : outputs->height) + (columns < outputs->width ? columns : outputs->width);
  uint64_t steps = 32 * spans;
  for (uint32_t i = 0; i < op->input_count; ++i) {
    steps += inputs[i].fraction_count;
  }
  for (uint32_t i = 0; i < op->output_count; ++i) {
    steps += outputs[i].fraction_count;
  }
  return steps;
}

static lqc_status read_tensors(const lqc_prepare *prepare, const uint32_t *indices, uint32_t count,
                               lqc_tensor *tensors) {
  for (uint32_t i = 0; i < count; ++i) {
    LQC_TRY(lqc_read_tensor(prepare->view, indices[i], &tensors[i], prepare->error));
  }
  return LQC_OK;
}

/* Where a node's inputs and, behind them, outputs are. */
static lqc_status place_operands(lqc_prepare *prepare, const lqc_op *op, void *const *places, lqc_node *node) {
  void *memory = NULL;
  LQC_TRY(lqc_bump_take(prepare->bump, op->input_count + op->output_count, sizeof(void *), &memory, prepare->error));
  if (memory) {
    void **operands = memory;
    for (uint32_t i = 0; i < op->input_count; ++i) {
      operands[i] = places[op->inputs[i]];
    }
    for (uint32_t i = 0; i < op->output_count; ++i) {
      operands[op->input_count + i] = places[op->outputs[i]];
    }
    node->inputs = operands;
    node->outputs = operands + op->input_count;
    node->input = node->inputs[0];
    node->output = node->outputs[0];
  }
  return LQC_OK;
}

/* By what AVX-512 does in a nanosecond. Slower processors divide some more work than they must not. */
static bool is_light(const lqc_node *node, const lqc_op *op, const lqc_tensor *inputs, const lqc_tensor *outputs) {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < op->input_count; ++i) {
    bytes += inputs[i].info.bytes;
  }
  for (uint32_t i = 0; i < op->output_count; ++i) {
    bytes += outputs[i].info.bytes;
  }
  return node->binary_macs / 512 + node->int8_macs / 128 + node->float_macs / 16 + bytes / 4 < LIGHT_NANOSECONDS;
}

static lqc_status prepare_ops(lqc_prepare *prepare, void *const *places, lqc_node *nodes) {
  const size_t bytes = prepare->bump->bytes;
  for (uint32_t i = 0; i < prepare->view->ops.count; ++i) {
    static const lqc_prepare_op prepare_op[LQC_OP_KIND_COUNT] = {
#define LQC_OP_ENTRY(NAME, name) [LQC_OP_##NAME] = lqc_prepare_##name,
        LQC_OP_LIST(LQC_OP_ENTRY)
#undef LQC_OP_ENTRY
    };
    lqc_op op;
    lqc_tensor inputs[LQC_MAX_INPUTS], outputs[LQC_MAX_OUTPUTS];
    LQC_TRY(lqc_read_op(prepare->view, i, &op, prepare->error));
    LQC_TRY(read_tensors(prepare, op.inputs, op.input_count, inputs));
    LQC_TRY(read_tensors(prepare, op.outputs, op.output_count, outputs));
    LQC_TRY(lqc_spend_work(prepare, &op, steps_of(&op, inputs, outputs)));
    lqc_node node = {.name = op.name, .kind = op.kind};
    LQC_TRY(place_operands(prepare, &op, places, &node));
    LQC_TRY(prepare_op[op.kind](prepare, &op, inputs, outputs, &node));
    node.light = is_light(&node, &op, inputs, outputs);
    prepare->bump->bytes = bytes; /* its scratch memory is free again */
    if (nodes) {
      nodes[i] = node;
    }
  }
  return LQC_OK;
}

static void link_nodes(lqc_node *nodes, uint32_t count) {
  const lqc_node *next = NULL;
  for (uint32_t i = count; nodes && i > 0; --i) {
    nodes[i - 1].next = next;
    next = nodes[i - 1].weights ? &nodes[i - 1] : next;
  }
}

/* Lays a session out in bump's memory, or, with bump->base NULL, only finds the bytes it takes. */
static lqc_status build(lqc_bump *bump, const lqc_model_view *view, const lqc_options *options,
                        const lqc_kernels *kernels, lqc_session **built, lqc_error *error) {
  void *session_memory = NULL, *places = NULL, *nodes = NULL, *pool = NULL, *alone = NULL, *thread_scratch = NULL,
       *shared = NULL, *rest = NULL;
  LQC_TRY(lqc_bump_take(bump, 1, sizeof(lqc_session), &session_memory, error));
  LQC_TRY(lqc_bump_take(bump, view->tensors.count, sizeof(void *), &places, error));
  LQC_TRY(lqc_bump_take(bump, view->ops.count, sizeof(lqc_node), &nodes, error));
  LQC_TRY(lqc_bump_take(bump, 1, lqc_pool_bytes(options->threads), &pool, error));
  LQC_TRY(lqc_bump_take(bump, 1, lqc_pool_bytes(1), &alone, error));
  lqc_session *session = session_memory;
  if (session) {
    *session = (lqc_session){.view = *view,
                             .kernels = *kernels,
                             .keep_tensors = options->keep_tensors,
                             .profile = options->profile,
                             .pool = pool,
                             .alone = alone,
                             .tensors = places,
                             .nodes = nodes};
  }
  uint64_t work_left = WORK + WORK_PER_BYTE * view->buffer.size;
  lqc_prepare prepare = {.view = view,
                         .kernels = session ? &session->kernels : kernels,
                         .error = error,
                         .bump = bump,
                         .threads = options->threads,
                         .work_left = &work_left};
  LQC_TRY(place_tensors(bump, view, options->keep_tensors != 0, places, error));
  LQC_TRY(prepare_ops(&prepare, places, nodes));
  link_nodes(nodes, view->ops.count);
  if (!lqc_align_size(prepare.thread_scratch, LQC_ALIGNMENT, &prepare.thread_scratch)) {
    prepare.thread_scratch = SIZE_MAX; /* refused in the next line */
  }
  size_t prepared = bump->used;
  LQC_TRY(lqc_bump_take(bump, options->threads, prepare.thread_scratch, &thread_scratch, error));
  LQC_TRY(lqc_bump_take(bump, 1, prepare.shared_scratch, &shared, error));
  if (bump->used - prepared < prepare.scratch) { /* the end of the memory, while it is not used yet */
    LQC_TRY(lqc_bump_take(bump, 1, prepare.scratch - (bump->used - prepared), &rest, error));
  }
  if (session) {
    session->runner = (lqc_runner){pool, thread_scratch, prepare.thread_scratch, shared};
  }
  *built = session;
  return LQC_OK;
}

lqc_status lqc_session_size(const lqc_model *model, const lqc_options *options, size_t *bytes, lqc_error *error) {
  lqc_model_view view;
  bool loaded = lqc_model_get_view(model, &view);
  lqc_options checked;
  lqc_kernels kernels;
  lqc_bump bump = {NULL, 0, 0};
  lqc_session *none;
  if (!loaded || bytes == NULL) {
    return lqc_fail(error, LQC_ERROR_NULL, "lqc_session_size: %s",
                    !loaded ? "model is NULL or was not loaded" : "bytes is NULL");
  }
  LQC_TRY(read_options(options, &checked, &kernels, error));
  LQC_TRY(lqc_check_plan(&view, error));
  LQC_TRY(build(&bump, &view, &checked, &kernels, &none, error));
  *bytes = bump.used;
  return lqc_succeed(error);
}

lqc_status lqc_session_init(lqc_session **session, const lqc_model *model, const lqc_options *options, void *memory,
                            size_t bytes, lqc_error *error) {
  lqc_model_view view;
  bool loaded = lqc_model_get_view(model, &view);
  lqc_options checked;
  lqc_kernels kernels;
  size_t needed = 0;
  if (session == NULL || !loaded || memory == NULL) {
    return lqc_fail(error, LQC_ERROR_NULL, "lqc_session_init: %s",
                    session == NULL ? "session is NULL"
                    : !loaded       ? "model is NULL or was not loaded"
                                    : "memory is NULL");
  }
  if ((uintptr_t)memory % LQC_ALIGNMENT != 0) {
    return lqc_fail(error, LQC_ERROR_ALIGNMENT, "session memory must be aligned to %d", LQC_ALIGNMENT);
  }
  LQC_TRY(read_options(options, &checked, &kernels, error));
  LQC_TRY(lqc_check_plan(&view, error));
  lqc_bump bump = {memory, 0, bytes};
  lqc_session *built;
  lqc_status status = build(&bump, &view, &checked, &kernels, &built, error);
  if (status == LQC_ERROR_ARENA_TOO_SMALL) { /* what it needs is counted only to be told */
    LQC_TRY(lqc_session_size(model, options, &needed, error));
    return lqc_fail(error, status, "the session needs %zu bytes of memory; %zu were given", needed, bytes);
  }
  LQC_TRY(status);
  LQC_TRY(lqc_pool_start(built->alone, 1, error));
  LQC_TRY(lqc_pool_start(built->pool, checked.threads, error));
  *session = built;
  return lqc_succeed(error);
}

void lqc_session_destroy(lqc_session *session) {
  if (session) {
    lqc_pool_stop(session->pool);
  }
}

/* ---- Running -------------------------------------------------------------------------------------------------- */

static lqc_status check_finite(const lqc_tensor *tensor, const void *data, lqc_error *error) {
  size_t count = tensor->info.bytes / sizeof(float);
  uint32_t found = 0;
  for (size_t i = 0; i < count; ++i) {
    found |= (lqc_float_bits(data, i) & 0x7f800000u) == 0x7f800000u; /* no branch: this loop is vectorized */
  }
  for (size_t i = 0; found && i < count; ++i) {
    if ((lqc_float_bits(data, i) & 0x7f800000u) == 0x7f800000u) {
      size_t pixel = i / tensor->channels;
      return lqc_fail(
          error, LQC_ERROR_NOT_FINITE,
          "input '%s' holds %s at element %zu (row %zu, column %zu, channel %zu); accepted are finite numbers",
          tensor->info.name, lqc_float_bits(data, i) & 0x007fffffu ? "a NaN" : "an infinity", i, pixel / tensor->width,
          pixel % tensor->width, i % tensor->channels);
    }
  }
  return LQC_OK;
}

static lqc_status check_tail(const lqc_tensor *tensor, const void *data, lqc_error *error) {
  const uint64_t *bits = data;
  size_t words = lqc_words(tensor->channels), pixels = (size_t)tensor->height * tensor->width;
  for (size_t p = 0; tensor->channels % 64 != 0 && p < pixels; ++p) {
    if (bits[p * words + words - 1] >> (tensor->channels % 64)) {
      return lqc_fail(error, LQC_ERROR_INPUT, "input '%s' has bits set above channel %u at row %zu, column %zu",
                      tensor->info.name, tensor->channels - 1, p / tensor->width, p % tensor->width);
    }
  }
  return LQC_OK;
}

static lqc_status check_inputs(const lqc_session *session, lqc_error *error) {
  for (uint32_t i = 0; i < session->view.inputs.count; ++i) {
    lqc_tensor tensor;
    uint32_t index = lqc_vector_u32(&session->view.inputs, i);
    LQC_TRY(lqc_read_tensor(&session->view, index, &tensor, error));
    if (tensor.info.dtype == LQC_FLOAT32) {
      LQC_TRY(check_finite(&tensor, session->tensors[index], error));
    } else if (tensor.info.dtype == LQC_BIT) {
      LQC_TRY(check_tail(&tensor, session->tensors[index], error));
    }
  }
  return LQC_OK;
}

void lqc_session_run_ops(lqc_session *session) {
  lqc_runner alone = session->runner;
  alone.pool = session->alone;
  uint64_t before = session->profile ? lqc_nanoseconds() : 0;
  for (uint32_t i = 0; i < session->view.ops.count; ++i) {
    lqc_node *node = &session->nodes[i];
    node->run(node, node->light ? &alone : &session->runner);
    if (session->profile) {
      uint64_t after = lqc_nanoseconds();
      node->nanoseconds = after - before;
      before = after;
    }
  }
}

lqc_status lqc_session_run(lqc_session *session, lqc_error *error) {
  if (session == NULL) {
    return lqc_fail(error, LQC_ERROR_NULL, "lqc_session_run: session is NULL");
  }
  lqc_pool_call(session->pool);
  LQC_TRY(check_inputs(session, error));
  lqc_session_run_ops(session);
  return lqc_succeed(error);
}

/* ---- Looking -------------------------------------------------------------------------------------------------- */

void *lqc_session_input(lqc_session *session, size_t input) {
  if (session == NULL || input >= session->view.inputs.count) {
    return NULL;
  }
  return session->tensors[lqc_vector_u32(&session->view.inputs, (uint32_t)input)];
}

const void *lqc_session_output(const lqc_session *session, size_t output) {
  if (session == NULL || output >= session->view.outputs.count) {
    return NULL;
  }
  return session->tensors[lqc_vector_u32(&session->view.outputs, (uint32_t)output)];
}

const void *lqc_session_tensor(const lqc_session *session, size_t tensor) {
  if (session == NULL || !session->keep_tensors || tensor >= session->view.tensors.count) {
    return NULL;
  }
  return session->tensors[tensor];
}

lqc_status lqc_session_op_info(const lqc_session *session, size_t op, lqc_op_info *info) {
  if (session == NULL || info == NULL) {
    return LQC_ERROR_NULL;
  }
  if (op >= session->view.ops.count) {
    return LQC_ERROR_OPTION;
  }
  const lqc_node *node = &session->nodes[op];
  *info = (lqc_op_info){.name = node->name,
                        .type = lqc_op_kind_name(node->kind),
                        .kernel = node->kernel,
                        .binary_macs = node->binary_macs,
                        .int8_macs = node->int8_macs,
                        .float_macs = node->float_macs,
                        .nanoseconds = node->nanoseconds};
  return LQC_OK;
}

lqc_isa lqc_session_isa(const lqc_session *session) {
  return session ? session->kernels.isa : LQC_ISA_AUTO;
}
