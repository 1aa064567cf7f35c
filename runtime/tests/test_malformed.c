/* Damaged files: every prefix, and every byte changed. Meant for the sanitizers: what must not happen is an access
 * outside the file or the session; what must happen is a status and a message of one line. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "hostile.h"

/* Status of lqc_session_size(), the first that reads the whole model. */
static lqc_status size_status(const built_model *m, lqc_error *error) {
  built_file file = build_file(m);
  lqc_model model;
  size_t bytes;
  EXPECT(lqc_model_load(&model, file.data, file.size, error) == LQC_OK, "%s", error->message);
  lqc_status status = lqc_session_size(&model, NULL, &bytes, error);
  free(file.data);
  return status;
}

/* Small files that would keep init busy for long. One such op is accepted where it is quick enough. */
static void test_work(void) {
  built_model m;
  lqc_error error;
  for (uint32_t pools = 1; pools <= 16; pools += 15) { /* windows with 131071 kinds of border */
    model_start(&m);
    m.inputs[m.input_count++] = add_tensor(&m, "x", LQC_INT8, 150000, 1, 1);
    for (uint32_t i = 0; i < pools; ++i) {
      add_tensor(&m, "y", LQC_INT8, 150000, 1, 1);
      lqc_op op = make_op(LQC_OP_MAX_POOL_2D, "pool", i, i + 1);
      op.window = (lqc_window){65535, 1, 1, 1, 1, 1, 65534, 0};
      add_op(&m, op);
    }
    m.outputs[m.output_count++] = pools;
    lqc_status status = size_status(&m, &error);
    EXPECT(status == (pools == 1 ? LQC_OK : LQC_ERROR_UNSUPPORTED), "%u pools: status %d", pools, (int)status);
    EXPECT(pools == 1 || strstr(error.message, "more work"), "%s", error.message);
    model_end(&m);
  }
  for (uint32_t kernel = 64; kernel <= 16384; kernel += 16320) { /* borders times taps */
    const uint32_t weights[] = {1, kernel, 1, 1}, one[] = {1};
    uint64_t seed = 5;
    model_start(&m);
    m.inputs[m.input_count++] = add_tensor(&m, "x", LQC_BIT, 20000, 1, 1);
    m.outputs[m.output_count++] = add_tensor(&m, "y", LQC_BIT, 20000, 1, 1);
    lqc_op op = make_op(LQC_OP_BINARY_CONV_2D, "conv", 0, 1);
    op.window = (lqc_window){kernel, 1, 1, 1, 1, 1, kernel / 2, 0};
    op.pad_value = -1;
    op.weights = add_random_bits(&m, 4, weights, &seed);
    op.thresholds = add_constant(&m, LQC_INT8, 1, one, NULL);
    add_op(&m, op);
    lqc_status status = size_status(&m, &error);
    EXPECT(status == (kernel == 64 ? LQC_OK : LQC_ERROR_UNSUPPORTED), "kernel %u: status %d", kernel, (int)status);
    model_end(&m);
  }
}

/* Many ops may name one constant; reading a megabyte for each of them is not free. */
static void test_shared_constant(void) {
  const uint32_t many[] = {1u << 18};
  built_model m;
  lqc_error error;
  model_start(&m);
  int32_t constant = add_constant(&m, LQC_FLOAT32, 1, many, NULL);
  m.inputs[m.input_count++] = add_tensor(&m, "x", LQC_FLOAT32, 0, 0, many[0]);
  for (uint32_t i = 0; i + 1 < BUILDER_ITEMS; ++i) {
    add_tensor(&m, "y", LQC_FLOAT32, 0, 0, many[0]);
    lqc_op op = make_op(LQC_OP_AFFINE, "norm", i, i + 1);
    op.multiplier = op.offset = constant;
    add_op(&m, op);
  }
  m.outputs[m.output_count++] = BUILDER_ITEMS - 1;
  EXPECT(size_status(&m, &error) == LQC_ERROR_UNSUPPORTED && strstr(error.message, "more work"), "%s", error.message);
  model_end(&m);
}

/* A Reshape may lie exactly where its input does, not half over it. */
static void test_half_over(void) {
  built_model m;
  lqc_error error;
  for (uint64_t offset = 0; offset <= 128; offset += 64) {
    model_start(&m);
    m.inputs[m.input_count++] = add_tensor(&m, "x", LQC_FLOAT32, 1, 1, 32);
    m.outputs[m.output_count++] = add_tensor(&m, "y", LQC_FLOAT32, 0, 0, 32);
    add_op(&m, make_op(LQC_OP_RESHAPE, "flatten", 0, 1));
    m.tensors[1].offset = offset;
    lqc_status status = size_status(&m, &error);
    EXPECT(status == (offset == 64 ? LQC_ERROR_MALFORMED : LQC_OK), "offset %d: %d", (int)offset, (int)status);
    model_end(&m);
  }
}

/* Damage that no field of the builder makes: offsets of the root table and of its first field, a string's end. */
static void expect_damage(const built_file *file, size_t at, uint32_t value, size_t bytes, const char *word) {
  lqc_model model;
  lqc_error error;
  uint8_t *copy = exact_copy(file->data, file->size);
  memcpy(copy + at, &value, bytes); /* little-endian, as all machines this builds for */
  lqc_status status = lqc_model_load(&model, copy, file->size, &error);
  EXPECT(status != LQC_OK && strstr(error.message, word), "byte %zu: %s", at, status ? error.message : "accepted");
  free(copy);
}

static void test_raw_damage(void) {
  built_model m;
  sample_network(&m, 7);
  built_file file = build_file(&m);
  uint32_t root, vtable_distance;
  memcpy(&root, file.data, 4);
  memcpy(&vtable_distance, file.data + root, 4);
  size_t name = 0;
  while (memcmp(file.data + name, "unpacked", 9) != 0) {
    ++name;
  }
  expect_damage(&file, 0, root + 2, 4, "not a multiple of 4");
  expect_damage(&file, 0, (uint32_t)file.size - 3, 4, "outside the file");
  expect_damage(&file, root - vtable_distance + 4, 2, 2, "lies outside its table");
  expect_damage(&file, root - vtable_distance + 4, 0xfffc, 2, "lies outside its table");
  expect_damage(&file, name + 8, 'x', 1, "terminating zero");
  free(file.data);
  model_end(&m);
}

/* Every prefix of a good file, and many changes of it. */
static void test_damage(void (*sample)(built_model *m, uint64_t seed)) {
  built_model m;
  sample(&m, 7);
  built_file file = build_file(&m);
  EXPECT(use_file(file.data, file.size).ran, "the file itself");
  for (size_t size = 0; size < file.size; ++size) {
    lqc_status status = use_file(file.data, size).status;
    lqc_model model;
    EXPECT(status != LQC_OK, "prefix of %zu of %zu bytes", size, file.size);
    EXPECT(lqc_model_load(&model, file.data, size, NULL) == status, "prefix of %zu bytes, without an error", size);
    EXPECT((status == LQC_ERROR_NOT_A_MODEL) == (size < 8), "prefix of %zu bytes: status %d", size, (int)status);
  }
  static const uint8_t changes[] = {0x01, 0x08, 0x80, 0xff};
  size_t refused = 0, tried = 0;
  uint8_t *copy = exact_copy(file.data, file.size);
  for (size_t i = 0; i < file.size; ++i) {
    for (size_t c = 0; c < sizeof(changes); ++c) {
      copy[i] = (uint8_t)(file.data[i] ^ changes[c]);
      refused += use_file(copy, file.size).status != LQC_OK;
      ++tried;
    }
    copy[i] = file.data[i];
  }
  EXPECT(refused > tried / 8, "only %zu of %zu changes were refused", refused, tried);
  uint64_t seed = 11;
  for (int round = 0; round < 5000; ++round) { /* several words at once */
    size_t places[3];
    for (int i = 0; i < 3; ++i) {
      places[i] = random_below(&seed, (uint32_t)file.size / 4) * 4;
      uint32_t word = (uint32_t)random_u64(&seed) >> random_below(&seed, 32);
      memcpy(copy + places[i], &word, 4);
    }
    use_file(copy, file.size);
    for (int i = 0; i < 3; ++i) {
      memcpy(copy + places[i], file.data + places[i], 4);
    }
  }
  free(copy);
  free(file.data);
  model_end(&m);
}

int main(void) {
  test_shared_constant();
  test_half_over();
  test_raw_damage();
  test_work();
  test_damage(sample_network);
  test_damage(integer_network);
  test_damage(plain_network);
  return 0;
}
