/* The loops of bconv2d_neon.c as text for inline assembly: up to eight blocks of filters with a tile, in the registers
 * that bconv2d_neon_blocks.h names. Others: x22 the next run, x23 the runs left, x24 the code of the tile's last pixel,
 * 0 for a whole tile, x25 the block's filters, x26 the blocks left, x28 their sums' start; x16 and x30 are temporaries.
 *
 * A step is a pair of words, or a word, of all pixels. Its last pixel is computed while the filters of the next step
 * are loaded. S is WHOLE or HALVES. */
#ifndef LQC_BCONV2D_NEON_LOOPS_H
#define LQC_BCONV2D_NEON_LOOPS_H

#include <stddef.h>

#include "bconv2d_neon_blocks.h"

/* What they know of both; the offsets are given left. */
typedef struct lqc_neon_work {
  const uint64_t *input;    /*   0 */
  const uint8_t *weights;   /*   8, of the first block */
  size_t block_bytes;       /*  16 */
  const lqc_run *runs;      /*  24 */
  size_t run_count;         /*  32 */
  size_t blocks;            /*  40 */
  int64_t skip_pairs;       /*  48, bytes of code from block 13 to that of the last pixel; -1: all pixels */
  int64_t skip_words;       /*  56, the same of the blocks of a word */
  uint8_t *out;             /*  64, moves on with the blocks */
  const ptrdiff_t *offsets; /*  72, of 15 pixels, words */
  const uint64_t *last;     /*  80, the last pixel's place */
  uint16x8_t start[8];      /*  96, of the sums */
  uint8x16_t place;         /* 224, bit c in byte c, twice */
} lqc_neon_work;

_Static_assert(offsetof(lqc_neon_work, last) == 80 && offsetof(lqc_neon_work, start) == 96 &&
                   offsetof(lqc_neon_work, place) == 224 && sizeof(lqc_run) == 16 && sizeof(ptrdiff_t) == 8,
               "known to the assembly");

/* clang-format off */

#define LQC_PLACE_OF(p) "add x" #p ", x30, x" #p ", lsl #3\n\t"

#define LQC_BEGIN                                                                            \
  "ldr x28, [x0, #72]\n\t"                                                                   \
  "ldr x30, [x0]\n\t"                                                                        \
  "ldr x27, [x0, #48]\n\t"                                                                   \
  "ldp x1, x2, [x28]\n\t"                                                                    \
  "ldp x3, x4, [x28, #16]\n\t"                                                               \
  "ldp x5, x6, [x28, #32]\n\t"                                                               \
  "ldp x7, x8, [x28, #48]\n\t"      LQC_PLACE_OF(1) LQC_PLACE_OF(2)                          \
  "ldp x9, x10, [x28, #64]\n\t"     LQC_PLACE_OF(3) LQC_PLACE_OF(4)                          \
  "ldp x11, x12, [x28, #80]\n\t"    LQC_PLACE_OF(5) LQC_PLACE_OF(6)                          \
  "ldp x13, x14, [x28, #96]\n\t"    LQC_PLACE_OF(7) LQC_PLACE_OF(8)                          \
  "ldr x15, [x28, #112]\n\t"        LQC_PLACE_OF(9) LQC_PLACE_OF(10)                         \
  "ldr x17, [x0, #80]\n\t"          LQC_PLACE_OF(11) LQC_PLACE_OF(12)                        \
  "ldr x25, [x0, #8]\n\t"           LQC_PLACE_OF(13) LQC_PLACE_OF(14)                        \
  "ldr x26, [x0, #40]\n\t"          LQC_PLACE_OF(15)                                         \
  "adr x24, 13f\n\t"                                                                         \
  "add x28, x0, #96\n\t"                                                                     \
  "add x24, x24, x27\n\t"                                                                    \
  "cmn x27, #1\n\t"                                                                          \
  "csel x24, xzr, x24, eq\n\t"                                                               \
  "ldp x22, x23, [x0, #24]\n\t"                                                              \
  "cbz x23, 8f\n\t"                                                                          \
  "ldp x19, x21, [x22], #16\n"                                                               \
  "1:\n\t" /* a block of filters */

/* Label 8: there are no runs. */
#define LQC_END(store, bytes)                                     \
  "9:\n\t"                                                        \
  "ldp x22, x23, [x0, #24]\n\t"                                   \
  "ldr x30, [x0, #64]\n\t"                                        \
  "ldr q7, [x0, #224]\n\t"                                        \
  "ldr x20, [x0, #16]\n\t"                                        \
  "ldp x19, x21, [x22], #16\n\t"                                  \
  store                                                           \
  "add x30, x30, #" #bytes "\n\t"                                 \
  "str x30, [x0, #64]\n\t"                                        \
  "add x25, x25, x20\n\t"                                         \
  "subs x26, x26, #1\n\t"                                         \
  "b.ne 1b\n\t"                                                   \
  "b 10f\n"                                                       \
  "8:\n\t"                                                        \
  "ldr x30, [x0, #64]\n\t"                                        \
  "ldr q7, [x0, #224]\n\t"                                        \
  "ldr q16, [x28], #16\n\t" LQC_COPY_STARTS                       \
  store                                                           \
  "add x30, x30, #" #bytes "\n\t"                                 \
  "str x30, [x0, #64]\n\t"                                        \
  "subs x26, x26, #1\n\t"                                         \
  "b.ne 8b\n"                                                     \
  "10:\n\t"

#define LQC_CLOBBERS                                                                               \
  "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",  \
  "x16", "x17", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30",       \
  "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",   \
  "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27",       \
  "v28", "v29", "v30", "v31", "cc", "memory"

/* Runs of pairs of words. A pair's filters take 128 bytes. A step's first block, label 14, ends the tree of the step
   before, or of zeros; where a smaller tile begins at another block, that tree has ended and what is there goes to the
   sum of a pixel that is none. */
#define LQC_PAIRS(S, store, bytes)                                                         \
  LQC_BEGIN                                                                                \
  LQC_PAIR_FIRST(S)                                                                        \
  "cbnz x24, 4f\n"                                                                         \
  "14:\n\t" LQC_PAIR_BLOCK(S, 16, 14)                                                      \
  LQC_PAIR_BLOCKS(S)                                                                       \
  "subs x21, x21, #2\n\t"                                                                  \
  "b.eq 5f\n\t"                                                                            \
  "cbnz x24, 3f\n\t"                                                                       \
  LQC_PAIR_LAST_SAME_RUN(S)                                                                \
  "b 14b\n"                                                                                \
  "3:\n\t" LQC_PAIR_ENDED_SAME_RUN(S)                                                      \
  "4:\n\t"                                                                                 \
  "br x24\n"                                                                               \
  "5:\n\t"                                                                                 \
  "subs x23, x23, #1\n\t"                                                                  \
  "b.eq 6f\n\t"                                                                            \
  "cbnz x24, 7f\n\t"                                                                       \
  LQC_PAIR_LAST_NEXT_RUN(S)                                                                \
  "b 14b\n"                                                                                \
  "7:\n\t" LQC_PAIR_ENDED_NEXT_RUN(S)                                                      \
  "br x24\n"                                                                               \
  "6:\n\t" LQC_PAIR_LAST                                                                   \
  LQC_END(store, bytes)

/* A step of a pair, where none was loaded before: all filters at once. */
#define LQC_PAIR_LOAD(S)                                                                       \
  LQC_LOW_##S(8, 0) LQC_HIGH_##S(16, 0) LQC_LOW_##S(9, 16) LQC_HIGH_##S(30, 16)                \
  LQC_INPUT_LOW_##S(17) LQC_JOIN_##S(8, 16) LQC_INPUT_HIGH_##S(16, 17) LQC_JOIN_##S(9, 30)     \
  LQC_LOW_##S(10, 32) LQC_HIGH_##S(30, 32) LQC_LOW_##S(11, 48) LQC_JOIN_##S(7, 16)             \
  LQC_HIGH_##S(16, 48) LQC_LOW_##S(12, 64) LQC_JOIN_##S(10, 30) LQC_HIGH_##S(30, 64)           \
  LQC_LOW_##S(13, 80) LQC_JOIN_##S(11, 16) LQC_HIGH_##S(16, 80) LQC_LOW_##S(14, 96)            \
  LQC_JOIN_##S(12, 30) LQC_HIGH_##S(30, 96) LQC_LOW_##S(15, 112) LQC_JOIN_##S(13, 16)          \
  LQC_HIGH_##S(16, 112) LQC_JOIN_##S(14, 30) LQC_JOIN_##S(15, 16)

/* Runs of any words: pairs, then the last word, if their number is odd. A word's filters take 192 bytes, those of the
   pair that starts there and then its own. x21: words left, less 2; in the step of the last word, those of the
   next run. No tree is left to the next step. */
#define LQC_WORDS(S, store, bytes)                                                         \
  LQC_BEGIN                                                                                \
  "ldr q16, [x28], #16\n\t"                                                                \
  LQC_NEXT_WORDS(S)                                                                        \
  "b.lo 6f\n\t"                                                                            \
  LQC_WORDS_FIRST(S)                                                                       \
  "cbnz x24, 3f\n"                                                                         \
  "14:\n\t"                                                                                \
  LQC_PAIR_BLOCK_OF(LQC_NOTHING, LQC_NOTHING, LQC_NOTHING, LQC_INPUT_HIGH_##S(16, 14),     \
                    LQC_INPUT_LOW_##S(14), LQC_JOIN_##S(7, 16))                            \
  LQC_PAIR_BLOCKS(S)                                                                       \
  "subs x21, x21, #2\n\t"                                                                  \
  "b.hs 4f\n\t"                                                                            \
  "tbz x21, #0, 7f\n\t"                                                                    \
  LQC_PAIR_LAST_WORD(S)                                                                    \
  "cbnz x24, 24f\n"                                                                        \
  LQC_WORD_FIRST_PAIR_TAILS                                                                \
  LQC_WORD_BLOCKS                                                                          \
  "subs x23, x23, #1\n\t"                                                                  \
  "b.eq 5f\n\t"                                                                            \
  "tbnz x21, #63, 26f\n\t"                                                                 \
  LQC_WORD_LAST_PAIR(S)                                                                    \
  "cbz x24, 14b\n"                                                                         \
  "3:\n\t"                                                                                 \
  "br x24\n"                                                                               \
  "4:\n\t" /* another pair of the run */                                                   \
  LQC_PAIR_LAST                                                                            \
  "add x19, x19, #16\n\t"                                                                  \
  "add x20, x20, #384\n\t" LQC_HIGH_PLACE_##S                                              \
  "2:\n\t" LQC_PAIR_LOAD(S)                                                                \
  "cbz x24, 14b\n\t"                                                                       \
  "br x24\n"                                                                               \
  "7:\n\t" /* a run of an even number of words ends */                                     \
  LQC_PAIR_LAST                                                                            \
  "subs x23, x23, #1\n\t"                                                                  \
  "b.eq 9f\n\t"                                                                            \
  "ldp x19, x21, [x22], #16\n\t"                                                           \
  LQC_NEXT_WORDS(S)                                                                        \
  "b.hs 2b\n\t"                                                                            \
  "b 27f\n"                                                                                \
  "6:\n\t" LQC_COPY_STARTS                                                                 \
  "b 27f\n"                                                                                \
  "26:\n\t" /* the run after this word is a single word */                                 \
  LQC_WORD_LAST                                                                            \
  "mov x19, x27\n\t"                                                                       \
  "add x22, x22, #16\n"                                                                    \
  "27:\n\t" /* a single word */                                                            \
  "add x30, x19, x17\n\t"                                                                  \
  "ldp q8, q9, [x20, #128]\n\t"                                                            \
  "ldp q10, q11, [x20, #160]\n\t" LQC_WORD_LOAD LQC_PEEK_RUN                               \
  "cbnz x24, 25f\n\t"                                                                      \
  LQC_WORD_FIRST                                                                           \
  "b 23b\n"                                                                                \
  "24:\n\t" LQC_PAIR_TAILS                                                                 \
  "25:\n\t" /* to the block of the tile's last pixel */                                    \
  "ldr x30, [x0, #56]\n\t"                                                                 \
  "adr x16, 23b\n\t"                                                                       \
  "add x16, x16, x30\n\t"                                                                  \
  "br x16\n"                                                                               \
  "5:\n\t" LQC_WORD_LAST                                                                   \
  LQC_END(store, bytes)

/* clang-format on */

#endif /* LQC_BCONV2D_NEON_LOOPS_H */
