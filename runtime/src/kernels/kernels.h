/* The kernels: what they take, and the table from which a session chooses. Private to the runtime.
 *
 * Words. A pixel of a bit tensor is `words` 64-bit words, channel c in bit c % 64 of word c / 64, 1 for -1, tail bits
 * 0 in activations and weights alike. p is a popcount of disagreements, K the number of true channels that took part,
 * and a = K - 2p the accumulator.
 *
 * Two accumulator widths. K <= LQC_BCONV_MAX_K: sums are uint16_t and all of p, K, a fit 16 bits. Larger K takes
 * the wide scalar kernel with uint32_t sums.
 */
#ifndef LQC_KERNELS_H
#define LQC_KERNELS_H

#include "larq_clip.h"

#define LQC_BCONV_MAX_K 32767u
/* Kernels may write whole vectors of sums: a row of sums has room for this multiple of channels. */
#define LQC_SUMS_MULTIPLE 64u
/* No kernel takes more pixels a tile. */
#define LQC_MAX_TILE_PIXELS 16u

/* Consecutive words of the input that meet consecutive words of a filter: one tap, or all taps of a kernel row
 * where they are neighbours in memory. */
typedef struct lqc_run {
  ptrdiff_t input_offset; /* words, from the place of the first tap that takes part; not negative */
  uint32_t weight_word;   /* first word within one filter [kernel_h][kernel_w][words] */
  uint32_t words;
} lqc_run;

/* Some output pixels that see the same taps, and all output channels (of one group). */
typedef struct lqc_bconv_tile {
  const uint64_t *input;          /* pixel p, run r, word i: input[pixel_offsets[p] + runs[r].input_offset + i] */
  const ptrdiff_t *pixel_offsets; /* [LQC_MAX_TILE_PIXELS], read all; of the first `pixels`: words, where the first
                                     tap that takes part is, inside the input */
  uint32_t pixels;                /* 1 .. kernel->max_pixels */
  const lqc_run *runs;            /* [run_count], may be 0 */
  uint32_t run_count;
  const void *arranged;  /* as kernel->arrange() left them; not read where it is NULL */
  const void *weights;   /* as kernel->pack() left them */
  uint32_t filter_words; /* kernel_h * kernel_w * words */
  uint32_t out_channels;
  const void *initial; /* sums to start from, [out_channels rounded up to LQC_SUMS_MULTIPLE]; NULL: 0 */
  const uint8_t *soon; /* memory that is read after this tile, [soon_bytes], to fetch while computing; or NULL */
  size_t soon_bytes;
  void *sums;         /* out: [pixels][sums_stride], uint16_t or uint32_t (wide) */
  size_t sums_stride; /* elements, multiple of LQC_SUMS_MULTIPLE */
} lqc_bconv_tile;

/* Epilogues, over one pixel's sums. `missing` = K - K of this pixel: channels of zero-padded taps.
   So the pixel's a = (k - missing) - 2p. */
typedef struct lqc_epilogue_params {
  uint32_t channels;
  uint32_t k;                  /* K of a pixel whose taps are all inside */
  const uint16_t *limits;      /* [channels rounded up to LQC_SUMS_MULTIPLE]: packed bit = (2p + missing >= limits[c]);
                                  beyond channels: 65535 */
  const uint32_t *limits_wide; /* the same in 32 bits, beyond channels: anything; read by threshold_wide() only */
  const uint64_t *invert;      /* [words] to xor, tail 0, or NULL */
  int32_t step_log2;           /* v = clip(floor(a / 2^step_log2 + 1/2), +-clip_limit); clip_limit 0: v = a */
  int32_t clip_limit;
  const float *multiplier, *offset; /* [channels rounded up to LQC_SUMS_MULTIPLE] */
} lqc_epilogue_params;

/* accumulate() and an epilogue in one: pixel p goes to outputs[p]; tile->sums is not used. */
typedef void (*lqc_fused_bconv)(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing,
                                const lqc_epilogue_params *params);

typedef struct lqc_bconv_kernel {
  const char *name;
  lqc_isa isa;
  int wide;            /* uint32_t sums */
  uint32_t max_pixels; /* best tile; at most LQC_MAX_TILE_PIXELS */
  uint32_t tap_words;  /* a tap's words are a multiple of this; 0 is 1 */
  /* Bytes of packed weights, multiple of LQC_ALIGNMENT; 0 on overflow. */
  size_t (*packed_bytes)(uint32_t out_channels, uint32_t filter_words);
  /* filters: [out_channels][filter_words] as in the file; packed: LQC_ALIGNMENT-aligned. */
  void (*pack)(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words);
  /* What the kernel takes instead of a region's runs; NULL: it takes the runs. arranged: arranged_bytes(run_count),
     LQC_ALIGNMENT-aligned. */
  size_t (*arranged_bytes)(uint32_t run_count);
  void (*arrange)(void *arranged, const lqc_run *runs, uint32_t run_count);
  /* sums[p][c] = initial[c] + popcount(input xor filter c) over all runs, for every c < out_channels. Values at
     c >= out_channels, within sums_stride, may be anything. Reads no input word outside the runs. */
  void (*accumulate)(const lqc_bconv_tile *tile);
  lqc_fused_bconv threshold, clip, affine; /* as those of lqc_kernels; NULL: none of its own */
} lqc_bconv_kernel;

/* ---- int8 convolution ------------------------------------------------------------------------------------------ */

/* Output channels of a block of packed weights: their sums are made side by side. */
#define LQC_INT8_LANES 16u
/* No tile has more pixels. */
#define LQC_INT8_TILE_PIXELS 4u
#define LQC_INT8_OVERRUN 64u

/* All that an output pixel sees, one tap after another, is its patch: [size] elements, size = kernel_h * kernel_w *
 * depth, in the order of a filter. Taps outside the image are 0 there. */
typedef struct lqc_int8_gather {
  const int8_t *input;              /* first tap inside the image, first channel of the group */
  size_t row_stride, column_stride; /* bytes of input between taps of neighbouring rows, and columns */
  uint32_t rows, columns;           /* taps inside, or, where a row of them is one run, columns is 1 */
  size_t run;                       /* bytes of a tap, or of a row of taps */
  size_t place;                     /* element of the patch that the first tap inside begins at */
  size_t place_row, place_column;   /* elements of the patch between taps */
} lqc_int8_gather;

/* Some patches, and all output channels of one group. A patch is `runs` runs of `size` elements; as lqc_int8_gather
 * leaves it, one run of them all. */
typedef struct lqc_int8_tile {
  const void *patches; /* run r of pixel p at p * patch_bytes + r * run_bytes */
  size_t patch_bytes, run_bytes;
  uint32_t runs;   /* 1, unless kernel->takes_runs */
  uint32_t pixels; /* 1 .. LQC_INT8_TILE_PIXELS */
  uint32_t out_channels;
  const void *weights; /* as lqc_int8_pack() left them */
  size_t size;
  uint8_t any_weights; /* whether there may be weights of -128 */
  int32_t *sums;       /* out: [pixels][sums_stride]; channels beyond out_channels are left alone */
  size_t sums_stride;
} lqc_int8_tile;

/* Packed weights, for each block of LQC_INT8_LANES channels: int32 [lanes] to start from, the bias less what `offset`
 * adds, then for each run int8 [size rounded up to `multiple`, / group][lanes][group]; zeros beyond the last channel
 * and element. */
typedef struct lqc_int8_kernel {
  const char *name;
  lqc_isa isa;
  uint32_t group;         /* consecutive elements of a filter that lie together: 1, 2, 4 or 16 */
  uint32_t multiple;      /* of `group`; as many elements are taken at once */
  uint32_t element_bytes; /* of a patch */
  uint8_t offset;         /* an element x of a patch is stored as x + offset; 0 or 128 */
  uint8_t takes_runs;     /* whether a patch may have more than one run */
  /* Copies the taps inside. The caller has filled the patch with bytes of `offset` where there are taps outside. May
     write up to LQC_INT8_OVERRUN bytes beyond the patch. */
  void (*gather)(void *patch, const lqc_int8_gather *taps);
  /* sums[p][c] = bias[c] + sum of patch p times filter c. Reads runs up to the next multiple of `multiple`, whatever
     is there. */
  void (*accumulate)(const lqc_int8_tile *tile);
} lqc_int8_kernel;

/* Bytes of packed weights, a multiple of LQC_ALIGNMENT; 0 on overflow. */
size_t lqc_int8_packed_bytes(const lqc_int8_kernel *kernel, uint32_t out_channels, uint32_t runs, size_t size);

/* Filters as in the file, of neighbouring groups that are packed as one, of `merged` times the depth: a filter's
 * weights are 0 where it does not look. */
typedef struct lqc_int8_filters {
  const int8_t *weights; /* [out_channels][taps][depth] */
  const int32_t *bias;   /* [out_channels] or NULL */
  uint32_t out_channels; /* of all of these groups */
  uint32_t taps, depth, merged;
} lqc_int8_filters;

/* taps: a multiple of `runs`; packed: LQC_ALIGNMENT-aligned, of lqc_int8_packed_bytes() of out_channels, runs, and what
 * a run then has: taps / runs * merged * depth. */
void lqc_int8_pack(const lqc_int8_kernel *kernel, void *packed, const lqc_int8_filters *filters, uint32_t runs);

/* One output pixel of a depthwise convolution, channel c of which reads input channel c / (outputs / inputs). */
typedef struct lqc_depthwise_pixel {
  const int8_t *input;              /* first tap inside the image */
  size_t row_stride, column_stride; /* bytes of input between taps */
  uint32_t rows, columns;           /* taps inside */
  const int8_t *weights;            /* of the first tap inside; [tap][out_channels] */
  size_t row_weights, column_weights;
  uint32_t channels, out_channels;
  const int32_t *bias; /* [out_channels] */
  int32_t *sums;       /* out: [out_channels] */
} lqc_depthwise_pixel;

/* ---- float32 convolution ---------------------------------------------------------------------------------------- */

/* Neighbouring output pixels that see the same taps, and all output channels of a group. Sums start from 0 and run over
 * the taps, row by row, and over `depth` in each; one rounding per product and one per addition, never fused; then the
 * bias, and min(max(sum, low), high). Distances are in floats. */
typedef struct lqc_conv_tile {
  const float *input;                             /* first tap inside the image, of the first pixel */
  size_t row_stride, column_stride, pixel_stride; /* between taps, and between pixels */
  uint32_t rows, columns;                         /* taps inside */
  uint32_t depth;                                 /* input channels of the group */
  const float *weights;                           /* of the first tap inside; [depth][channels] of each tap */
  size_t row_weights, column_weights, weight_stride;
  size_t pixels;
  uint32_t channels;
  const float *bias; /* [channels] or NULL */
  float low, high;
  float *out; /* [pixels][channels], out_stride between pixels */
  size_t out_stride;
} lqc_conv_tile;

/* ---- Pools ------------------------------------------------------------------------------------------------------ */

/* The taps of a window that are inside the image; at least one. */
typedef struct lqc_pool_taps {
  const int8_t *input;              /* or of float32, the bytes */
  size_t row_stride, column_stride; /* bytes */
  uint32_t rows, columns;
} lqc_pool_taps;

/* ---- float32, element by element ----------------------------------------------------------------------------------
 */

/* Of a pixel: min(max(multiplier[c] * x + offset[c], low), high), two roundings, never fused. */
typedef struct lqc_affine_f32 {
  uint32_t channels;
  const float *multiplier, *offset; /* NULL: without */
  float low, high;
} lqc_affine_f32;

/* out[i] = a[i * a_step] op b[i * b_step]. Steps are 1, or 0 where one number meets all others. `out` may be an operand
 * of step 1, or overlaps none. */
typedef void (*lqc_combine_f32)(float *out, const float *a, size_t a_step, const float *b, size_t b_step, size_t count);

/* ---- Fixed point ----------------------------------------------------------------------------------------------- */

/* The integers of one pixel, y, go through steps and are then stored. Lanes, the type of y and of all arrays marked so,
 * are int32_t, or int64_t where 32 bits are not enough; who makes a program has proven that nothing in it overflows.
 * Arrays are [channels rounded up to LQC_SUMS_MULTIPLE]. */
typedef enum lqc_lane_source {
  LQC_LANES_INT32, /* y = value */
  LQC_LANES_INT16,
  LQC_LANES_INT8,
  LQC_LANES_SUMS,      /* uint16_t p: y = clip(floor((full - 2p) / 2^step_log2 + 1/2), +-limit); limit 0: full - 2p */
  LQC_LANES_SUMS_WIDE, /* the same of uint32_t */
} lqc_lane_source;

/* Pixels that a call does well to have at most: kernels with loops of their own for a program keep words of bits of as
 * many, and take any program with more pixels to the general loop. */
enum { LQC_LANE_PIXELS = 64 };

/* Some output pixels: what y is before the first step, which fits 32 bits, and where their tensors are. */
typedef struct lqc_lane_pixels {
  uint32_t count;
  size_t first; /* pixel i of the image is first + i, or, unless NULL, places[i] */
  const size_t *places;
  const void *const *inputs; /* of the op; the first is not read */
  void *const *outputs;
  const size_t *input_bytes, *output_bytes; /* of a pixel */
  lqc_lane_source source;
  const void *values; /* of pixel i at i * value_bytes: [channels], of int32 and sums rounded up to LQC_SUMS_MULTIPLE */
  size_t value_bytes;
  int32_t full, limit, step_log2;
} lqc_lane_pixels;

static inline size_t lqc_lane_place(const lqc_lane_pixels *pixels, uint32_t i) {
  return pixels->places ? pixels->places[i] : pixels->first + i;
}

typedef enum lqc_lane_step_kind {
  LQC_LANE_RELU,      /* y = max(y, 0) */
  LQC_LANE_AFFINE,    /* y = multiplier * y + offset; multiplier fits 32 bits */
  LQC_LANE_ADD_INT8,  /* y = y * 2^shift + x * 2^operand_shift, x of input `operand`, int8 */
  LQC_LANE_ADD_INT16, /* the same of int16 */
  LQC_LANE_PAIR,      /* y = low * (y * 2^y_log2) + high * (x * 2^x_log2) + offset: `pairs` holds low + 65536 * high,
                         and all four factors fit int16; x of int8, or, with operand 0, none. In lanes of 32 bits, the
                         first step, or the one behind a RELU that is */
} lqc_lane_step_kind;

typedef struct lqc_lane_step {
  lqc_lane_step_kind kind;
  uint32_t operand;
  int32_t y_log2, x_log2;                                          /* x_log2 <= 8 */
  const void *multiplier, *offset, *shift, *operand_shift, *pairs; /* lanes */
} lqc_lane_step;

typedef struct lqc_lane_store {
  lqc_dtype dtype; /* of the output: int8, int16, float32 or bits */
  /* int8, int16, lanes: q = clip((y + half) >> right), then, unless left is NULL, clip(q * left) */
  const void *half, *right, *left;
  const float *scale;     /* float32: y * scale, a power of two */
  const void *thresholds; /* bits, lanes: packed bit = (y <= threshold) xor invert */
  const uint64_t *invert; /* [words], tail 0, or NULL */
} lqc_lane_store;

typedef struct lqc_lane_program {
  uint32_t channels, step_count, store_count;
  const lqc_lane_step *steps;
  const lqc_lane_store *stores;
  /* Lanes of 64 bits: whether (y + half) >> right of every integer store fits 32 bits; and whether, besides, right is
     at most 32. */
  int rounds_far, rounds_narrow;
} lqc_lane_program;

/* ---- Table ------------------------------------------------------------------------------------------------------ */

typedef struct lqc_kernels {
  lqc_isa isa;
  const lqc_bconv_kernel *bconv;       /* K <= LQC_BCONV_MAX_K */
  const lqc_bconv_kernel *bconv_pairs; /* the same where taps have an even number of words; NULL: none of its own */
  const lqc_bconv_kernel *bconv_wide;
  /* out: ceil(channels / 64) words, every word written, tail bits 0. */
  void (*threshold)(uint64_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params);
  /* out: int8 [channels]. Writes nothing beyond. 0 < clip_limit <= 127. */
  void (*clip)(int8_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params);
  /* out: float32 [channels]: round(round(multiplier * (v * 2^step_log2)) + offset), never fused. */
  void (*affine)(float *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params);
  /* The same over the sums of bconv_wide. Scalar on every ISA. */
  void (*threshold_wide)(uint64_t *out, const uint32_t *sums, uint32_t missing, const lqc_epilogue_params *params);
  void (*clip_wide)(int8_t *out, const uint32_t *sums, uint32_t missing, const lqc_epilogue_params *params);
  void (*affine_wide)(float *out, const uint32_t *sums, uint32_t missing, const lqc_epilogue_params *params);
  /* out: [pixels][ceil(channels / 64)] words; bit = !(x >= thresholds[c]) xor invert; thresholds NULL: 0. x is finite.
     in: [pixels][channels]; reads nothing beyond. */
  void (*bitpack_f32)(uint64_t *out, const float *in, size_t pixels, uint32_t channels, const float *thresholds,
                      const uint64_t *invert);
  /* bit = !(q > thresholds[c]) xor invert; thresholds NULL: -1. */
  void (*bitpack_i8)(uint64_t *out, const int8_t *in, size_t pixels, uint32_t channels, const int8_t *thresholds,
                     const uint64_t *invert);
  void (*bitpack_i16)(uint64_t *out, const int16_t *in, size_t pixels, uint32_t channels, const int16_t *thresholds,
                      const uint64_t *invert);
  const lqc_int8_kernel *int8_conv;
  void (*int8_depthwise)(const lqc_depthwise_pixel *pixel);
  void (*conv_f32)(const lqc_conv_tile *tile);
  void (*depthwise_f32)(const lqc_conv_tile *tile); /* depth 1: channel c reads input channel c */
  /* Elements of one output pixel: the largest of its taps, and their sum, which fits. */
  void (*max_i8)(int8_t *out, const lqc_pool_taps *taps, size_t n);
  void (*sum_i8)(int32_t *sums, const lqc_pool_taps *taps, size_t n);
  /* out = clip(floor(in * scale + 1/2), +-127 or +-32767); scales: [n], powers of two. */
  void (*quantize_i8)(int8_t *out, const float *in, const float *scales, size_t n);
  void (*quantize_i16)(int16_t *out, const float *in, const float *scales, size_t n);
  /* Sum of the values, returned, and of their magnitudes; n < 2^24. For preparing: filters are the most of it. */
  int32_t (*sum_and_magnitudes)(const int8_t *values, size_t n, int32_t *magnitudes);
  void (*max_f32)(float *out, const lqc_pool_taps *taps, size_t n);
  /* (((0 + tap) + tap) + ...) / taps, row by row. */
  void (*average_f32)(float *out, const lqc_pool_taps *taps, size_t n);
  /* `out` may be `in`, or overlaps it nowhere. */
  void (*affine_f32)(float *out, const float *in, size_t pixels, const lqc_affine_f32 *params);
  /* prelu: a < 0 ? a * b : a. */
  lqc_combine_f32 add_f32, subtract_f32, multiply_f32, maximum_f32, minimum_f32, prelu_f32;
  /* scratch: lanes, [channels rounded up to LQC_SUMS_MULTIPLE]. */
  void (*fixed_point)(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch);
  void (*fixed_point_wide)(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch);
} lqc_kernels;

/* Fills the table with scalar kernels, then overrides with those of `isa` (AUTO: the best available). Returns 0
   where `isa` is not available in this build or on this processor, else 1. */
int lqc_kernels_select(lqc_kernels *kernels, lqc_isa isa);

/* The n-th binary convolution kernel this build has and this processor runs, NULL past the last: one list for tests
   and benchmarks. */
const lqc_bconv_kernel *lqc_bconv_kernel_at(size_t n);

/* The same for int8 convolutions. */
const lqc_int8_kernel *lqc_int8_kernel_at(size_t n);

/* Each ISA's file overrides what it has; called only where the processor has the instructions. */
void lqc_kernels_scalar(lqc_kernels *kernels);
void lqc_kernels_neon(lqc_kernels *kernels);
void lqc_kernels_avx2(lqc_kernels *kernels);
void lqc_kernels_avx512(lqc_kernels *kernels);
void lqc_kernels_neon_in_order(lqc_kernels *kernels);

/* ---- Processor -------------------------------------------------------------------------------------------------- */

/* Whether AUTO prefers LQC_ISA_NEON_IN_ORDER to LQC_ISA_NEON on the core that asks. */
int lqc_core_is_in_order(void);

/* Whether the processor has SDOT and UDOT. */
int lqc_has_dot_products(void);

/* lqc_core_is_in_order() of a core's MIDR_EL1. */
int lqc_midr_is_in_order(uint64_t midr);

/* Whether a MIDR_EL1 can be that of a 64-bit core: simulators may tell the part of a 32-bit one. */
int lqc_midr_is_credible(uint64_t midr);

/* lqc_core_is_in_order() by the time that both arrangements take; measured once in a process. */
int lqc_probe_is_in_order(void);

#endif /* LQC_KERNELS_H */
