/* The loops of bconv2d_neon.c as text for inline assembly: up to eight blocks of filters with a tile, in the registers
 * that bconv2d_neon_blocks.h names. Others: x21 words left of an entry (lqc_neon_step), x22 the last entry that was
 * read, 16 bytes into it, x23 entries of pairs left, x24 the code of the tile's last pixel, 0 for a whole tile, x25 the
 * block's filters, x26 the blocks left, x28 their sums' start; x16 and x30 are temporaries.
 *
 * A step is a pair of words, or a word, of all pixels. Its last pixel is computed while the filters of the next step
 * are loaded. */
#ifndef LQC_BCONV2D_NEON_LOOPS_H
#define LQC_BCONV2D_NEON_LOOPS_H

#include <stddef.h>

#include "bconv2d_neon_layout.h"
#include "bconv2d_neon_transitions.h"

/* What the loops know of input and weights; the offsets are given left. */
typedef struct lqc_neon_work {
  const uint64_t *input;    /*   0 */
  const uint8_t *weights;   /*   8, of the first block */
  size_t block_bytes;       /*  16 */
  const uint8_t *entries;   /*  24, 16 bytes before the first */
  uint64_t pairs;           /*  32, with HALVES, crosses too */
  size_t blocks;            /*  40 */
  int64_t skip_pairs;       /*  48, bytes of code from block 13 to that of the last pixel; -1: all pixels */
  int64_t skip_words;       /*  56, the same of the blocks of a word */
  uint8_t *out;             /*  64, moves on with the blocks */
  const ptrdiff_t *offsets; /*  72, of 15 pixels, words */
  const uint64_t *last;     /*  80, the last pixel's place */
  int64_t skip_crosses;     /*  88 */
  uint16x8_t start[8];      /*  96, of the sums */
  uint8x16_t place;         /* 224, bit c in byte c, twice */
} lqc_neon_work;

_Static_assert(offsetof(lqc_neon_work, last) == 80 && offsetof(lqc_neon_work, start) == 96 &&
                   offsetof(lqc_neon_work, place) == 224 && offsetof(lqc_neon_work, skip_crosses) == 88 &&
                   sizeof(lqc_neon_step) == 32 && sizeof(ptrdiff_t) == 8,
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
  "ldp x22, x23, [x0, #24]\n\t"

#define LQC_CLOBBERS                                                                               \
  "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",  \
  "x16", "x17", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30",       \
  "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",   \
  "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27",       \
  "v28", "v29", "v30", "v31", "cc", "memory"

/* A step's first block, label 14, ends the tree of the step before; where a smaller tile begins at another block, that
   tree has ended and what is there goes to the sum of a pixel that is none. S: WHOLE or HALVES. L: PAIRS or WORDS, the
   layout of filters; PAIRS has no other steps. store: SUMS or SIGNS. */
#define LQC_LOOP(S, L, store)                                                              \
  LQC_BEGIN                                                                                \
  "cbz x23, 8f\n\t"                                                                        \
  LQC_FIRST_##S(L)                                                                         \
  "1:\n\t" /* a block of filters */                                                        \
  "cbnz x24, 4f\n\t"                                                                       \
  LQC_PAIR_BLOCK_FIRST(S)                                                                  \
  "b 13f\n"                                                                                \
  "3:\n\t" LQC_PAIR_ENDED_SAME_RUN(S, L)                                                   \
  "4:\n\t"                                                                                 \
  "br x24\n"                                                                               \
  "14:\n\t" LQC_PAIR_BLOCK(S, 16, 14)                                                      \
  LQC_PAIR_BLOCKS(13, S)                                                                   \
  LQC_PAIR_LAST_HEAD                                                                       \
  "cbnz x24, 3b\n\t"                                                                       \
  LQC_PAIR_LAST_SAME_RUN_##S(L)                                                            \
  "b 14b\n"                                                                                \
  "5:\n\t" LQC_PAIR_LAST_NEXT_HEAD_##S                                                     \
  "b.eq 6f\n\t" LQC_CNT(0, 0)                                                              \
  "cbnz x24, 7f\n\t"                                                                       \
  LQC_PAIR_LAST_NEXT_RUN_##S(S, L)                                                         \
  "b 14b\n"                                                                                \
  "7:\n\t" LQC_PAIR_ENDED_NEXT_RUN(S, L)                                                   \
  "br x24\n"                                                                               \
  "6:\n\t"                                                                                 \
  LQC_OTHER_STEPS_##L(S)                                                                   \
  "9:\n\t"                                                                                 \
  LQC_END_##store                                                                          \
  "b.eq 11f\n\t"                                                                           \
  LQC_##store##_THEN_FIRST_##S(L)                                                          \
  "b 1b\n"                                                                                 \
  "11:\n\t" LQC_##store                                                                    \
  "cbz x26, 10f\n"                                                                         \
  "8:\n\t" /* a block without pairs */                                                     \
  "movi v31.16b, #0\n\t"                                                                   \
  "ldr q16, [x28], #16\n\t" LQC_COPY_STARTS                                                \
  LQC_NO_PAIRS_##L(S)                                                                      \
  "b 9b\n"                                                                                 \
  "10:\n\t"

#define LQC_OTHER_STEPS_PAIRS(S) LQC_PAIR_LAST
#define LQC_NO_PAIRS_PAIRS(S)

/* Label 6 and, after crosses, 16: the step before, all but its last pixel, was of a pair, and the next entry is there. */
#define LQC_OTHER_STEPS_WORDS(S)                                                           \
  LQC_CROSSES_##S                                                                          \
  "16:\n\t"                                                                                \
  "cbz x21, 17f\n\t"                                                                       \
  LQC_PAIR_LAST_WORD(S)                                                                    \
  "cbnz x24, 24f\n\t"                                                                      \
  LQC_WORD_FIRST_PAIR_TAILS                                                                \
  LQC_WORD_BLOCKS                                                                          \
  LQC_WORD_LAST_HEAD                                                                       \
  LQC_WORD_LAST                                                                            \
  "b 9f\n"                                                                                 \
  "24:\n\t" LQC_PAIR_TAILS                                                                 \
  "25:\n\t" /* to the block of the tile's last pixel */                                    \
  "ldr x30, [x0, #56]\n\t"                                                                 \
  "adr x16, 23b\n\t"                                                                       \
  "add x16, x16, x30\n\t"                                                                  \
  "br x16\n"                                                                               \
  "26:\n\t" LQC_WORD_ENDED LQC_ENTRY                                                       \
  "27:\n\t" /* a word, of which no more than the entry is loaded */                        \
  "add x30, x19, x17\n\t"                                                                  \
  "add x20, x25, x20\n\t"                                                                  \
  "ldp q8, q9, [x20]\n\t"                                                                  \
  "ldp q10, q11, [x20, #32]\n\t" LQC_WORD_LOAD                                             \
  "cbnz x24, 25b\n\t"                                                                      \
  LQC_WORD_FIRST                                                                           \
  "b 23b\n"                                                                                \
  "17:\n\t" LQC_PAIR_LAST

#define LQC_NO_PAIRS_WORDS(S)                                                              \
  LQC_ENTRY                                                                                \
  LQC_CROSSES_ONLY_##S                                                                     \
  "cbnz x21, 27b\n\t"

/* With HALVES, pairs and crosses are the same. */
#define LQC_CROSSES_HALVES
#define LQC_CROSSES_ONLY_HALVES
#define LQC_CROSSES_WHOLE                                                                  \
  "cmp x21, #1\n\t"                                                                        \
  "b.ls 16f\n"                                                                             \
  "36:\n\t"                                                                                \
  "cbnz x24, 38f\n\t" LQC_CNT(0, 0)                                                        \
  LQC_PAIR_LAST_NEXT_RUN_WHOLE(CROSS, WORDS)                                              \
  "34:\n\t" LQC_PAIR_BLOCK(CROSS, 16, 14)                                                  \
  LQC_PAIR_BLOCKS(33, CROSS)                                                               \
  LQC_EOR(0, 8) LQC_EOR(1, 9) LQC_PAIR_LAST_NEXT_HEAD_WHOLE                                \
  "cmp x21, #1\n\t"                                                                        \
  "b.hi 36b\n\t"                                                                           \
  "b 16f\n"                                                                                \
  "38:\n\t" LQC_PAIR_LAST LQC_UADALP(16, 31)                                               \
  "39:\n\t" /* a cross, of which no more than the entry is loaded; all trees have ended */ \
  "add x20, x25, x20\n\t" LQC_INPUT_LOW_CROSS(17) LQC_INPUT_HIGH_CROSS(16, 17)             \
  "ldp q8, q9, [x20]\n\t"                                                                  \
  "ldp q10, q11, [x20, #32]\n\t" LQC_JOIN_CROSS(7, 16)                                     \
  "ldp q12, q13, [x20, #64]\n\t"                                                           \
  "ldp q14, q15, [x20, #96]\n\t"                                                           \
  "movi v5.16b, #0\n\t"                                                                    \
  "movi v6.16b, #0\n\t"                                                                    \
  "movi v31.16b, #0\n\t"                                                                   \
  "cbz x24, 34b\n\t"                                                                       \
  "ldr x30, [x0, #88]\n\t"                                                                 \
  "adr x16, 33b\n\t"                                                                       \
  "add x16, x16, x30\n\t"                                                                  \
  "br x16\n"
#define LQC_CROSSES_ONLY_WHOLE                                                             \
  "cmp x21, #1\n\t"                                                                        \
  "b.hi 39b\n\t"

/* clang-format on */

#endif /* LQC_BCONV2D_NEON_LOOPS_H */
