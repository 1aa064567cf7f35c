/* Shared by the kernel tests: seeded random numbers, memory that faults one byte past its end, the ISAs to try. */
#ifndef LQC_KERNELS_TESTING_H
#define LQC_KERNELS_TESTING_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels.h"

/* Prints where and with what parameters, then ends the test. */
#define FAIL(...)                                   \
  do {                                              \
    fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
    fprintf(stderr, __VA_ARGS__);                   \
    fputc('\n', stderr);                            \
    exit(1);                                        \
  } while (0)

static const uint32_t test_channels[] = {1, 3, 8, 31, 64, 65, 100, 128, 512};
#define TEST_CHANNELS_COUNT (sizeof(test_channels) / sizeof(test_channels[0]))

/* splitmix64 */
static inline uint64_t random_u64(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* 0 .. n - 1 */
static inline uint32_t random_below(uint64_t *state, uint32_t n) {
  return (uint32_t)((random_u64(state) >> 32) % n);
}

/* At times so small that numbers, their products or sums are subnormal: what vectors of 32-bit ARM take for 0. */
static inline float perhaps_tiny_scale(uint64_t *state) {
  static const float scales[] = {0x1p-60f, 0x1p-100f, 0x1p-126f, 0x1p-140f};
  return random_below(state, 40) == 0 ? scales[random_below(state, 4)] : 1.0f;
}

/* Pages followed by one that may not be touched. */
typedef struct guarded {
  unsigned char *end;
  size_t bytes;
} guarded;

static inline guarded guarded_new(size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  bytes = (bytes + page - 1) / page * page;
  unsigned char *memory = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory + bytes, page, PROT_NONE) != 0) {
    FAIL("cannot map %zu bytes and a guard page", bytes);
  }
  return (guarded){memory + bytes, bytes};
}

static inline void guarded_free(const guarded *memory) {
  munmap(memory->end - memory->bytes, memory->bytes + (size_t)sysconf(_SC_PAGESIZE));
}

/* The last `bytes` bytes before the guard page. */
static inline void *guarded_last(const guarded *memory, size_t bytes) {
  if (bytes > memory->bytes) {
    FAIL("the test asks for %zu of %zu guarded bytes", bytes, memory->bytes);
  }
  return memory->end - bytes;
}

static inline uint32_t padded_channels(uint32_t channels) {
  return (channels + LQC_SUMS_MULTIPLE - 1) / LQC_SUMS_MULTIPLE * LQC_SUMS_MULTIPLE;
}

/* Bits of the last word of `channels` channels. */
static inline uint64_t last_word_mask(uint32_t channels) {
  return channels % 64 == 0 ? ~(uint64_t)0 : ((uint64_t)1 << channels % 64) - 1;
}

/* The tables of all available ISAs, scalar first; returns their number. */
static inline size_t tables_to_test(lqc_kernels tables[LQC_ISA_COUNT]) {
  size_t count = 0;
  for (lqc_isa isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
    if (!lqc_isa_available(isa)) {
      continue;
    }
    if (!lqc_kernels_select(&tables[count], isa) || tables[count].isa != isa) {
      FAIL("isa %s is available but not selected", lqc_isa_name(isa));
    }
    ++count;
  }
  return count;
}

#endif /* LQC_KERNELS_TESTING_H */
