/* Sessions: memory, options, determinism for any number of threads, inputs that are refused. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>
#include <time.h>

#include "hostile.h"
#include "pool.h"

static void fill_image(float *image, uint64_t seed) {
  for (int i = 0; i < 6 * 5 * 3; ++i) {
    image[i] = ((float)random_below(&seed, 257) - 128.0f) / 64.0f;
  }
}

static void test_memory(void) {
  built_model m;
  lqc_model model;
  lqc_error error;
  lqc_session *session = NULL;
  size_t bytes;
  sample_network(&m, 7);
  built_file file = build_file(&m);
  EXPECT(lqc_model_load(&model, file.data, file.size, &error) == LQC_OK, "%s", error.message);
  for (uint32_t threads = 0; threads <= 3; ++threads) {
    lqc_options options = {.threads = threads, .keep_tensors = threads == 2};
    if (threads > lqc_pool_max_threads()) {
      break;
    }
    EXPECT(lqc_session_size(&model, &options, &bytes, &error) == LQC_OK, "%s", error.message);
    guarded memory = guarded_new(bytes); /* a write beyond the session's memory faults */
    uint8_t *start = guarded_last(&memory, bytes);
    EXPECT((uintptr_t)start % LQC_ALIGNMENT == 0, "%zu bytes are not a multiple of the alignment", bytes);
    lqc_status status = lqc_session_init(&session, &model, &options, start, bytes - 1, &error);
    EXPECT(status == LQC_ERROR_ARENA_TOO_SMALL && session == NULL, "status %d", (int)status);
    status = lqc_session_init(&session, &model, &options, start + 8, bytes, &error);
    EXPECT(status == LQC_ERROR_ALIGNMENT && session == NULL, "status %d", (int)status);
    EXPECT(lqc_session_init(&session, &model, &options, start, bytes, &error) == LQC_OK, "%s", error.message);
    for (int run = 0; run < 3; ++run) {
      fill_image(lqc_session_input(session, 0), 3);
      EXPECT(lqc_session_run(session, &error) == LQC_OK, "%s", error.message);
    }
    lqc_session_destroy(session);
    session = NULL;
    munmap(memory.end - memory.bytes, memory.bytes);
  }
  free(file.data);
  model_end(&m);
}

/* Every size that is too small is refused, before anything is written beyond it or over something else. */
static void test_too_small(void (*build)(built_model *m, uint64_t seed)) {
  built_model m;
  lqc_model model;
  lqc_error error;
  lqc_session *session = NULL;
  build(&m, 7);
  built_file file = build_file(&m);
  EXPECT(lqc_model_load(&model, file.data, file.size, &error) == LQC_OK, "%s", error.message);
  for (lqc_isa isa = LQC_ISA_AUTO; isa <= LQC_ISA_SCALAR; ++isa) {
    lqc_options options = {.isa = isa};
    size_t needed;
    EXPECT(lqc_session_size(&model, &options, &needed, &error) == LQC_OK, "%s", error.message);
    guarded memory = guarded_new(needed);
    for (size_t bytes = 0; bytes < needed; bytes += LQC_ALIGNMENT) {
      lqc_status status = lqc_session_init(&session, &model, &options, guarded_last(&memory, bytes), bytes, &error);
      EXPECT(status == LQC_ERROR_ARENA_TOO_SMALL && session == NULL, "%zu of %zu bytes: status %d", bytes, needed,
             (int)status);
    }
    guarded_free(&memory);
  }
  free(file.data);
  model_end(&m);
}

static void test_wrong_calls(void) {
  built_model m;
  lqc_error error;
  size_t bytes;
  sample_network(&m, 7);
  test_session s = open_session(&m, NULL);
  lqc_session *session = NULL;
  lqc_op_info info;
  lqc_model empty;
  memset(&empty, 0, sizeof(empty));
  EXPECT(lqc_session_size(NULL, NULL, &bytes, &error) == LQC_ERROR_NULL, "model");
  EXPECT(lqc_session_size(&empty, NULL, &bytes, &error) == LQC_ERROR_NULL, "model that was not loaded");
  EXPECT(lqc_session_size(&s.model, NULL, NULL, &error) == LQC_ERROR_NULL, "bytes");
  EXPECT(lqc_session_init(&session, &s.model, NULL, NULL, 1, &error) == LQC_ERROR_NULL, "memory");
  EXPECT(lqc_session_init(NULL, &s.model, NULL, s.memory, 1, &error) == LQC_ERROR_NULL, "session");
  EXPECT(lqc_session_run(NULL, &error) == LQC_ERROR_NULL, "session");
  const lqc_options wrong[] = {
      {.threads = LQC_MAX_THREADS + 1},
      {.isa = LQC_ISA_COUNT},
      {.isa = (lqc_isa)-1},
#if defined(__x86_64__)
      {.isa = LQC_ISA_NEON},
#else
      {.isa = LQC_ISA_AVX2},
#endif
  };
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i) {
    EXPECT(lqc_session_size(&s.model, &wrong[i], &bytes, &error) == LQC_ERROR_OPTION, "option %zu", i);
  }
  EXPECT(lqc_session_input(s.session, 1) == NULL && lqc_session_output(s.session, 2) == NULL, "indices");
  EXPECT(lqc_session_tensor(s.session, 0) == NULL, "without keep_tensors");
  EXPECT(lqc_session_op_info(s.session, 13, &info) != LQC_OK, "op index");
  EXPECT(lqc_session_op_info(s.session, 4, &info) == LQC_OK && strcmp(info.name, "binary") == 0, "op");
  EXPECT(strcmp(info.type, "BinaryConv2D") == 0 && info.binary_macs == 9 * 9 * 8 * 70 && info.float_macs == 0, "op");
  EXPECT(info.nanoseconds == 0, "not profiled");
  lqc_session_destroy(NULL);
  close_session(&s);
  model_end(&m);
}

static void test_inputs(void) {
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  built_model m;
  lqc_error error;
  sample_network(&m, 7);
  test_session s = open_session(&m, NULL);
  float *image = lqc_session_input(s.session, 0);
  for (int i = 0; i < 3; ++i) {
    fill_image(image, 3);
    image[17] = bad[i];
    EXPECT(lqc_session_run(s.session, &error) == LQC_ERROR_NOT_FINITE, "%g", (double)bad[i]);
    EXPECT(strstr(error.message, "'image'") && strstr(error.message, "row 1, column 0, channel 2"), "%s",
           error.message);
  }
  fill_image(image, 3);
  EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "after errors: %s", error.message);
  close_session(&s);
  model_end(&m);

  model_start(&m);
  m.inputs[m.input_count++] = add_tensor(&m, "bits", LQC_BIT, 2, 2, 70);
  m.outputs[m.output_count++] = add_tensor(&m, "signs", LQC_FLOAT32, 2, 2, 70);
  add_op(&m, make_op(LQC_OP_UNPACK, "unpack", 0, 1));
  s = open_session(&m, NULL);
  uint64_t *words = lqc_session_input(s.session, 0);
  words[5] = 1u << 6;
  EXPECT(lqc_session_run(s.session, &error) == LQC_ERROR_INPUT, "tail bit");
  EXPECT(strstr(error.message, "row 1, column 0"), "%s", error.message);
  words[5] = 1u << 5;
  EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
  close_session(&s);
  model_end(&m);
}

/* All tensors are equal for every instruction set, every number of threads, and with or without keep_tensors. */
static void test_determinism(void) {
  built_model m;
  lqc_error error;
  sample_network(&m, 7);
  lqc_options reference_options = {.isa = LQC_ISA_SCALAR, .keep_tensors = 1, .profile = 1};
  test_session reference = open_session(&m, &reference_options);
  for (uint64_t seed = 0; seed < 4; ++seed) {
    fill_image(lqc_session_input(reference.session, 0), seed);
    EXPECT(lqc_session_run(reference.session, &error) == LQC_OK, "%s", error.message);
    uint64_t total = 0;
    for (size_t i = 0; i < m.op_count; ++i) {
      lqc_op_info info;
      lqc_session_op_info(reference.session, i, &info);
      total += info.nanoseconds;
    }
    EXPECT(total > 0, "profile");
    for (int isa = LQC_ISA_AUTO; isa < LQC_ISA_COUNT; ++isa) {
      for (uint32_t threads = 1; threads <= 5 && lqc_isa_available((lqc_isa)isa); ++threads) {
        lqc_options options = {.threads = threads, .isa = (lqc_isa)isa, .keep_tensors = threads % 2 == 0};
        if (threads > lqc_pool_max_threads()) {
          continue;
        }
        test_session s = open_session(&m, &options);
        EXPECT(isa == LQC_ISA_AUTO || lqc_session_isa(s.session) == (lqc_isa)isa, "isa %d", isa);
        fill_image(lqc_session_input(s.session, 0), seed);
        EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
        for (size_t t = 0; options.keep_tensors && t < m.tensor_count; ++t) {
          lqc_tensor_info info;
          lqc_model_tensor_info(&s.model, t, &info);
          EXPECT(memcmp(lqc_session_tensor(s.session, t), lqc_session_tensor(reference.session, t), info.bytes) == 0,
                 "isa %d threads %u tensor %s", isa, threads, info.name);
        }
        for (size_t o = 0; o < 2; ++o) {
          EXPECT(memcmp(lqc_session_output(s.session, o), lqc_session_output(reference.session, o), o ? 32 : 40) == 0,
                 "isa %d threads %u output %zu", isa, threads, o);
        }
        close_session(&s);
      }
    }
  }
  close_session(&reference);
  model_end(&m);
}

/* Two sessions on one model, in turn and one of them refused in between: neither disturbs the other. */
static void test_two_sessions(void) {
  built_model m;
  lqc_error error;
  float expected[2][10];
  sample_network(&m, 7);
  test_session first = open_session(&m, NULL), second = open_session(&m, NULL);
  lqc_session *sessions[2] = {first.session, second.session};
  for (uint64_t round = 0; round < 4; ++round) {
    for (uint64_t i = 0; i < 2; ++i) {
      float *image = lqc_session_input(sessions[i], 0);
      if (round == 2) {
        image[0] = NAN;
        EXPECT(lqc_session_run(sessions[i], &error) == LQC_ERROR_NOT_FINITE, "%s", error.message);
      }
      fill_image(image, (i + round) % 2);
    }
    for (uint64_t i = 0; i < 2; ++i) {
      float *scores = expected[(i + round) % 2];
      EXPECT(lqc_session_run(sessions[i], &error) == LQC_OK && error.status == LQC_OK, "%s", error.message);
      if (round == 0) {
        memcpy(scores, lqc_session_output(sessions[i], 0), sizeof(expected[0]));
      }
      EXPECT(memcmp(lqc_session_output(sessions[i], 0), scores, sizeof(expected[0])) == 0, "round %d", (int)round);
    }
  }
  EXPECT(memcmp(expected[0], expected[1], sizeof(expected[0])) != 0, "both images give the same scores");
  close_session(&second);
  close_session(&first);
  model_end(&m);
}

/* Many sessions on one model, each in a thread of its own and two of them with workers: for the thread sanitizer. */
typedef struct shared_model {
  const lqc_model *model;
  const lqc_session *reference; /* has run with inputs of seed 3 */
} shared_model;

static void expect_same_outputs(const shared_model *shared, const lqc_session *session, size_t item) {
  for (size_t i = 0; i < lqc_model_output_count(shared->model); ++i) {
    lqc_tensor_info info;
    EXPECT(lqc_model_tensor_info(shared->model, lqc_model_output_tensor(shared->model, i), &info) == LQC_OK, "info");
    const void *expected = lqc_session_output(shared->reference, i);
    EXPECT(memcmp(lqc_session_output(session, i), expected, info.bytes) == 0, "item %zu, '%s'", item, info.name);
  }
}

static void use_model(const void *context, uint32_t thread, size_t begin, size_t end) {
  const shared_model *shared = context;
  lqc_options options = {.threads = thread < 2 && lqc_pool_max_threads() > 1 ? 2 : 1};
  for (size_t i = begin; i < end; ++i) {
    lqc_session *session = NULL;
    lqc_error error;
    size_t bytes;
    void *memory = NULL;
    EXPECT(lqc_session_size(shared->model, &options, &bytes, &error) == LQC_OK, "%s", error.message);
    EXPECT(posix_memalign(&memory, LQC_ALIGNMENT, bytes) == 0, "%zu bytes", bytes);
    for (int again = 0; again < 2; ++again) { /* the same memory serves one session after the other */
      EXPECT(lqc_session_init(&session, shared->model, &options, memory, bytes, NULL) == LQC_OK, "init");
      fill_every_input(shared->model, session, 3);
      EXPECT(lqc_session_run(session, NULL) == LQC_OK, "run");
      expect_same_outputs(shared, session, i);
      lqc_session_destroy(session);
    }
    free(memory);
  }
}

static void test_shared_model(void (*build)(built_model *m, uint64_t seed)) {
  built_model m;
  lqc_error error;
  void *memory = NULL;
  uint32_t threads = lqc_pool_max_threads() < 4 ? 1 : 4;
  build(&m, 7);
  test_session s = open_session(&m, NULL);
  shared_model shared = {.model = &s.model, .reference = s.session};
  fill_every_input(&s.model, s.session, 3);
  EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
  EXPECT(posix_memalign(&memory, LQC_ALIGNMENT, lqc_pool_bytes(threads)) == 0, "memory");
  lqc_pool *pool = memory;
  EXPECT(lqc_pool_start(pool, threads, &error) == LQC_OK, "%s", error.message);
  lqc_pool_run(pool, use_model, &shared, 12);
  lqc_pool_stop(pool);
  free(memory);
  close_session(&s);
  model_end(&m);
}

/* A pool does every item once, in shares that depend on nothing but the counts, whether its threads spin, sleep, or
 * have just been called. */
typedef struct counters {
  uint8_t times[100], share[100];
} counters;

static void count_items(const void *context, uint32_t thread, size_t begin, size_t end) {
  counters *c = *(counters *const *)context;
  for (size_t i = begin; i < end; ++i) {
    ++c->times[i];
    c->share[i] = (uint8_t)thread;
  }
}

static void test_pool(void) {
  const struct timespec until_they_sleep = {.tv_nsec = 1000000};
  lqc_error error;
  for (uint32_t threads = 1; threads <= 7 && threads <= lqc_pool_max_threads(); ++threads) {
    void *memory = NULL;
    EXPECT(posix_memalign(&memory, LQC_ALIGNMENT, lqc_pool_bytes(threads)) == 0, "memory");
    lqc_pool *pool = memory;
    EXPECT(lqc_pool_start(pool, threads, &error) == LQC_OK, "%s", error.message);
    for (size_t count = 0; count <= 100; ++count) {
      counters c = {{0}, {0}}, *place = &c;
      if (count % 7 == 0) {
        nanosleep(&until_they_sleep, NULL);
      }
      if (count % 14 == 0) {
        lqc_pool_call(pool);
      }
      lqc_pool_run(pool, count_items, &place, count);
      for (size_t i = 0; i < 100; ++i) {
        EXPECT(c.times[i] == (i < count), "threads %u count %zu item %zu: %u times", threads, count, i, c.times[i]);
        EXPECT(i >= count || i == 0 || c.share[i] - c.share[i - 1] >= 0, "threads %u count %zu: shares in order",
               threads, count);
      }
      EXPECT(count < 2 * threads || c.share[count - 1] == threads - 1, "threads %u count %zu: %u shares", threads,
             count, c.share[count - 1] + 1u);
    }
    lqc_pool_stop(pool);
    free(memory);
  }
}

int main(void) {
  test_memory();
  test_too_small(sample_network);
  test_too_small(integer_network);
  test_too_small(plain_network);
  test_wrong_calls();
  test_inputs();
  test_determinism();
  test_two_sessions();
  test_pool();
  test_shared_model(sample_network);
  test_shared_model(integer_network);
  test_shared_model(plain_network);
  return 0;
}
