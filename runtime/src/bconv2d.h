/* The state of a prepared binary convolution, and the parts of its preparation that are tested alone. */
#ifndef LQC_BCONV2D_H
#define LQC_BCONV2D_H

#include "fixed_point.h"

#define LQC_FAIL_BCONV(prepare, op, status, format, ...) \
  lqc_fail((prepare)->error, status, "op '%s' (BinaryConv2D): " format, (op)->name, __VA_ARGS__)

/* K up to which |a| and 2p are exact in every epilogue (float32 holds integers to 2^24). */
#define LQC_MAX_K (1u << 24)

enum { LQC_TILE_COST = 16 };

/* Output pixels that see the same taps. */
typedef struct lqc_region {
  uint32_t first_row, first_column, columns, pixels;
  uint32_t tile_pixels; /* of all its tiles but the last */
  lqc_taps row_taps, column_taps;
  size_t first_tile, first_cost; /* tiles, and their costs, in the regions before it */
  uint32_t tile_cost;            /* time of a tile, 1 to LQC_TILE_COST, which is that of the largest */
  const lqc_run *runs;
  uint32_t run_count;
  const void *arranged; /* the runs as kernel->arrange() left them */
  uint32_t missing;     /* channels of one group's taps that add nothing, for padding with 0 */
  void *initial;        /* sums of the padded taps, [groups][sums_stride]; NULL: 0 */
} lqc_region;

typedef struct lqc_bconv_state {
  const lqc_bconv_kernel *kernel;
  const lqc_kernels *kernels;
  lqc_fused_bconv fused; /* NULL: kernel->accumulate() and an epilogue */
  lqc_epilogue epilogue;
  lqc_epilogue_params params; /* of all channels */
  uint32_t groups;
  uint32_t group_outputs; /* output channels of one group */
  uint32_t filter_words;
  const uint8_t *packed; /* group g at packed + g * packed_bytes */
  size_t packed_bytes;
  size_t sums_stride;   /* of one group */
  size_t joined_stride; /* of all groups */
  size_t sum_bytes;     /* 2 or 4 */
  lqc_axis rows, columns;
  uint32_t in_channels, group_inputs;
  /* Where groups do not start on whole words, their bits are first copied into the session's shared scratch memory,
     as [groups][height][width][words of a group]; then each group is an image of its own. */
  bool gathers;
  size_t input_pixel_words; /* between neighbouring pixels that the kernel reads */
  size_t input_group_words; /* between groups */
  size_t output_pixel_bytes;
  lqc_fixed fixed; /* epilogue FixedPoint */
  const lqc_region *regions;
  size_t region_count, tile_count, cost; /* cost: of all tiles */
} lqc_bconv_state;

/* The packed bit of a threshold channel is 1 (for -1) exactly where 2p + missing >= limit. Returns the limit, clamped
 * to [0, highest], where highest > 2k. */
uint32_t lqc_threshold_limit(int32_t threshold, uint32_t k, uint32_t clip_limit, int32_t step_log2, uint32_t highest);

/* Copies bits [first, first + count) of `in` to the start of `out`; bits above are 0. Reads only words that hold a
 * bit it copies. */
void lqc_copy_bits(uint64_t *out, const uint64_t *in, uint32_t first, uint32_t count);

uint32_t lqc_count_bits(const uint64_t *words, size_t count);

/* Sets regions, tile_count and cost of a state that has all else. filters: [channels][filter_words]. */
lqc_status lqc_prepare_bconv_regions(lqc_prepare *prepare, const lqc_op *op, const uint64_t *filters,
                                     lqc_bconv_state *s);

/* ---- Epilogue FixedPoint ---------------------------------------------------------------------------------------- */

/* Scratch memory of a pixel, multiple of LQC_ALIGNMENT. */
size_t lqc_bconv_fixed_scratch(const lqc_bconv_state *s);

lqc_status lqc_prepare_bconv_fixed(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *inputs,
                                   const lqc_tensor *outputs, lqc_bconv_state *s);

/* Writes some pixels of every output, from their sums. */
void lqc_run_bconv_fixed(const lqc_bconv_state *s, const lqc_node *node, const size_t *places, uint32_t count,
                         const void *sums, uint32_t missing, void *scratch);

void lqc_run_bconv2d(const lqc_node *node, const lqc_runner *runner);

#endif /* LQC_BCONV2D_H */
