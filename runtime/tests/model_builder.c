#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "model_builder.h"

#include "guarded_ops.h"

#include <math.h>

/* ---- Describing ----------------------------------------------------------------------------------------------- */

void model_start(built_model *m) {
  memset(m, 0, sizeof(*m));
  m->version = LQC_FORMAT_VERSION;
}

uint32_t add_tensor(built_model *m, const char *name, lqc_dtype dtype, uint32_t height, uint32_t width,
                    uint32_t channels) {
  uint32_t index = m->tensor_count++, shape[3] = {height, width, channels};
  m->tensors[index].name = name;
  m->tensors[index].dtype = (uint8_t)dtype;
  m->tensors[index].rank = height ? 3 : 1;
  memcpy(m->tensors[index].shape, height ? shape : shape + 2, height ? 12 : 4);
  m->tensors[index].offset = m->arena_bytes;
  size_t bytes = lqc_array_bytes(dtype, m->tensors[index].shape, m->tensors[index].rank);
  m->arena_bytes += (bytes + 63) / 64 * 64;
  return index;
}

int32_t add_constant(built_model *m, lqc_dtype dtype, uint32_t rank, const uint32_t *shape, const void *data) {
  uint32_t index = m->constant_count++;
  m->constants[index].dtype = (uint8_t)dtype;
  m->constants[index].rank = rank;
  memcpy(m->constants[index].shape, shape, rank * sizeof(uint32_t));
  m->constants[index].bytes = lqc_array_bytes(dtype, shape, rank);
  m->constants[index].data = calloc(1, m->constants[index].bytes);
  if (data) {
    memcpy(m->constants[index].data, data, m->constants[index].bytes);
  }
  return (int32_t)index;
}

int32_t add_random_bits(built_model *m, uint32_t rank, const uint32_t *shape, uint64_t *seed) {
  int32_t index = add_constant(m, LQC_BIT, rank, shape, NULL);
  uint64_t *words = (uint64_t *)(void *)m->constants[index].data;
  uint32_t channels = shape[rank - 1], per_pixel = lqc_words(channels);
  for (size_t i = 0; i < m->constants[index].bytes / 8; ++i) {
    uint64_t mask = i % per_pixel == per_pixel - 1 && channels % 64 ? ((uint64_t)1 << channels % 64) - 1 : ~(uint64_t)0;
    words[i] = random_u64(seed) & mask;
  }
  return index;
}

int32_t add_random_floats(built_model *m, uint32_t rank, const uint32_t *shape, uint64_t *seed) {
  int32_t index = add_constant(m, LQC_FLOAT32, rank, shape, NULL);
  float *values = (float *)(void *)m->constants[index].data;
  for (size_t i = 0; i < m->constants[index].bytes / 4; ++i) {
    values[i] = ((float)random_below(seed, 65) - 32.0f) / 8.0f;
  }
  return index;
}

lqc_op make_op(lqc_op_kind kind, const char *name, uint32_t input, uint32_t output) {
  return (lqc_op){.name = name,
                  .kind = kind,
                  .input_count = 1,
                  .output_count = 1,
                  .inputs = {input},
                  .outputs = {output},
                  .window = {1, 1, 1, 1, 1, 1, 0, 0},
                  .groups = 1,
                  .activation = {-INFINITY, INFINITY},
                  .block_h = 1,
                  .block_w = 1,
                  .weights = -1,
                  .thresholds = -1,
                  .invert = -1,
                  .multiplier = -1,
                  .offset = -1,
                  .bias = -1,
                  .slope = -1};
}

uint32_t add_op(built_model *m, lqc_op op) {
  m->ops[m->op_count].op = op;
  return m->op_count++;
}

void model_end(built_model *m) {
  for (uint32_t i = 0; i < m->constant_count; ++i) {
    free(m->constants[i].data);
  }
}

/* ---- Writing: parents before children, since offsets point forward ---------------------------------------------- */

typedef struct writer {
  uint8_t *data;
  size_t size, room;
} writer;

static void reserve(writer *w, size_t size) {
  if (size > w->room) {
    w->room = 2 * size + 1024;
    uint8_t *grown = aligned_alloc(64, (w->room + 63) / 64 * 64);
    memset(grown, 0, w->room);
    if (w->data) {
      memcpy(grown, w->data, w->size);
      free(w->data);
    }
    w->data = grown;
  }
  w->size = size;
}

static void put(writer *w, size_t place, const void *value, size_t bytes) {
  memcpy(w->data + place, value, bytes);
}
static void put_u32(writer *w, size_t place, uint32_t value) {
  put(w, place, &value, 4);
}
static void link_here(writer *w, size_t field, size_t target) {
  put_u32(w, field, (uint32_t)(target - field));
}

#define MAX_FIELDS 12

typedef struct table {
  size_t at, fields[MAX_FIELDS]; /* places in the file; 0 where absent */
} table;

/* sizes[i] bytes for field i, 0: absent. Structs of 32 bytes are aligned to 4. */
static table put_table(writer *w, size_t link, uint32_t count, const uint8_t *sizes) {
  table t = {0};
  size_t vtable = (w->size + 7) / 8 * 8;
  size_t start = (vtable + 4 + 2 * count + 7) / 8 * 8;
  size_t end = start + 4;
  reserve(w, start + 4);
  for (uint32_t i = 0; i < count; ++i) {
    if (sizes[i]) {
      size_t alignment = sizes[i] > 8 ? 4 : sizes[i];
      t.fields[i] = (end + alignment - 1) / alignment * alignment;
      end = t.fields[i] + sizes[i];
    }
  }
  reserve(w, end);
  uint16_t header[2] = {(uint16_t)(4 + 2 * count), (uint16_t)(end - start)};
  put(w, vtable, header, 4);
  for (uint32_t i = 0; i < count; ++i) {
    uint16_t offset = t.fields[i] ? (uint16_t)(t.fields[i] - start) : 0;
    put(w, vtable + 4 + 2 * i, &offset, 2);
  }
  put_u32(w, start, (uint32_t)(start - vtable));
  link_here(w, link, start);
  t.at = start;
  return t;
}

/* Returns the place of the first element, a multiple of `alignment` plus `misalignment`. */
static size_t put_vector(writer *w, size_t link, uint32_t count, size_t element_bytes, size_t alignment,
                         size_t misalignment, const void *elements) {
  size_t first = (w->size + 4 + alignment - 1) / alignment * alignment + misalignment;
  reserve(w, first + count * element_bytes);
  put_u32(w, first - 4, count);
  if (elements && count) {
    put(w, first, elements, count * element_bytes);
  }
  link_here(w, link, first - 4);
  return first;
}

static void put_string(writer *w, size_t link, const char *text) {
  put_vector(w, link, (uint32_t)strlen(text), 1, 4, 0, text);
  reserve(w, w->size + 1);
}

static void put_i32(writer *w, size_t place, int32_t value) {
  put(w, place, &value, 4);
}

static void put_step(writer *w, size_t link, const lqc_step *step) {
  static const uint8_t sizes[] = {1, 4, 4, 4, 4, 4};
  table t = put_table(w, link, 6, sizes);
  uint8_t kind = (uint8_t)step->kind;
  put(w, t.fields[0], &kind, 1);
  put_i32(w, t.fields[1], step->multiplier);
  put_i32(w, t.fields[2], step->offset);
  put_u32(w, t.fields[3], step->operand);
  put_i32(w, t.fields[4], step->shift);
  put_i32(w, t.fields[5], step->operand_shift);
}

static void put_store(writer *w, size_t link, const lqc_store *store) {
  static const uint8_t sizes[] = {4, 4, 4};
  table t = put_table(w, link, 3, sizes);
  put_i32(w, t.fields[0], store->shift);
  put_i32(w, t.fields[1], store->thresholds);
  put_i32(w, t.fields[2], store->invert);
}

/* Counts beyond the bounds, in models that are to be refused, repeat the last element. */
static void put_fixed_point(writer *w, size_t link, const lqc_fixed_point *fixed) {
  static const uint8_t sizes[] = {4, 4};
  table t = put_table(w, link, 2, sizes);
  size_t steps = put_vector(w, t.fields[0], fixed->step_count, 4, 4, 0, NULL);
  size_t stores = put_vector(w, t.fields[1], fixed->store_count, 4, 4, 0, NULL);
  for (uint32_t i = 0; i < fixed->step_count; ++i) {
    put_step(w, steps + 4 * i, &fixed->steps[i < LQC_MAX_STEPS ? i : LQC_MAX_STEPS - 1]);
  }
  for (uint32_t i = 0; i < fixed->store_count; ++i) {
    put_store(w, stores + 4 * i, &fixed->stores[i < LQC_MAX_OUTPUTS ? i : LQC_MAX_OUTPUTS - 1]);
  }
}

static void put_params(writer *w, size_t link, const lqc_op *op) {
  static const uint8_t bconv[] = {32, 4, 1, 4, 4, 1, 1, 4, 4, 4, 4, 0},
                       bconv_fixed[] = {32, 4, 1, 4, 4, 1, 1, 4, 4, 4, 4, 4}, int8_conv[] = {32, 4, 4, 4, 4},
                       one_offset[] = {4}, window_i32[] = {32, 4}, two_i32[] = {4, 4}, conv[] = {32, 4, 4, 8, 4},
                       window[] = {32}, affine[] = {4, 4, 8}, one_byte[] = {1}, slice[] = {4, 4, 4, 4};
  table t;
  uint8_t byte;
  switch (op->kind) {
  case LQC_OP_BINARY_CONV_2D:
    t = put_table(w, link, 12, op->fixed_point.store_count ? bconv_fixed : bconv);
    put_u32(w, t.fields[1], op->groups);
    put(w, t.fields[2], &op->pad_value, 1);
    put_i32(w, t.fields[3], op->weights);
    put_u32(w, t.fields[4], op->clip_limit);
    put(w, t.fields[5], &op->step_log2, 1);
    byte = (uint8_t)op->epilogue;
    put(w, t.fields[6], &byte, 1);
    put_i32(w, t.fields[7], op->thresholds);
    put_i32(w, t.fields[8], op->invert);
    put_i32(w, t.fields[9], op->multiplier);
    put_i32(w, t.fields[10], op->offset);
    put(w, t.fields[0], &op->window, 32);
    if (t.fields[11]) {
      put_fixed_point(w, t.fields[11], &op->fixed_point);
    }
    return;
  case LQC_OP_INT8_CONV_2D:
    t = put_table(w, link, 5, int8_conv);
    put_u32(w, t.fields[1], op->groups);
    put_i32(w, t.fields[2], op->weights);
    put_i32(w, t.fields[3], op->bias);
    put(w, t.fields[0], &op->window, 32);
    put_fixed_point(w, t.fields[4], &op->fixed_point);
    return;
  case LQC_OP_ELEMENTWISE:
    t = put_table(w, link, 1, one_offset);
    put_fixed_point(w, t.fields[0], &op->fixed_point);
    return;
  case LQC_OP_BIT_MAX_POOL_2D:
    t = put_table(w, link, 2, window_i32);
    put_i32(w, t.fields[1], op->invert);
    break;
  case LQC_OP_BITPACK:
    t = put_table(w, link, 2, two_i32);
    put_i32(w, t.fields[0], op->thresholds);
    put_i32(w, t.fields[1], op->invert);
    return;
  case LQC_OP_CONV_2D:
    t = put_table(w, link, 5, conv);
    put_i32(w, t.fields[1], op->weights);
    put_i32(w, t.fields[2], op->bias);
    put(w, t.fields[3], &op->activation, 8);
    put_u32(w, t.fields[4], op->groups);
    break;
  case LQC_OP_MAX_POOL_2D:
  case LQC_OP_AVERAGE_POOL_2D:
    t = put_table(w, link, 1, window);
    break;
  case LQC_OP_AFFINE:
    t = put_table(w, link, 3, affine);
    put_i32(w, t.fields[0], op->multiplier);
    put_i32(w, t.fields[1], op->offset);
    put(w, t.fields[2], &op->activation, 8);
    return;
  case LQC_OP_ARITHMETIC:
  case LQC_OP_FUNCTION:
    t = put_table(w, link, 1, one_byte);
    byte = (uint8_t)(op->kind == LQC_OP_FUNCTION ? (int)op->function : (int)op->arithmetic);
    put(w, t.fields[0], &byte, 1);
    return;
  case LQC_OP_PRELU:
    t = put_table(w, link, 1, one_offset);
    put_i32(w, t.fields[0], op->slope);
    return;
  case LQC_OP_SLICE:
    t = put_table(w, link, 4, slice);
    put_i32(w, t.fields[0], op->begin_h);
    put_i32(w, t.fields[1], op->begin_w);
    put_i32(w, t.fields[2], op->begin_c);
    put(w, t.fields[3], &op->value, 4);
    return;
  case LQC_OP_DEPTH_TO_SPACE:
    t = put_table(w, link, 2, two_i32);
    put_u32(w, t.fields[0], op->block_h);
    put_u32(w, t.fields[1], op->block_w);
    return;
  default:
    put_table(w, link, 0, NULL);
    return;
  }
  put(w, t.fields[0], &op->window, 32);
}

static void put_tensor(writer *w, size_t link, const built_model *m, uint32_t i) {
  const uint8_t fractions = m->tensors[i].fraction_count ? 4 : 0;
  const uint8_t sizes[] = {4, 1, 4, fractions, 8};
  table t = put_table(w, link, 5, sizes);
  put(w, t.fields[1], &m->tensors[i].dtype, 1);
  put(w, t.fields[4], &m->tensors[i].offset, 8);
  put_string(w, t.fields[0], m->tensors[i].name);
  put_vector(w, t.fields[2], m->tensors[i].rank, 4, 4, 0, m->tensors[i].shape);
  if (fractions) {
    put_vector(w, t.fields[3], m->tensors[i].fraction_count, 1, 4, 0, m->tensors[i].fraction_bits);
  }
}

/* Bits without gaps between the rows. What a test has put above the last bit of all stays there. */
static void put_bits(writer *w, size_t field, const built_model *m, uint32_t i) {
  const uint32_t channels = m->constants[i].shape[m->constants[i].rank - 1];
  const uint64_t *padded = (const uint64_t *)(const void *)m->constants[i].data;
  size_t rows = m->constants[i].bytes / 8 / lqc_words(channels), words = (rows * channels + 63) / 64;
  uint64_t *dense = calloc(words, sizeof(*dense));
  for (size_t r = 0; r < rows; ++r) {
    const uint64_t *row = padded + r * lqc_words(channels);
    size_t bits = r + 1 < rows ? channels : words * 64 - r * channels;
    for (size_t c = 0; c < bits && c < (size_t)64 * lqc_words(channels); ++c) {
      size_t bit = r * channels + c;
      dense[bit / 64] |= (row[c / 64] >> (c % 64) & 1) << (bit % 64);
    }
  }
  put_vector(w, field, (uint32_t)(words * 8), 1, 16, m->constants[i].misalignment, dense);
  free(dense);
}

static void put_constant(writer *w, size_t link, const built_model *m, uint32_t i) {
  static const uint8_t sizes[] = {1, 4, 4};
  table t = put_table(w, link, 3, sizes);
  put(w, t.fields[0], &m->constants[i].dtype, 1);
  put_vector(w, t.fields[1], m->constants[i].rank, 4, 4, 0, m->constants[i].shape);
  if (m->constants[i].dtype == LQC_BIT && m->constants[i].rank > 1) {
    put_bits(w, t.fields[2], m, i);
    return;
  }
  put_vector(w, t.fields[2], (uint32_t)m->constants[i].bytes, 1, 16, m->constants[i].misalignment,
             m->constants[i].data);
}

static void put_op(writer *w, size_t link, const built_model *m, uint32_t i) {
  const uint8_t params = m->ops[i].no_params ? 0 : 4;
  const uint8_t sizes[] = {4, 4, 4, 1, params};
  const lqc_op *op = &m->ops[i].op;
  table t = put_table(w, link, 5, sizes);
  uint8_t kind = (uint8_t)op->kind;
  put(w, t.fields[3], &kind, 1);
  put_string(w, t.fields[0], op->name);
  put_vector(w, t.fields[1], op->input_count, 4, 4, 0, op->inputs);
  put_vector(w, t.fields[2], op->output_count, 4, 4, 0, op->outputs);
  if (params) {
    put_params(w, t.fields[4], op);
  }
}

built_file build_file(const built_model *m) {
  static const uint8_t sizes[] = {4, 4, 4, 4, 4, 4, 4, 4, 8};
  writer w = {0};
  reserve(&w, 8);
  put(&w, 4, "LCB1", 4);
  table t = put_table(&w, 0, 9, sizes);
  put_u32(&w, t.fields[0], m->version);
  put(&w, t.fields[8], &m->arena_bytes, 8);
  put_string(&w, t.fields[1], "C tests");
  put_string(&w, t.fields[2], "model");
  put_vector(&w, t.fields[6], m->input_count, 4, 4, 0, m->inputs);
  put_vector(&w, t.fields[7], m->output_count, 4, 4, 0, m->outputs);
  size_t tensors = put_vector(&w, t.fields[3], m->tensor_count, 4, 4, 0, NULL);
  size_t constants = put_vector(&w, t.fields[4], m->constant_count, 4, 4, 0, NULL);
  size_t ops = put_vector(&w, t.fields[5], m->op_count, 4, 4, 0, NULL);
  for (uint32_t i = 0; i < m->tensor_count; ++i) {
    put_tensor(&w, tensors + 4 * i, m, i);
  }
  for (uint32_t i = 0; i < m->op_count; ++i) {
    put_op(&w, ops + 4 * i, m, i);
  }
  for (uint32_t i = 0; i < m->constant_count; ++i) {
    put_constant(&w, constants + 4 * i, m, i);
  }
  return (built_file){w.data, w.size};
}

uint8_t *exact_copy(const uint8_t *data, size_t size) {
  void *copy = NULL;
  if (posix_memalign(&copy, LQC_FILE_ALIGNMENT, size ? size : 1) != 0) {
    FAIL("no memory");
  }
  memcpy(copy, data, size);
  return copy;
}

test_session open_session(const built_model *m, const lqc_options *options) {
  test_session s = {.file = build_file(m)};
  lqc_error error;
  size_t bytes;
  EXPECT(lqc_model_load(&s.model, s.file.data, s.file.size, &error) == LQC_OK, "%s", error.message);
  EXPECT(lqc_session_size(&s.model, options, &bytes, &error) == LQC_OK, "%s", error.message);
  EXPECT(posix_memalign(&s.memory, LQC_ALIGNMENT, bytes) == 0, "%zu bytes", bytes);
  memset(s.memory, 0xa5, bytes);
  EXPECT(lqc_session_init(&s.session, &s.model, options, s.memory, bytes, &error) == LQC_OK, "%s", error.message);
  return s;
}

void close_session(test_session *s) {
  lqc_session_destroy(s->session);
  free(s->memory);
  free(s->file.data);
}

void *run_model(const built_model *m, const void *const *inputs, uint32_t tensor) {
  lqc_tensor_info info;
  lqc_error error;
  void *copy = NULL;
  for (int isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
    if (!lqc_isa_available((lqc_isa)isa)) {
      continue;
    }
    const lqc_options options = {
        .threads = lqc_pool_max_threads() == 1 ? 1 : 2, .isa = (lqc_isa)isa, .keep_tensors = 1};
    test_session s = open_session(m, &options);
    if (copy == NULL) { /* once: it takes every instruction set */
      check_guarded_ops(&s.model, 5);
    }
    for (uint32_t i = 0; i < m->input_count; ++i) {
      EXPECT(lqc_model_tensor_info(&s.model, m->inputs[i], &info) == LQC_OK, "input %u", i);
      memcpy(lqc_session_input(s.session, i), inputs[i], info.bytes);
    }
    EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
    EXPECT(lqc_model_tensor_info(&s.model, tensor, &info) == LQC_OK, "tensor %u", tensor);
    const void *found = lqc_session_tensor(s.session, tensor);
    EXPECT(copy == NULL || memcmp(copy, found, info.bytes) == 0, "'%s' on %s", info.name, lqc_isa_name((lqc_isa)isa));
    copy = copy ? copy : malloc(info.bytes);
    memcpy(copy, found, info.bytes);
    close_session(&s);
  }
  return copy;
}
