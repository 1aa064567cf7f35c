/* The inner loops of bconv2d_neon.c as text for inline assembly, in the order in which an in-order core is to issue
 * them. Registers: v0-v6 and v31 temporaries, v7 the input, v8-v15 filters, v16-v30 the sums of pixels 0-14; x1-x15 the
 * places of pixels 0-14 in the input, x17 that of the tile's last pixel, x19 the distance from there in bytes, x20 the
 * place in the filters.
 *
 * A block is one pixel with eight filters. Pixels run from the last to the first, so that a tile of any size starts in
 * the middle of the blocks. The last levels of a pixel's tree of ADDP (its tail) are spread over the next pixel's
 * block, so that every result is used at least four vector instructions later, and the input's load lies eight before
 * its first use. EORs stand together and behind an ADDP: cores that complete instructions in order, with EOR faster
 * than CNT, wait least there. With these rules eight temporaries are needed, so a tile has fifteen pixels and not
 * sixteen. Found by random search. */
#ifndef LQC_BCONV2D_NEON_BLOCKS_H
#define LQC_BCONV2D_NEON_BLOCKS_H

#include <arm_neon.h>

#include "kernels.h"

/* clang-format off */

#define LQC_EOR(to, filter) "eor v" #to ".16b, v7.16b, v" #filter ".16b\n\t"
#define LQC_CNT(to, from) "cnt v" #to ".16b, v" #from ".16b\n\t"
#define LQC_ADDP(to, a, b) "addp v" #to ".16b, v" #a ".16b, v" #b ".16b\n\t"
#define LQC_UADALP(sum, from) "uadalp v" #sum ".8h, v" #from ".16b\n\t"
#define LQC_NOTHING

/* ---- 128 bits: a register holds two words of one filter ---------------------------------------------------------- */

#define LQC_PAIR_TAIL_1 LQC_ADDP(5, 5, 31)
#define LQC_PAIR_TAIL_2 LQC_ADDP(31, 6, 5)
#define LQC_PAIR_TAIL_3(sum) LQC_UADALP(sum, 31)

#define LQC_PAIR_LOAD(place) "ldr q7, [x" #place ", x19]\n\t"

/* tails: of the pixel before; load: of the next pixel's input. */
#define LQC_PAIR_BLOCK_OF(tail_1, tail_2, tail_3, load)                        \
  LQC_EOR(0, 8) LQC_EOR(1, 9) LQC_EOR(2, 10) LQC_EOR(3, 11) LQC_EOR(4, 12)     \
  LQC_CNT(0, 0) LQC_CNT(1, 1) LQC_CNT(2, 2) tail_1 LQC_CNT(3, 3) LQC_CNT(4, 4) \
  LQC_ADDP(0, 0, 1) tail_2                                                     \
  LQC_EOR(5, 13) LQC_EOR(1, 14) LQC_EOR(6, 15) load                            \
  LQC_ADDP(2, 2, 3) LQC_CNT(5, 5) LQC_CNT(1, 1) LQC_CNT(3, 6)                  \
  LQC_ADDP(6, 0, 2) LQC_ADDP(5, 4, 5) tail_3 LQC_ADDP(31, 1, 3)

#define LQC_PAIR_BLOCK(sum_before, load) \
  LQC_PAIR_BLOCK_OF(LQC_PAIR_TAIL_1, LQC_PAIR_TAIL_2, LQC_PAIR_TAIL_3(sum_before), load)

/* Pixels 14 to 0. Labels: 14 the first block, 13 the second. Blocks 13 to 1 have LQC_PAIR_BLOCK_BYTES each. */
#define LQC_PAIR_BLOCK_BYTES 100
#define LQC_PAIR_BLOCKS                                                                        \
  "14:\n\t" LQC_PAIR_BLOCK_OF(LQC_NOTHING, LQC_NOTHING, LQC_NOTHING, LQC_PAIR_LOAD(14))        \
  "13:\n\t" LQC_PAIR_BLOCK(30, LQC_PAIR_LOAD(13)) LQC_PAIR_BLOCK(29, LQC_PAIR_LOAD(12))        \
  LQC_PAIR_BLOCK(28, LQC_PAIR_LOAD(11)) LQC_PAIR_BLOCK(27, LQC_PAIR_LOAD(10))                  \
  LQC_PAIR_BLOCK(26, LQC_PAIR_LOAD(9)) LQC_PAIR_BLOCK(25, LQC_PAIR_LOAD(8))                    \
  LQC_PAIR_BLOCK(24, LQC_PAIR_LOAD(7)) LQC_PAIR_BLOCK(23, LQC_PAIR_LOAD(6))                    \
  LQC_PAIR_BLOCK(22, LQC_PAIR_LOAD(5)) LQC_PAIR_BLOCK(21, LQC_PAIR_LOAD(4))                    \
  LQC_PAIR_BLOCK(20, LQC_PAIR_LOAD(3)) LQC_PAIR_BLOCK(19, LQC_PAIR_LOAD(2))                    \
  LQC_PAIR_BLOCK(18, LQC_PAIR_LOAD(1)) LQC_PAIR_BLOCK(17, LQC_NOTHING)

/* ---- 64 bits: a register holds one word of two filters, the input's word stands in both halves ------------------- */

#define LQC_WORD_TAIL_1 LQC_ADDP(5, 4, 5)
#define LQC_WORD_TAIL_2(sum) LQC_UADALP(sum, 5)

#define LQC_WORD_ADDRESS(place) "add x30, x19, x" #place "\n\t"
#define LQC_WORD_LOAD "ld1r {v7.2d}, [x30]\n\t"

#define LQC_WORD_BLOCK_OF(tail_1, tail_2, address, load)            \
  LQC_EOR(0, 8) LQC_EOR(1, 9) LQC_EOR(2, 10) address LQC_EOR(3, 11) \
  LQC_CNT(0, 0) load LQC_CNT(1, 1) LQC_CNT(2, 2) LQC_CNT(3, 3)      \
  tail_1 LQC_ADDP(4, 0, 1) tail_2 LQC_ADDP(5, 2, 3)

#define LQC_WORD_BLOCK(sum_before, next) \
  LQC_WORD_BLOCK_OF(LQC_WORD_TAIL_1, LQC_WORD_TAIL_2(sum_before), LQC_WORD_ADDRESS(next), LQC_WORD_LOAD)

/* Label 23: the second block. Blocks 13 to 1 have LQC_WORD_BLOCK_BYTES each. */
#define LQC_WORD_BLOCK_BYTES 56
#define LQC_WORD_BLOCKS                                                                        \
  LQC_WORD_BLOCK_OF(LQC_NOTHING, LQC_NOTHING, LQC_WORD_ADDRESS(14), LQC_WORD_LOAD)             \
  "23:\n\t" LQC_WORD_BLOCK(30, 13) LQC_WORD_BLOCK(29, 12) LQC_WORD_BLOCK(28, 11)               \
  LQC_WORD_BLOCK(27, 10) LQC_WORD_BLOCK(26, 9) LQC_WORD_BLOCK(25, 8) LQC_WORD_BLOCK(24, 7)     \
  LQC_WORD_BLOCK(23, 6) LQC_WORD_BLOCK(22, 5) LQC_WORD_BLOCK(21, 4) LQC_WORD_BLOCK(20, 3)      \
  LQC_WORD_BLOCK(19, 2) LQC_WORD_BLOCK(18, 1)                                                  \
  LQC_WORD_BLOCK_OF(LQC_WORD_TAIL_1, LQC_WORD_TAIL_2(17), LQC_NOTHING, LQC_NOTHING)

/* ---- The sums' start and end ------------------------------------------------------------------------------------- */

#define LQC_COPY_START(to) "mov v" #to ".16b, v16.16b\n\t"
#define LQC_START_SUMS                                                                         \
  "ldr q16, [x28], #16\n\t"                                                                    \
  LQC_COPY_START(17) LQC_COPY_START(18) LQC_COPY_START(19) LQC_COPY_START(20)                  \
  LQC_COPY_START(21) LQC_COPY_START(22) LQC_COPY_START(23) LQC_COPY_START(24)                  \
  LQC_COPY_START(25) LQC_COPY_START(26) LQC_COPY_START(27) LQC_COPY_START(28)                  \
  LQC_COPY_START(29) LQC_COPY_START(30)

/* The next run: x19 its place in the input, x20 its filters, 64 bytes a word, or what `more` makes of that, x21 its
   words. */
#define LQC_NEXT_RUN(more)              \
  "ldp x19, x21, [x22], #16\n\t"        \
  "ubfiz x20, x21, #6, #32\n\t" more    \
  "lsl x19, x19, #3\n\t"                \
  "add x20, x25, x20\n\t"               \
  "lsr x21, x21, #32\n\t"

/* Signs of the sums: one byte a pixel, bit c for filter c, to 16 bytes at x30; v7 holds the places. */
#define LQC_HIGH_BYTES(to, a, b) "uzp2 v" #to ".16b, v" #a ".16b, v" #b ".16b\n\t"
#define LQC_SIGN(v) "cmlt v" #v ".16b, v" #v ".16b, #0\n\t"
#define LQC_PLACE(v) "and v" #v ".16b, v" #v ".16b, v7.16b\n\t"
#define LQC_STORE_SIGNS                                                                        \
  LQC_HIGH_BYTES(9, 18, 19) LQC_HIGH_BYTES(10, 20, 21) LQC_HIGH_BYTES(11, 22, 23)              \
  LQC_HIGH_BYTES(12, 24, 25) LQC_HIGH_BYTES(13, 26, 27) LQC_HIGH_BYTES(14, 28, 29)             \
  LQC_HIGH_BYTES(15, 30, 30) LQC_HIGH_BYTES(8, 16, 17)                                         \
  LQC_SIGN(9) LQC_SIGN(10) LQC_SIGN(11) LQC_SIGN(12)                                           \
  LQC_SIGN(13) LQC_SIGN(14) LQC_SIGN(15) LQC_SIGN(8)                                           \
  LQC_PLACE(9) LQC_PLACE(10) LQC_PLACE(11) LQC_PLACE(12)                                       \
  LQC_PLACE(13) LQC_PLACE(14) LQC_PLACE(15) LQC_PLACE(8)                                       \
  LQC_ADDP(10, 10, 11) LQC_ADDP(12, 12, 13) LQC_ADDP(14, 14, 15) LQC_ADDP(8, 8, 9)             \
  LQC_ADDP(12, 12, 14) LQC_ADDP(8, 8, 10) LQC_ADDP(8, 8, 12)                                   \
  "str q8, [x30]\n\t"

#define LQC_STORE_SUMS                                                                         \
  "stp q16, q17, [x30]\n\t" "stp q18, q19, [x30, #32]\n\t" "stp q20, q21, [x30, #64]\n\t"      \
  "stp q22, q23, [x30, #96]\n\t" "stp q24, q25, [x30, #128]\n\t"                               \
  "stp q26, q27, [x30, #160]\n\t" "stp q28, q29, [x30, #192]\n\t" "str q30, [x30, #224]\n\t"

/* clang-format on */

/* ---- Whole loops: up to eight blocks of filters with a tile ------------------------------------------------------ */

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

#define LQC_TWO_PLACES(a, b, at)                 \
  "ldp x" #a ", x" #b ", [x28, #" #at "]\n\t"    \
  "add x" #a ", x30, x" #a ", lsl #3\n\t"        \
  "add x" #b ", x30, x" #b ", lsl #3\n\t"

#define LQC_BEGIN                                                                    \
  "ldr x28, [x0, #72]\n\t"                                                           \
  "ldr x30, [x0]\n\t"                                                                \
  LQC_TWO_PLACES(1, 2, 0) LQC_TWO_PLACES(3, 4, 16) LQC_TWO_PLACES(5, 6, 32)          \
  LQC_TWO_PLACES(7, 8, 48) LQC_TWO_PLACES(9, 10, 64) LQC_TWO_PLACES(11, 12, 80)      \
  LQC_TWO_PLACES(13, 14, 96)                                                         \
  "ldr x15, [x28, #112]\n\t"                                                         \
  "add x15, x30, x15, lsl #3\n\t"                                                    \
  "ldr x17, [x0, #80]\n\t"                                                           \
  "ldr x27, [x0, #48]\n\t"                                                           \
  "adr x24, 13f\n\t"                                                                 \
  "add x24, x24, x27\n\t"                                                            \
  "ldr x25, [x0, #8]\n\t"                                                            \
  "ldr x26, [x0, #40]\n\t"                                                           \
  "add x28, x0, #96\n"                                                               \
  "1:\n\t" /* a block of filters */                                                  \
  LQC_START_SUMS                                                                     \
  "ldr x22, [x0, #24]\n\t"                                                           \
  "ldr x23, [x0, #32]\n\t"                                                           \
  "cbz x23, 9f\n\t"

#define LQC_END(store, bytes)      \
  "9:\n\t"                         \
  "ldr x30, [x0, #64]\n\t"         \
  "ldr x20, [x0, #16]\n\t"         \
  "ldr q7, [x0, #224]\n\t"         \
  store                            \
  "add x30, x30, #" #bytes "\n\t"  \
  "str x30, [x0, #64]\n\t"         \
  "add x25, x25, x20\n\t"          \
  "subs x26, x26, #1\n\t"          \
  "b.ne 1b\n\t"

/* To the block of the tile's last pixel. */
#define LQC_ENTER_PAIRS "tbnz x27, #63, 14f\n\tbr x24\n"

#define LQC_CLOBBERS                                                                               \
  "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",  \
  "x17", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30",              \
  "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",   \
  "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27",       \
  "v28", "v29", "v30", "v31", "cc", "memory"

/* Temporaries of 0 make the next tail add nothing. */
#define LQC_NO_TAIL "movi v5.16b, #0\n\tmovi v6.16b, #0\n\tmovi v31.16b, #0\n\t"

/* Filters of the next pair, while the tail of the pair before ends. Single loads: an in-order core does something else
   in between. */
#define LQC_LOAD_PAIR(tail_1, tail_2, tail_3, prefetch)         \
  "ldr q8, [x20]\n\t" tail_1 "ldr q7, [x17, x19]\n\t"           \
  "ldr q9, [x20, #16]\n\t" "ldr q10, [x20, #32]\n\t" tail_2     \
  "ldr q11, [x20, #48]\n\t" "ldr q12, [x20, #64]\n\t"           \
  "ldr q13, [x20, #80]\n\t" "ldr q14, [x20, #96]\n\t" tail_3    \
  "ldr q15, [x20, #112]\n\t" prefetch

/* Filters are fetched 512 bytes ahead, since those of a large layer come from the second level of the cache. */
#define LQC_PREFETCH_PAIR "prfm pldl1keep, [x20, #512]\n\t" "prfm pldl1keep, [x20, #576]\n\t"

/* Runs of pairs of words. A pair's filters take 128 bytes. */
#define LQC_PAIRS(store, bytes)                                                            \
  LQC_BEGIN LQC_NO_TAIL                                                                    \
  "3:\n\t" LQC_NEXT_RUN(LQC_NOTHING)                                                       \
  "2:\n\t"                                                                                 \
  LQC_LOAD_PAIR(LQC_PAIR_TAIL_1, LQC_PAIR_TAIL_2, LQC_PAIR_TAIL_3(16), LQC_PREFETCH_PAIR)  \
  "add x20, x20, #128\n\t"                                                                 \
  LQC_ENTER_PAIRS                                                                          \
  LQC_PAIR_BLOCKS                                                                          \
  "subs x21, x21, #2\n\t"                                                                  \
  "add x19, x19, #16\n\t"                                                                  \
  "b.ne 2b\n\t"                                                                            \
  "subs x23, x23, #1\n\t"                                                                  \
  "b.ne 3b\n\t"                                                                            \
  LQC_PAIR_TAIL_1 LQC_PAIR_TAIL_2 LQC_PAIR_TAIL_3(16)                                      \
  LQC_END(store, bytes)

/* Runs of any words: pairs, then the last word, if their number is odd. A word's filters take 192 bytes, those of the
   pair that starts there and then its own. x21: words left, less 2. */
#define LQC_WORDS(store, bytes)                                                            \
  LQC_BEGIN                                                                                \
  "3:\n\t" LQC_NEXT_RUN("add x20, x20, x20, lsl #1\n\t")                                   \
  "subs x21, x21, #2\n\t"                                                                  \
  "b.lo 6f\n\t"                                                                            \
  LQC_LOAD_PAIR(LQC_NOTHING, LQC_NOTHING, LQC_NOTHING, LQC_NOTHING)                        \
  "add x20, x20, #384\n\t"                                                                 \
  LQC_ENTER_PAIRS                                                                          \
  "2:\n\t"                                                                                 \
  LQC_LOAD_PAIR(LQC_PAIR_TAIL_1, LQC_PAIR_TAIL_2, LQC_PAIR_TAIL_3(16), LQC_NOTHING)        \
  "add x20, x20, #384\n\t"                                                                 \
  LQC_ENTER_PAIRS                                                                          \
  LQC_PAIR_BLOCKS                                                                          \
  "add x19, x19, #16\n\t"                                                                  \
  "subs x21, x21, #2\n\t"                                                                  \
  "b.hs 2b\n\t"                                                                            \
  "tbz x21, #0, 7f\n"                                                                      \
  "5:\n\t"                                                                                 \
  "add x30, x19, x17\n\t"                                                                  \
  "ldp q8, q9, [x20, #128]\n\t"                                                            \
  LQC_PAIR_TAIL_1                                                                          \
  "ld1r {v7.2d}, [x30]\n\t"                                                                \
  "ldp q10, q11, [x20, #160]\n\t"                                                          \
  LQC_PAIR_TAIL_2                                                                          \
  "tbnz x27, #63, 4f\n\t"                                                                  \
  "ldr x30, [x0, #56]\n\t"                                                                 \
  "adr x21, 23f\n\t"                                                                       \
  "add x21, x21, x30\n\t"                                                                  \
  LQC_PAIR_TAIL_3(16)                                                                      \
  "br x21\n"                                                                               \
  "4:\n\t"                                                                                 \
  LQC_PAIR_TAIL_3(16)                                                                      \
  LQC_WORD_BLOCKS                                                                          \
  LQC_WORD_TAIL_1                                                                          \
  "subs x23, x23, #1\n\t"                                                                  \
  LQC_WORD_TAIL_2(16)                                                                      \
  "b.ne 3b\n\t"                                                                            \
  "b 9f\n"                                                                                 \
  "6:\n\t" /* a single word: there is no pair before it */                                 \
  LQC_NO_TAIL                                                                              \
  "b 5b\n"                                                                                 \
  "7:\n\t" LQC_PAIR_TAIL_1 LQC_PAIR_TAIL_2 LQC_PAIR_TAIL_3(16)                             \
  "subs x23, x23, #1\n\t"                                                                  \
  "b.ne 3b\n\t"                                                                            \
  LQC_END(store, bytes)

/* clang-format on */

#endif /* LQC_BCONV2D_NEON_BLOCKS_H */
