#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "hostile.h"

#if defined(__SANITIZE_ADDRESS__)
#  define ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#  if __has_feature(address_sanitizer)
#    define ADDRESS_SANITIZER 1
#  endif
#endif

#define MOST_BYTES ((size_t)1 << 22)
#define MOST_MACS ((uint64_t)1 << 22)

static void check_message(lqc_status status, const lqc_error *error) {
  EXPECT(status > LQC_OK && status < LQC_STATUS_COUNT && error->status == status, "status %d", (int)status);
  size_t length = strlen(error->message);
  EXPECT(length > 0 && length < sizeof(error->message) && strchr(error->message, '\n') == NULL, "%s", error->message);
}

void fill_every_input(const lqc_model *model, lqc_session *session, uint64_t seed) {
  for (size_t i = 0; i < lqc_model_input_count(model); ++i) {
    lqc_tensor_info info;
    EXPECT(lqc_model_tensor_info(model, lqc_model_input_tensor(model, i), &info) == LQC_OK, "input %zu", i);
    uint8_t *data = lqc_session_input(session, i);
    uint32_t channels = info.shape[info.rank - 1], words = lqc_words(channels);
    for (size_t e = 0; info.dtype == LQC_FLOAT32 && e < info.bytes / 4; ++e) {
      float value = ((float)random_below(&seed, 257) - 128.0f) / 64.0f;
      memcpy(data + 4 * e, &value, 4);
    }
    for (size_t e = 0; info.dtype == LQC_BIT && e < info.bytes / 8; ++e) {
      uint64_t word = random_u64(&seed) & (e % words == words - 1 ? last_word_mask(channels) : ~(uint64_t)0);
      memcpy(data + 8 * e, &word, 8);
    }
    for (size_t e = 0; info.dtype != LQC_FLOAT32 && info.dtype != LQC_BIT && e < info.bytes; ++e) {
      data[e] = (uint8_t)random_u64(&seed);
    }
  }
}

/* FNV-1a. Which of its many bit patterns a NaN has is not promised. */
static uint64_t digest_tensor(uint64_t digest, const lqc_model *model, size_t tensor, const uint8_t *data) {
  lqc_tensor_info info;
  EXPECT(lqc_model_tensor_info(model, tensor, &info) == LQC_OK && data != NULL, "tensor %zu", tensor);
  bool floats = info.dtype == LQC_FLOAT32;
  for (size_t e = 0; e < info.bytes; e += floats ? 4 : 1) {
    uint32_t value = data[e];
    if (floats) {
      memcpy(&value, data + e, 4);
      value = (value & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : value;
    }
    digest = (digest ^ value) * 0x100000001b3u;
  }
  return digest;
}

static uint64_t digest_session(const lqc_model *model, const lqc_session *session, bool all_tensors) {
  uint64_t digest = 0xcbf29ce484222325u;
  size_t count = all_tensors ? lqc_model_tensor_count(model) : lqc_model_output_count(model);
  for (size_t i = 0; i < count; ++i) {
    digest = all_tensors
                 ? digest_tensor(digest, model, i, lqc_session_tensor(session, i))
                 : digest_tensor(digest, model, lqc_model_output_tensor(model, i), lqc_session_output(session, i));
  }
  return digest;
}

static bool takes_long(const lqc_session *session, size_t ops) {
  uint64_t left = MOST_MACS;
  for (size_t i = 0; i < ops; ++i) {
    lqc_op_info info;
    EXPECT(lqc_session_op_info(session, i, &info) == LQC_OK, "op %zu", i);
    if (info.binary_macs > left || info.int8_macs > left || info.float_macs > left) {
      return true;
    }
    left -= info.binary_macs / 64 + info.int8_macs + info.float_macs;
  }
  return false;
}

static void check_half_memory(const lqc_model *model, const lqc_options *options, size_t bytes, const guarded *memory) {
  lqc_session *session = NULL;
  lqc_error error;
  size_t half = bytes / 128 * 64;
  lqc_status status = lqc_session_init(&session, model, options, guarded_last(memory, half), half, &error);
  EXPECT(status == LQC_ERROR_ARENA_TOO_SMALL && session == NULL, "init in half the memory: status %d", (int)status);
  check_message(status, &error);
}

static hostile_use use(const uint8_t *data, size_t size, const lqc_options *options, uint64_t seed,
                       const guarded *memory) {
  lqc_model model;
  lqc_session *session;
  lqc_error error;
  size_t bytes = 0;
  hostile_use used = {.status = lqc_model_load(&model, data, size, &error)};
  if (used.status == LQC_OK) {
    used.status = lqc_session_size(&model, options, &bytes, &error);
  }
  if (used.status != LQC_OK) {
    check_message(used.status, &error);
    return used;
  }
  if (bytes > MOST_BYTES) {
    return used;
  }
  static unsigned turn;
  if (++turn % 8 == 0) {
    check_half_memory(&model, options, bytes, memory);
  }
  lqc_status status = lqc_session_init(&session, &model, options, guarded_last(memory, bytes), bytes, &error);
  EXPECT(status == LQC_OK, "init after size: %s", error.message);
  if (!takes_long(session, lqc_model_op_count(&model))) {
    fill_every_input(&model, session, seed);
    status = lqc_session_run(session, &error);
    EXPECT(status == LQC_OK, "run: %s", error.message);
    used.ran = true;
    used.digest = digest_session(&model, session, options != NULL && options->keep_tensors);
  }
  lqc_session_destroy(session);
  return used;
}

hostile_use use_file_as(const uint8_t *data, size_t size, const lqc_options *options, uint64_t seed) {
  static guarded memory; /* made once: a file of a few kilobytes is used in microseconds */
  if (memory.end == NULL) {
    memory = guarded_new(MOST_BYTES);
  }
#if defined(ADDRESS_SANITIZER) /* which sees the last byte of a block, where a page ends on a multiple of 16 */
  uint8_t *copy = exact_copy(data, size);
  hostile_use used = use(copy, size, options, seed, &memory);
  free(copy);
  return used;
#else
  static guarded file;
  if (file.end == NULL) {
    file = guarded_new((size_t)1 << 20);
  }
  uint8_t *copy = guarded_last(&file, (size + LQC_FILE_ALIGNMENT - 1) / LQC_FILE_ALIGNMENT * LQC_FILE_ALIGNMENT);
  memcpy(copy, data, size);
  return use(copy, size, options, seed, &memory);
#endif
}

hostile_use use_file(const uint8_t *data, size_t size) {
  return use_file_as(data, size, NULL, 3);
}
