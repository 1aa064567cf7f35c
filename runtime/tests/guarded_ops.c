#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "guarded_ops.h"

#include "hostile.h"
#include "op.h"

#define SLOT_BYTES ((size_t)1 << 20)
#define SLOTS (LQC_MAX_INPUTS + LQC_MAX_OUTPUTS)

/* Pages between two that may not be touched. */
typedef struct slot {
  uint8_t *begin, *end;
} slot;

typedef struct op_test {
  const lqc_model_view *view;
  const lqc_session *reference;
  const lqc_kernels *kernels;
  bool at_front; /* tensors begin at a page, else they end at one */
} op_test;

static slot new_slot(size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  uint8_t *memory = mmap(NULL, bytes + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT(memory != MAP_FAILED && mprotect(memory, page, PROT_NONE) == 0 &&
             mprotect(memory + page + bytes, page, PROT_NONE) == 0,
         "%zu bytes between guard pages", bytes);
  return (slot){memory + page, memory + page + bytes};
}

static uint8_t *place_in(const slot *s, size_t bytes, bool at_front) {
  return at_front ? s->begin : s->end - bytes;
}

static void allow(const slot *s, int protection) {
  EXPECT(mprotect(s->begin, (size_t)(s->end - s->begin), protection) == 0, "protection %d", protection);
}

static void compare(const op_test *t, const lqc_op *op, const lqc_tensor *tensor, const uint8_t *got) {
  const uint8_t *expected = lqc_session_tensor(t->reference, tensor->index);
  bool floats = tensor->info.dtype == LQC_FLOAT32;
  for (size_t e = 0; e < tensor->info.bytes; e += floats ? 4 : 1) {
    bool nan = floats && (lqc_float_bits(got + e, 0) & 0x7fffffff) > 0x7f800000 &&
               (lqc_float_bits(expected + e, 0) & 0x7fffffff) > 0x7f800000;
    EXPECT(nan || memcmp(got + e, expected + e, floats ? 4 : 1) == 0, "%s, op '%s' (%s), tensor '%s', byte %zu of %zu",
           lqc_isa_name(t->kernels->isa), op->name, lqc_op_kind_name(op->kind), tensor->info.name, e,
           tensor->info.bytes);
  }
}

static size_t rounded(size_t bytes) {
  return (bytes + LQC_ALIGNMENT - 1) / LQC_ALIGNMENT * LQC_ALIGNMENT;
}

static void prepare_and_run(const op_test *t, const lqc_op *op, const lqc_tensor *inputs, const lqc_tensor *outputs,
                            void *const *operands) {
  static const lqc_prepare_op prepare_op[LQC_OP_KIND_COUNT] = {
#define LQC_OP_ENTRY(NAME, name) [LQC_OP_##NAME] = lqc_prepare_##name,
      LQC_OP_LIST(LQC_OP_ENTRY)
#undef LQC_OP_ENTRY
  };
  lqc_error error = {.message = "none"};
  uint64_t work_left = UINT64_MAX;
  lqc_bump counter = {.base = NULL};
  lqc_prepare prepare = {
      .view = t->view, .kernels = t->kernels, .error = &error, .bump = &counter, .threads = 1, .work_left = &work_left};
  lqc_node node = {.name = op->name,
                   .kind = op->kind,
                   .inputs = operands,
                   .outputs = operands + op->input_count,
                   .input = operands[0],
                   .output = operands[op->input_count]};
  EXPECT(prepare_op[op->kind](&prepare, op, inputs, outputs, &node) == LQC_OK, "%s", error.message);
  size_t bytes = rounded(counter.used + prepare.scratch);
  size_t thread_bytes = rounded(prepare.thread_scratch), shared_bytes = rounded(prepare.shared_scratch);
  guarded memory = guarded_new(bytes), thread = guarded_new(thread_bytes), shared = guarded_new(shared_bytes);
  lqc_bump bump = {.base = guarded_last(&memory, bytes), .bytes = bytes};
  memset(bump.base, 0xa5, bytes);
  prepare.bump = &bump;
  EXPECT(prepare_op[op->kind](&prepare, op, inputs, outputs, &node) == LQC_OK, "%s", error.message);
  void *pool = malloc(lqc_pool_bytes(1));
  EXPECT(pool != NULL && lqc_pool_start(pool, 1, &error) == LQC_OK, "%s", error.message);
  lqc_runner runner = {pool, guarded_last(&thread, thread_bytes), thread_bytes, guarded_last(&shared, shared_bytes)};
  memset(runner.thread_scratch, 0xa5, thread_bytes);
  memset(runner.shared_scratch, 0xa5, shared_bytes);
  node.run(&node, &runner);
  lqc_pool_stop(pool);
  free(pool);
  guarded_free(&shared);
  guarded_free(&thread);
  guarded_free(&memory);
}

static void check_op(const op_test *t, uint32_t index) {
  static slot slots[SLOTS];
  lqc_op op;
  lqc_tensor tensors[SLOTS];
  void *operands[SLOTS];
  EXPECT(lqc_read_op(t->view, index, &op, NULL) == LQC_OK, "op %u", index);
  uint32_t count = op.input_count + op.output_count;
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t tensor = i < op.input_count ? op.inputs[i] : op.outputs[i - op.input_count];
    EXPECT(lqc_read_tensor(t->view, tensor, &tensors[i], NULL) == LQC_OK, "tensor %u", tensor);
    size_t bytes = tensors[i].info.bytes;
    if (bytes > SLOT_BYTES) {
      return;
    }
    if (slots[i].begin == NULL) {
      slots[i] = new_slot(SLOT_BYTES);
    }
    allow(&slots[i], PROT_READ | PROT_WRITE);
    operands[i] = place_in(&slots[i], bytes, t->at_front);
    if (i < op.input_count) {
      memcpy(operands[i], lqc_session_tensor(t->reference, tensor), bytes);
      allow(&slots[i], PROT_READ);
    } else {
      memset(operands[i], 0x5a, bytes);
    }
  }
  prepare_and_run(t, &op, tensors, tensors + op.input_count, operands);
  for (uint32_t i = op.input_count; i < count; ++i) {
    compare(t, &op, &tensors[i], operands[i]);
  }
}

void check_guarded_ops(const lqc_model *model, uint64_t seed) {
  const lqc_options options = {.isa = LQC_ISA_SCALAR, .keep_tensors = 1};
  lqc_model_view view;
  lqc_session *session;
  lqc_error error;
  lqc_kernels tables[LQC_ISA_COUNT];
  size_t bytes, table_count = tables_to_test(tables);
  void *memory = NULL;
  EXPECT(lqc_model_get_view(model, &view), "a model");
  EXPECT(lqc_session_size(model, &options, &bytes, &error) == LQC_OK, "%s", error.message);
  EXPECT(posix_memalign(&memory, LQC_ALIGNMENT, bytes) == 0, "%zu bytes", bytes);
  EXPECT(lqc_session_init(&session, model, &options, memory, bytes, &error) == LQC_OK, "%s", error.message);
  fill_every_input(model, session, seed);
  EXPECT(lqc_session_run(session, &error) == LQC_OK, "%s", error.message);
  for (uint32_t i = 0; i < view.ops.count; ++i) {
    for (size_t table = 0; table < 2 * table_count; ++table) {
      const op_test test = {&view, session, &tables[table / 2], table % 2};
      check_op(&test, i);
    }
  }
  lqc_session_destroy(session);
  free(memory);
}
