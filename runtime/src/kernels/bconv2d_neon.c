/* Binary convolution for aarch64: EOR, CNT and a tree of ADDP over eight filters.
 *
 * CNT leaves 16 byte counts a filter. Three levels of ADDP turn those of eight filters into two bytes a filter, at
 * most 64 each, and UADALP adds these to eight 16-bit sums, in channel order: 8 + 8 + 7 + 1 instructions for 8 * 128
 * binary multiply-accumulates, 3.0 for 128, with no limit on the number of steps, one register of sums a pixel, and
 * nothing to reduce at the end. Eight filters stay in registers for up to fifteen pixels: 23 vectors are loaded for 120
 * units of work. README.md derives the limits.
 *
 * A run of an odd number of words (64 channels: 3 words a kernel row) ends in one 64-bit step: a vector then holds a
 * word of two filters, and the first level of ADDP is left out. That is again 3.0 instructions for 128, and no lane
 * is wasted.
 *
 * Packed weights: blocks of eight filters, zero filters behind. In a block, bconv2d_neon has word by word the eight
 * filters' words, so that runs may start at any word, and pairs of words are joined by ZIP. bconv2d_neon_pairs has pair
 * by pair of words the eight filters' pairs, ready to use; its taps have an even number of words.
 *
 * A sum that starts at 2^15 - 1 - h, unsigned, has its sign bit set exactly where p > h: the threshold costs no
 * instruction in the sums, and the sign bits of a block are joined while they are in registers. */
#include <arm_neon.h>
#include <string.h>

#include "bconv2d_neon_blocks.h"
#include "kernels_isa.h"

enum { CHANNELS = 8, TILE = 15, ROOM = 16, CHUNK = 8, WORD_BYTES = CHANNELS * 8 };

/* ---- Packing ----------------------------------------------------------------------------------------------------- */

static size_t packed_bytes(uint32_t out_channels, uint32_t filter_words) {
  return lqc_packed_bytes(out_channels, CHANNELS, (size_t)filter_words * sizeof(uint64_t));
}

/* A filter's words stand in groups of `group` side by side; filter_words is a multiple of it. */
LQC_INLINE void pack_groups(uint64_t *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words,
                            const uint32_t group) {
  memset(packed, 0, packed_bytes(out_channels, filter_words));
  for (uint32_t c = 0; c < out_channels; ++c) {
    uint64_t *block = packed + (size_t)(c / CHANNELS) * CHANNELS * filter_words;
    for (uint32_t w = 0; w < filter_words; ++w) {
      block[((size_t)(w / group) * CHANNELS + c % CHANNELS) * group + w % group] = *filters++;
    }
  }
}

static void pack_words(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words) {
  pack_groups(packed, filters, out_channels, filter_words, 1);
}

static void pack_pairs(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words) {
  pack_groups(packed, filters, out_channels, filter_words, 2);
}

/* ---- Inner loops ------------------------------------------------------------------------------------------------- */

/* What the inner loops know of a tile and up to CHUNK blocks of filters. The assembly knows the offsets, given left. */
typedef struct work {
  const uint64_t *input;    /*   0 */
  const uint8_t *weights;   /*   8, of the first block */
  size_t block_bytes;       /*  16 */
  const lqc_run *runs;      /*  24 */
  size_t run_count;         /*  32 */
  size_t blocks;            /*  40 */
  int64_t skip_pairs;       /*  48, bytes of code from block 13 to that of the last pixel; -1: all pixels */
  int64_t skip_words;       /*  56, the same of the blocks of a word */
  uint8_t *out;             /*  64, moves on with the blocks */
  const ptrdiff_t *offsets; /*  72, words */
  const uint64_t *last;     /*  80, the last pixel's place */
  uint16x8_t start[CHUNK];  /*  96, of the sums */
  uint8x16_t place;         /* 224, bit c in byte c, twice */
} work;

_Static_assert(offsetof(work, last) == 80 && offsetof(work, start) == 96 && offsetof(work, place) == 224 &&
                   sizeof(lqc_run) == 16 && sizeof(ptrdiff_t) == 8,
               "known to the assembly");

/* clang-format off: an instruction after the other */

#define LQC_TWO_PLACES(a, b, at)              \
  "ldp x" #a ", x" #b ", [x28, #" #at "]\n\t" \
  "add x" #a ", x30, x" #a ", lsl #3\n\t"     \
  "add x" #b ", x30, x" #b ", lsl #3\n\t"

#define LQC_BEGIN                                                                               \
  "ldr x28, [x0, #72]\n\t"                                                                      \
  "ldr x30, [x0]\n\t" LQC_TWO_PLACES(1, 2, 0) LQC_TWO_PLACES(3, 4, 16) LQC_TWO_PLACES(5, 6, 32) \
      LQC_TWO_PLACES(7, 8, 48) LQC_TWO_PLACES(9, 10, 64) LQC_TWO_PLACES(11, 12, 80)             \
          LQC_TWO_PLACES(13, 14, 96) "ldr x15, [x28, #112]\n\t"                                 \
                                     "add x15, x30, x15, lsl #3\n\t"                            \
                                     "ldr x17, [x0, #80]\n\t"                                   \
                                     "ldr x27, [x0, #48]\n\t"                                   \
                                     "adr x24, 13f\n\t"                                         \
                                     "add x24, x24, x27\n\t"                                    \
                                     "ldr x25, [x0, #8]\n\t"                                    \
                                     "ldr x26, [x0, #40]\n\t"                                   \
                                     "add x28, x0, #96\n"                                       \
                                     "1:\n\t" /* a block of filters */                          \
      LQC_START_SUMS "ldr x22, [x0, #24]\n\t"                                                   \
                                     "ldr x23, [x0, #32]\n\t"                                   \
                                     "cbz x23, 9f\n\t"

#define LQC_END(store, bytes)                                    \
  "9:\n\t"                                                       \
  "ldr x30, [x0, #64]\n\t"                                       \
  "ldr x20, [x0, #16]\n\t"                                       \
  "ldr q7, [x0, #224]\n\t" store "add x30, x30, #" #bytes "\n\t" \
  "str x30, [x0, #64]\n\t"                                       \
  "add x25, x25, x20\n\t"                                        \
  "subs x26, x26, #1\n\t"                                        \
  "b.ne 1b\n\t"

/* To the block of the tile's last pixel. */
#define LQC_ENTER_PAIRS "tbnz x27, #63, 14f\n\tbr x24\n"

#define LQC_CLOBBERS                                                                                                   \
  "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x17", "x19", "x20", \
      "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7",   \
      "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23",    \
      "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31", "cc", "memory"

/* Temporaries of 0 make the next tail add nothing. */
#define LQC_NO_TAIL "movi v5.16b, #0\n\tmovi v6.16b, #0\n\tmovi v31.16b, #0\n\t"

/* Filters of the next pair, while the tail of the pair before ends; they are fetched 512 bytes ahead, since those of a
   large layer come from the second level of the cache. */
#define LQC_PAIRS_STEP                                                                                   \
  "2:\n\t"                                                                                               \
  "ldr q8, [x20]\n\t" LQC_PAIR_TAIL_1 "ldr q7, [x17, x19]\n\t"                                           \
  "ldr q9, [x20, #16]\n\t"                                                                               \
  "ldr q10, [x20, #32]\n\t" LQC_PAIR_TAIL_2 "ldr q11, [x20, #48]\n\t"                                    \
  "ldr q12, [x20, #64]\n\t"                                                                              \
  "ldr q13, [x20, #80]\n\t"                                                                              \
  "ldr q14, [x20, #96]\n\t" LQC_PAIR_TAIL_3(16) "ldr q15, [x20, #112]\n\t"                               \
                                                "prfm pldl1keep, [x20, #512]\n\t"                        \
                                                "prfm pldl1keep, [x20, #576]\n\t"                        \
                                                "add x20, x20, #128\n\t" LQC_ENTER_PAIRS LQC_PAIR_BLOCKS \
                                                "subs x21, x21, #2\n\t"                                  \
                                                "add x19, x19, #16\n\t"                                  \
                                                "b.ne 2b\n\t"

#define LQC_PAIRS(store, bytes)                                                      \
  LQC_BEGIN LQC_NO_TAIL "3:\n\t" LQC_NEXT_RUN LQC_PAIRS_STEP "subs x23, x23, #1\n\t" \
                        "b.ne 3b\n\t" LQC_PAIR_TAIL_1 LQC_PAIR_TAIL_2 LQC_PAIR_TAIL_3(16) LQC_END(store, bytes)

/* The filters of a pair, of 2 * 8 words: v8-v15 from v0, v1, v2, v7 and v9, v11, v13, v15. */
#define LQC_JOIN(even, odd, first)                       \
  "zip1 v" #even ".2d, v" #first ".2d, v" #odd ".2d\n\t" \
  "zip2 v" #odd ".2d, v" #first ".2d, v" #odd ".2d\n\t"

#define LQC_LOAD_AND_JOIN(tail_1, tail_2, tail_3)                                                           \
  "ldp q0, q1, [x20], #32\n\t" tail_1 "ldp q2, q7, [x20], #32\n\t"                                          \
  "ldp q9, q11, [x20], #32\n\t" tail_2 "ldp q13, q15, [x20], #32\n\t" LQC_JOIN(8, 9, 0) LQC_JOIN(10, 11, 1) \
      tail_3 LQC_JOIN(12, 13, 2) LQC_JOIN(14, 15, 7) "ldr q7, [x17, x19]\n\t"

/* Pairs of words, joined; then the run's last word, if it has an odd number. x21: words left, less 2. */
#define LQC_WORDS_STEPS                                                                                        \
  "subs x21, x21, #2\n\t"                                                                                      \
  "b.lo 6f\n\t" LQC_LOAD_AND_JOIN(LQC_NOTHING, LQC_NOTHING, LQC_NOTHING) LQC_ENTER_PAIRS                       \
      "2:\n\t" LQC_LOAD_AND_JOIN(LQC_PAIR_TAIL_1, LQC_PAIR_TAIL_2, LQC_PAIR_TAIL_3(16))                        \
          LQC_ENTER_PAIRS LQC_PAIR_BLOCKS                                                                      \
      "add x19, x19, #16\n\t"                                                                                  \
      "subs x21, x21, #2\n\t"                                                                                  \
      "b.hs 2b\n\t"                                                                                            \
      "tbz x21, #0, 7f\n"                                                                                      \
      "5:\n\t"                                                                                                 \
      "add x30, x19, x17\n\t"                                                                                  \
      "ldp q8, q9, [x20]\n\t" LQC_PAIR_TAIL_1 "ld1r {v7.2d}, [x30]\n\t"                                        \
      "ldp q10, q11, [x20, #32]\n\t" LQC_PAIR_TAIL_2 "tbnz x27, #63, 4f\n\t"                                   \
      "ldr x30, [x0, #56]\n\t"                                                                                 \
      "adr x21, 23f\n\t"                                                                                       \
      "add x21, x21, x30\n\t" LQC_PAIR_TAIL_3(16) "br x21\n"                                                   \
                                                  "4:\n\t" LQC_PAIR_TAIL_3(16) LQC_WORD_BLOCKS LQC_WORD_TAIL_1 \
      "subs x23, x23, #1\n\t" LQC_WORD_TAIL_2(16) "b.ne 3b\n\t"                                                \
                                                  "b 9f\n"                                                     \
                                                  "6:\n\t" /* a single word: there is no pair before it */     \
      LQC_NO_TAIL "b 5b\n"                                                                                     \
                                                  "7:\n\t" LQC_PAIR_TAIL_1 LQC_PAIR_TAIL_2 LQC_PAIR_TAIL_3(16)

#define LQC_WORDS(store, bytes)                                 \
  LQC_BEGIN                                                     \
  "3:\n\t" LQC_NEXT_RUN LQC_WORDS_STEPS "subs x23, x23, #1\n\t" \
  "b.ne 3b\n\t" LQC_END(store, bytes)

/* clang-format on */

__attribute__((noinline)) static void sums_of_pairs(work *w) {
  register work *x0 __asm__("x0") = w;
  __asm__ volatile(LQC_PAIRS(LQC_STORE_SUMS, 256) : "+r"(x0) : : LQC_CLOBBERS);
}

__attribute__((noinline)) static void signs_of_pairs(work *w) {
  register work *x0 __asm__("x0") = w;
  __asm__ volatile(LQC_PAIRS(LQC_STORE_SIGNS, 16) : "+r"(x0) : : LQC_CLOBBERS);
}

__attribute__((noinline)) static void sums_of_words(work *w) {
  register work *x0 __asm__("x0") = w;
  __asm__ volatile(LQC_WORDS(LQC_STORE_SUMS, 256) : "+r"(x0) : : LQC_CLOBBERS);
}

__attribute__((noinline)) static void signs_of_words(work *w) {
  register work *x0 __asm__("x0") = w;
  __asm__ volatile(LQC_WORDS(LQC_STORE_SIGNS, 16) : "+r"(x0) : : LQC_CLOBBERS);
}

/* ---- Tiles ------------------------------------------------------------------------------------------------------- */

LQC_INLINE void start_work(work *w, const lqc_bconv_tile *tile) {
  const uint32_t last = tile->pixels - 1;
  w->input = tile->input;
  w->weights = tile->weights;
  w->block_bytes = (size_t)tile->filter_words * WORD_BYTES;
  w->runs = tile->runs;
  w->run_count = tile->run_count;
  w->skip_pairs = last == TILE - 1 ? -1 : (int64_t)(TILE - 2 - last) * LQC_PAIR_BLOCK_BYTES;
  w->skip_words = (int64_t)(TILE - 2 - last) * LQC_WORD_BLOCK_BYTES;
  w->place = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
  w->offsets = tile->pixel_offsets;
  w->last = tile->input + tile->pixel_offsets[last];
}

/* Blocks from `channel` on, at most CHUNK. */
LQC_INLINE uint32_t blocks_from(const lqc_bconv_tile *tile, uint32_t channel) {
  return lqc_min_u32(CHUNK, (tile->out_channels - channel + CHANNELS - 1) / CHANNELS);
}

LQC_INLINE uint16x8_t initial_of(const lqc_bconv_tile *tile, uint32_t channel) {
  return tile->initial ? vld1q_u16((const uint16_t *)tile->initial + channel) : vdupq_n_u16(0);
}

typedef uint16_t block_sums[ROOM][CHANNELS]; /* the last pixel is none */

LQC_INLINE void start_sums(work *w, const lqc_bconv_tile *tile, uint32_t channel, uint16x8_t start) {
  w->blocks = blocks_from(tile, channel);
  if (tile->initial == NULL) {
    LQC_UNROLL
    for (uint32_t b = 0; b < CHUNK; ++b) {
      w->start[b] = start;
    }
    return;
  }
  for (uint32_t b = 0; b < w->blocks; ++b) {
    w->start[b] = vaddq_u16(start, initial_of(tile, channel + b * CHANNELS));
  }
}

LQC_INLINE void accumulate_with(const lqc_bconv_tile *tile, void (*sums_of)(work *)) {
  block_sums sums[CHUNK];
  work w;
  start_work(&w, tile);
  for (uint32_t channel = 0; channel < tile->out_channels; channel += CHUNK * CHANNELS) {
    start_sums(&w, tile, channel, vdupq_n_u16(0));
    w.out = (uint8_t *)sums;
    sums_of(&w);
    w.weights += w.blocks * w.block_bytes;
    uint16_t *out = (uint16_t *)tile->sums + channel;
    for (uint32_t p = 0; p < tile->pixels; ++p, out += tile->sums_stride) {
      for (uint32_t b = 0; b < w.blocks; ++b) {
        vst1q_u16(out + b * CHANNELS, vld1q_u16(sums[b][p]));
      }
    }
  }
}

/* ---- Threshold --------------------------------------------------------------------------------------------------- */

/* 2p + missing >= limit where p > h = floor((limit - missing - 1) / 2), which UHSUB computes in 17 bits. p >= 0 makes
   every h below -1 as good as -1. */
LQC_INLINE uint16x8_t start_of(uint16x8_t initial, const uint16_t *limits, uint16x8_t missing_and_1) {
  int16x8_t h = vreinterpretq_s16_u16(vhsubq_u16(vld1q_u16(limits), missing_and_1));
  h = vmaxq_s16(h, vdupq_n_s16(-1));
  return vaddq_u16(initial, vsubq_u16(vdupq_n_u16(INT16_MAX), vreinterpretq_u16_s16(h)));
}

/* Words of 16 pixels from a byte of each of 8 blocks: out[i] holds those of pixels 2i and 2i + 1. */
LQC_INLINE void transpose_bytes(uint64x2_t out[ROOM / 2], const uint8x16_t bytes[CHUNK]) {
  LQC_UNROLL
  for (uint32_t half = 0; half < 2; ++half) {
    uint16x8_t two[4];
    LQC_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      two[i] = vreinterpretq_u16_u8(half ? vzip2q_u8(bytes[2 * i], bytes[2 * i + 1])
                                         : vzip1q_u8(bytes[2 * i], bytes[2 * i + 1]));
    }
    uint32x4_t low[2], high[2];
    LQC_UNROLL
    for (uint32_t i = 0; i < 2; ++i) {
      low[i] = vreinterpretq_u32_u16(vzip1q_u16(two[2 * i], two[2 * i + 1]));
      high[i] = vreinterpretq_u32_u16(vzip2q_u16(two[2 * i], two[2 * i + 1]));
    }
    out[4 * half] = vreinterpretq_u64_u32(vzip1q_u32(low[0], low[1]));
    out[4 * half + 1] = vreinterpretq_u64_u32(vzip2q_u32(low[0], low[1]));
    out[4 * half + 2] = vreinterpretq_u64_u32(vzip1q_u32(high[0], high[1]));
    out[4 * half + 3] = vreinterpretq_u64_u32(vzip2q_u32(high[0], high[1]));
  }
}

LQC_INLINE void threshold_with(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing,
                               const lqc_epilogue_params *params, void (*signs_of)(work *)) {
  const uint16x8_t missing_and_1 = vdupq_n_u16((uint16_t)(missing + 1));
  uint8x16_t bytes[CHUNK];
  work w;
  start_work(&w, tile);
  for (uint32_t channel = 0, word = 0; channel < tile->out_channels; channel += CHUNK * CHANNELS, ++word) {
    w.blocks = blocks_from(tile, channel);
    w.out = (uint8_t *)bytes;
    for (uint32_t b = 0; b < w.blocks; ++b) {
      const uint32_t first = channel + b * CHANNELS;
      w.start[b] = start_of(initial_of(tile, first), params->limits + first, missing_and_1);
    }
    for (uint32_t b = (uint32_t)w.blocks; b < CHUNK; ++b) {
      bytes[b] = vdupq_n_u8(0);
    }
    signs_of(&w);
    w.weights += w.blocks * w.block_bytes;
    const uint64x2_t invert = vdupq_n_u64(params->invert ? params->invert[word] : 0);
    uint64x2_t words[ROOM / 2];
    transpose_bytes(words, bytes);
    LQC_UNROLL
    for (uint32_t p = 0; p < TILE; p += 2) {
      const uint64x2_t two = veorq_u64(words[p / 2], invert);
      if (p >= tile->pixels) {
        break;
      }
      vst1q_lane_u64((uint64_t *)outputs[p] + word, two, 0);
      if (p + 1 < tile->pixels) {
        vst1q_lane_u64((uint64_t *)outputs[p + 1] + word, two, 1);
      }
    }
  }
}

/* ---- Clip to int8 ------------------------------------------------------------------------------------------------ */

/* Fast: steps of 2^e, e >= 1, an even number of true channels K, and the limit 127. Then a = K - 2p is even, and
 *   v = clip(floor(a / 2^e + 1/2)) = clip(-floor((p - K/2 + h) / 2^(e-1))), h = 2^(e-2) - 1, 0 for e = 1:
 * floor(x + 1/2) = -ceil(-x - 1/2), and ceil(n / d) = floor((n + d - 1) / d) for integers. So the sums start at
 * h - K / 2, and what is left is a shift, SQXTN to -128 .. 127, and SQNEG to +-127.
 * Otherwise SQRSHL shifts right with rounding half up where the shift is negative, left with saturation where it is
 * positive; its rounding does not overflow. */
typedef struct clip_values {
  int fast;
  uint16x8_t start, k;
  int16x8_t shift;
  int8x16_t high, low;
} clip_values;

static clip_values clip_values_of(uint32_t missing, const lqc_epilogue_params *params) {
  const uint32_t k = params->k - missing;
  const int32_t step = params->step_log2;
  const int fast = k % 2 == 0 && step >= 1 && step <= 14 && params->clip_limit == INT8_MAX;
  const int32_t half = fast && step > 1 ? (1 << (step - 2)) - 1 : 0;
  return (clip_values){.fast = fast,
                       .start = vdupq_n_u16(fast ? (uint16_t)(half - (int32_t)(k / 2)) : 0),
                       .k = vdupq_n_u16((uint16_t)k),
                       .shift = vdupq_n_s16((int16_t)(fast - step)),
                       .high = vdupq_n_s8((int8_t)params->clip_limit),
                       .low = vdupq_n_s8((int8_t)-params->clip_limit)};
}

LQC_INLINE int16x8_t shifted(const uint16_t *sums, const clip_values *c, const int fast) {
  const uint16x8_t p = vld1q_u16(sums);
  return fast ? vshlq_s16(vreinterpretq_s16_u16(p), c->shift)
              : vqrshlq_s16(vreinterpretq_s16_u16(vsubq_u16(c->k, vshlq_n_u16(p, 1))), c->shift);
}

LQC_INLINE int8x16_t clipped(const uint16_t *first, const uint16_t *second, const clip_values *c, const int fast) {
  const int8x16_t v = vqmovn_high_s16(vqmovn_s16(shifted(first, c, fast)), shifted(second, c, fast));
  return fast ? vqnegq_s8(v) : vmaxq_s8(vminq_s8(v, c->high), c->low);
}

LQC_INLINE void clip_chunk(block_sums sums[CHUNK], const clip_values *c, int8_t *const *outputs, uint32_t pixels,
                           uint32_t channel, uint32_t channels, const int fast) {
  for (uint32_t p = 0; p < pixels; ++p) {
    int8_t *out = outputs[p] + channel;
    if (channels == CHUNK * CHANNELS) {
      LQC_UNROLL
      for (uint32_t b = 0; b < CHUNK; b += 2) {
        vst1q_s8(out + b * CHANNELS, clipped(sums[b][p], sums[b + 1][p], c, fast));
      }
      continue;
    }
    int8_t last[CHUNK * CHANNELS];
    for (uint32_t b = 0; b * CHANNELS < channels; b += 2) {
      vst1q_s8(last + b * CHANNELS, clipped(sums[b][p], sums[b + 1][p], c, fast));
    }
    memcpy(out, last, channels);
  }
}

LQC_INLINE void clip_with(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing,
                          const lqc_epilogue_params *params, void (*sums_of)(work *)) {
  const clip_values c = clip_values_of(missing, params);
  block_sums sums[CHUNK];
  work w;
  start_work(&w, tile);
  for (uint32_t channel = 0; channel < tile->out_channels; channel += CHUNK * CHANNELS) {
    const uint32_t channels = lqc_min_u32(CHUNK * CHANNELS, tile->out_channels - channel);
    start_sums(&w, tile, channel, c.start);
    if (w.blocks % 2 != 0) {
      memset(sums[w.blocks], 0, sizeof(block_sums)); /* blocks are clipped in twos */
    }
    w.out = (uint8_t *)sums;
    sums_of(&w);
    w.weights += w.blocks * w.block_bytes;
    if (c.fast) {
      clip_chunk(sums, &c, (int8_t *const *)outputs, tile->pixels, channel, channels, 1);
    } else {
      clip_chunk(sums, &c, (int8_t *const *)outputs, tile->pixels, channel, channels, 0);
    }
  }
}

#define LQC_DEFINE_KERNEL(which)                                                                    \
  static void accumulate_##which(const lqc_bconv_tile *tile) {                                      \
    accumulate_with(tile, sums_of_##which);                                                         \
  }                                                                                                 \
  static void threshold_##which(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing, \
                                const lqc_epilogue_params *params) {                                \
    threshold_with(tile, outputs, missing, params, signs_of_##which);                               \
  }                                                                                                 \
  static void clip_##which(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing,      \
                           const lqc_epilogue_params *params) {                                     \
    clip_with(tile, outputs, missing, params, sums_of_##which);                                     \
  }

LQC_DEFINE_KERNEL(words)
LQC_DEFINE_KERNEL(pairs)

const lqc_bconv_kernel lqc_bconv2d_neon = {
    .name = "bconv2d_neon",
    .isa = LQC_ISA_NEON,
    .wide = 0,
    .max_pixels = TILE,
    .tap_words = 1,
    .packed_bytes = packed_bytes,
    .pack = pack_words,
    .accumulate = accumulate_words,
    .threshold = threshold_words,
    .clip = clip_words,
};

const lqc_bconv_kernel lqc_bconv2d_neon_pairs = {
    .name = "bconv2d_neon_pairs",
    .isa = LQC_ISA_NEON,
    .wide = 0,
    .max_pixels = TILE,
    .tap_words = 2,
    .packed_bytes = packed_bytes,
    .pack = pack_pairs,
    .accumulate = accumulate_pairs,
    .threshold = threshold_pairs,
    .clip = clip_pairs,
};
