/* Which of the two arrangements of the NEON convolution suits a core that does not say what it is: kernels before
 * Linux 4.11 let no program read MIDR_EL1, and simulators often have one of their own. Both run a small layer a few
 * times, some ten microseconds in all; they give the same bits, so nothing but time depends on the answer. */
#include "kernels.h"

#if defined(__aarch64__)

#  include <stdatomic.h>
#  include <string.h>

#  include "bconv2d_neon_layout.h"
#  include "clock.h"
#  include "kernels_isa.h"

/* Three rows of three taps of 128 channels, 16 filters. */
enum { ROWS = 3, ROW_WORDS = 6, WORDS = ROWS * ROW_WORDS, FILTERS = 16, CALLS = 4, ROUNDS = 8 };

typedef struct probe {
  const lqc_bconv_kernel *kernel;
  _Alignas(LQC_ALIGNMENT) uint64_t weights[FILTERS * WORDS + LQC_ALIGNMENT / sizeof(uint64_t)];
  _Alignas(LQC_ALIGNMENT) uint8_t steps[sizeof(lqc_neon_steps) + (2 * ROWS + 1) * sizeof(lqc_neon_step)];
  uint64_t nanoseconds; /* of the fastest round */
} probe;

static const lqc_run runs[ROWS] = {{0, 0, ROW_WORDS}, {0, ROW_WORDS, ROW_WORDS}, {0, 2 * ROW_WORDS, ROW_WORDS}};

static void prepare_probe(probe *tried, const uint64_t *filters) {
  tried->kernel->pack(tried->weights, filters, FILTERS, WORDS);
  tried->kernel->arrange(tried->steps, runs, ROWS);
}

static void run_probe(probe *tried, const uint64_t *input, uint16_t *sums) {
  const ptrdiff_t offsets[LQC_MAX_TILE_PIXELS] = {0};
  const lqc_bconv_tile tile = {.input = input,
                               .pixel_offsets = offsets,
                               .pixels = tried->kernel->max_pixels,
                               .runs = runs,
                               .run_count = ROWS,
                               .arranged = tried->steps,
                               .weights = tried->weights,
                               .filter_words = WORDS,
                               .out_channels = FILTERS,
                               .sums = sums,
                               .sums_stride = LQC_SUMS_MULTIPLE};
  const uint64_t start = lqc_nanoseconds();
  for (int i = 0; i < CALLS; ++i) {
    tried->kernel->accumulate(&tile);
  }
  const uint64_t took = lqc_nanoseconds() - start;
  tried->nanoseconds = took < tried->nanoseconds ? took : tried->nanoseconds;
}

static int measure(void) {
  static const uint64_t zeros[FILTERS * WORDS];
  probe usual = {.kernel = &lqc_bconv2d_neon_pairs, .nanoseconds = UINT64_MAX};
  probe halves = {.kernel = &lqc_bconv2d_neon_in_order_pairs, .nanoseconds = UINT64_MAX};
  uint16_t sums[LQC_MAX_TILE_PIXELS * LQC_SUMS_MULTIPLE];
  prepare_probe(&usual, zeros);
  prepare_probe(&halves, zeros);
  for (int round = 0; round < ROUNDS; ++round) {
    run_probe(&usual, zeros, sums);
    run_probe(&halves, zeros, sums);
  }
  return halves.nanoseconds < usual.nanoseconds - usual.nanoseconds / 64;
}

int lqc_probe_is_in_order(void) {
  enum { UNKNOWN, NO, YES };
  static atomic_int known; /* two threads that ask at once both measure */
  int answer = atomic_load(&known);
  if (answer == UNKNOWN) {
    answer = measure() ? YES : NO;
    atomic_store(&known, answer);
  }
  return answer == YES;
}

#else

int lqc_probe_is_in_order(void) {
  return 0;
}

#endif
