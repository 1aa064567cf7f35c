/* Parts of the loops in bconv2d_neon_loops.h, in the order in which an in-order core is to issue them. Registers: v0-v6
 * and v31 temporaries, v7 the input, v8-v15 filters, v16-v30 the sums of pixels 0-14; x1-x15 the places of pixels 0-14
 * in the input, x17 that of the tile's last pixel, x19 the distance from there in bytes, x20 the place in the filters.
 *
 * A block is one pixel with eight filters. Pixels run from the last to the first, so that a tile of any size starts in
 * the middle of the blocks. The last levels of a pixel's tree of ADDP (its tail) are spread over the next pixel's
 * block, so that every result is used at least four vector instructions later, and the input's load lies eight before
 * its first use. EORs stand together and behind an ADDP: cores that complete instructions in order, with EOR faster
 * than CNT, wait least there. With these rules eight temporaries are needed, so a tile has fifteen pixels and not
 * sixteen. Found by random search. */
#ifndef LQC_BCONV2D_NEON_BLOCKS_H
#define LQC_BCONV2D_NEON_BLOCKS_H

#include "kernels.h"

/* clang-format off */

#define LQC_EOR(to, filter) "eor v" #to ".16b, v7.16b, v" #filter ".16b\n\t"
#define LQC_CNT(to, from) "cnt v" #to ".16b, v" #from ".16b\n\t"
#define LQC_ADDP(to, a, b) "addp v" #to ".16b, v" #a ".16b, v" #b ".16b\n\t"
#define LQC_UADALP(sum, from) "uadalp v" #sum ".8h, v" #from ".16b\n\t"
#define LQC_NOTHING

/* ---- Loads of 128 bits ------------------------------------------------------------------------------------------- */

/* WHOLE, or, for cores that issue nothing else beside a vector load of 128 bits, HALVES: the low half to the vector
   register, the high one to an integer register, which INS brings there. x27: x19 + 8. */
#define LQC_LOW_WHOLE(filter, at) "ldr q" #filter ", [x20, #" #at "]\n\t"
#define LQC_HIGH_WHOLE(half, at)
#define LQC_INPUT_LOW_WHOLE(place) "ldr q7, [x" #place ", x19]\n\t"
#define LQC_INPUT_HIGH_WHOLE(half, place)
#define LQC_JOIN_WHOLE(to, half)
#define LQC_HIGH_PLACE_WHOLE

#define LQC_LOW_HALVES(filter, at) "ldr d" #filter ", [x20, #" #at "]\n\t"
#define LQC_HIGH_HALVES(half, at) "ldr x" #half ", [x20, #" #at " + 8]\n\t"
#define LQC_INPUT_LOW_HALVES(place) "ldr d7, [x" #place ", x19]\n\t"
#define LQC_INPUT_HIGH_HALVES(half, place) "ldr x" #half ", [x" #place ", x27]\n\t"
#define LQC_JOIN_HALVES(to, half) "ins v" #to ".d[1], x" #half "\n\t"
#define LQC_HIGH_PLACE_HALVES "add x27, x19, #8\n\t"

/* ---- 128 bits: a register holds two words of one filter ---------------------------------------------------------- */

#define LQC_PAIR_TAIL_1 LQC_ADDP(5, 5, 31)
#define LQC_PAIR_TAIL_2 LQC_ADDP(31, 6, 5)
#define LQC_PAIR_TAIL_3(sum) LQC_UADALP(sum, 31)

/* tails: of the pixel before; high, low and join: the next pixel's input. */
#define LQC_PAIR_BLOCK_OF(tail_1, tail_2, tail_3, high, low, join)             \
  LQC_EOR(0, 8) LQC_EOR(1, 9) LQC_EOR(2, 10) LQC_EOR(3, 11) LQC_EOR(4, 12)     \
  LQC_CNT(0, 0) LQC_CNT(1, 1) LQC_CNT(2, 2) tail_1 LQC_CNT(3, 3) LQC_CNT(4, 4) \
  LQC_ADDP(0, 0, 1) tail_2 high                                                \
  LQC_EOR(5, 13) LQC_EOR(1, 14) LQC_EOR(6, 15) low                             \
  LQC_ADDP(2, 2, 3) LQC_CNT(5, 5) LQC_CNT(1, 1) LQC_CNT(3, 6)                  \
  LQC_ADDP(6, 0, 2) join LQC_ADDP(5, 4, 5) tail_3 LQC_ADDP(31, 1, 3)

#define LQC_PAIR_BLOCK(S, sum_before, next)                                                      \
  LQC_PAIR_BLOCK_OF(LQC_PAIR_TAIL_1, LQC_PAIR_TAIL_2, LQC_PAIR_TAIL_3(sum_before),               \
                    LQC_INPUT_HIGH_##S(16, next), LQC_INPUT_LOW_##S(next), LQC_JOIN_##S(7, 16))

/* The last pixel, and nothing after it. */
#define LQC_PAIR_LAST                                                                     \
  LQC_PAIR_BLOCK_OF(LQC_PAIR_TAIL_1, LQC_PAIR_TAIL_2, LQC_PAIR_TAIL_3(17), LQC_NOTHING,   \
                    LQC_NOTHING, LQC_NOTHING)                                             \
  LQC_PAIR_TAILS
#define LQC_PAIR_TAILS LQC_PAIR_TAIL_1 LQC_PAIR_TAIL_2 LQC_PAIR_TAIL_3(16)

/* Pixels 13 to 1, label 13. LQC_PAIR_BLOCK_BYTES each, by which a smaller tile finds its first. */
#define LQC_PAIR_BLOCK_BYTES_WHOLE 100
#define LQC_PAIR_BLOCK_BYTES_HALVES 108
#define LQC_PAIR_BLOCKS(S)                                                                       \
  "13:\n\t" LQC_PAIR_BLOCK(S, 30, 13) LQC_PAIR_BLOCK(S, 29, 12) LQC_PAIR_BLOCK(S, 28, 11)        \
  LQC_PAIR_BLOCK(S, 27, 10) LQC_PAIR_BLOCK(S, 26, 9) LQC_PAIR_BLOCK(S, 25, 8)                    \
  LQC_PAIR_BLOCK(S, 24, 7) LQC_PAIR_BLOCK(S, 23, 6) LQC_PAIR_BLOCK(S, 22, 5)                     \
  LQC_PAIR_BLOCK(S, 21, 4) LQC_PAIR_BLOCK(S, 20, 3) LQC_PAIR_BLOCK(S, 19, 2)                     \
  LQC_PAIR_BLOCK(S, 18, 1)

/* ---- 64 bits: a register holds one word of two filters, the input's word stands in both halves ------------------- */

/* The tree's second level and the sum: of the pixel before and of that before it. */
#define LQC_WORD_TAIL_1 LQC_ADDP(6, 4, 5)
#define LQC_WORD_TAIL_2(sum) LQC_UADALP(sum, 6)

#define LQC_WORD_ADDRESS(place) "add x30, x19, x" #place "\n\t"
#define LQC_WORD_LOAD "ld1r {v7.2d}, [x30]\n\t"

#define LQC_WORD_BLOCK_OF(tail_2, tail_1, address, load)            \
  LQC_EOR(0, 8) LQC_EOR(1, 9) LQC_EOR(2, 10) address LQC_EOR(3, 11) \
  LQC_CNT(0, 0) load LQC_CNT(1, 1) LQC_CNT(2, 2) LQC_CNT(3, 3)      \
  tail_2 tail_1 LQC_ADDP(4, 0, 1) LQC_ADDP(5, 2, 3)

#define LQC_WORD_BLOCK(sum_before, next) \
  LQC_WORD_BLOCK_OF(LQC_WORD_TAIL_2(sum_before), LQC_WORD_TAIL_1, LQC_WORD_ADDRESS(next), LQC_WORD_LOAD)

/* The last pixel, and nothing after it. */
#define LQC_WORD_LAST                                                                          \
  LQC_WORD_BLOCK_OF(LQC_WORD_TAIL_2(18), LQC_WORD_TAIL_1, LQC_NOTHING, LQC_NOTHING)            \
  LQC_WORD_TAILS
#define LQC_WORD_TAILS LQC_WORD_TAIL_2(17) LQC_WORD_TAIL_1 LQC_WORD_TAIL_2(16)

/* Pixel 14: alone, and, at the same time, the tails of a pair. */
#define LQC_WORD_FIRST                                                                         \
  LQC_WORD_BLOCK_OF(LQC_NOTHING, LQC_NOTHING, LQC_WORD_ADDRESS(14), LQC_WORD_LOAD)
#define LQC_WORD_FIRST_PAIR_TAILS                                                              \
  LQC_EOR(0, 8) LQC_EOR(1, 9) LQC_EOR(2, 10) LQC_WORD_ADDRESS(14) LQC_EOR(3, 11)               \
  LQC_PAIR_TAIL_1 LQC_CNT(0, 0) LQC_WORD_LOAD LQC_CNT(1, 1) LQC_CNT(2, 2) LQC_CNT(3, 3)        \
  LQC_PAIR_TAIL_2 LQC_ADDP(4, 0, 1) LQC_ADDP(5, 2, 3) LQC_PAIR_TAIL_3(16)

/* Pixels 13 to 1, label 23. LQC_WORD_BLOCK_BYTES each. The first block's older tail is that of no pixel. */
#define LQC_WORD_BLOCK_BYTES 56
#define LQC_WORD_BLOCKS                                                                        \
  "23:\n\t" LQC_WORD_BLOCK(31, 13) LQC_WORD_BLOCK(30, 12) LQC_WORD_BLOCK(29, 11)               \
  LQC_WORD_BLOCK(28, 10) LQC_WORD_BLOCK(27, 9) LQC_WORD_BLOCK(26, 8) LQC_WORD_BLOCK(25, 7)     \
  LQC_WORD_BLOCK(24, 6) LQC_WORD_BLOCK(23, 5) LQC_WORD_BLOCK(22, 4) LQC_WORD_BLOCK(21, 3)      \
  LQC_WORD_BLOCK(20, 2) LQC_WORD_BLOCK(19, 1)

/* ---- The last pixel with what follows ---------------------------------------------------------------------------- */

/* A list scheduler's order, for a core that issues a vector operation, and beside it a load or an integer operation, a
 * cycle: results are used four cycles later. The filters of the next step replace those that the pixel is done with. */

/* The same run's next pair; tails are left to the block that follows. */
#define LQC_PAIR_LAST_SAME_RUN(S)                                                                           \
  LQC_EOR(0, 8) "add x20, x20, #128\n\t" LQC_LOW_##S(8, 0) LQC_EOR(1, 9) LQC_HIGH_##S(16, 0) LQC_EOR(2, 10) \
  LQC_LOW_##S(9, 16) LQC_EOR(3, 11) LQC_LOW_##S(10, 32) LQC_EOR(4, 12) LQC_HIGH_##S(30, 16) LQC_CNT(0, 0)   \
  LQC_JOIN_##S(8, 16) LQC_HIGH_##S(16, 32) LQC_LOW_##S(11, 48) LQC_CNT(1, 1) LQC_LOW_##S(12, 64)            \
  LQC_ADDP(5, 5, 31) LQC_JOIN_##S(9, 30) LQC_HIGH_##S(30, 48) LQC_JOIN_##S(10, 16) LQC_HIGH_##S(16, 64)     \
  LQC_CNT(2, 2) "add x19, x19, #16\n\t" LQC_ADDP(0, 0, 1) LQC_HIGH_PLACE_##S LQC_JOIN_##S(11, 30)           \
  LQC_HIGH_##S(30, 80) LQC_JOIN_##S(12, 16) LQC_HIGH_##S(16, 96) LQC_EOR(1, 14) LQC_LOW_##S(14, 96)         \
  LQC_ADDP(31, 6, 5) "prfm pldl1keep, [x20, #512]\n\t" LQC_EOR(5, 13) LQC_LOW_##S(13, 80) LQC_CNT(3, 3)     \
  "prfm pldl1keep, [x20, #576]\n\t" LQC_EOR(6, 15) LQC_INPUT_LOW_##S(17) LQC_UADALP(17, 31)                 \
  LQC_LOW_##S(15, 112) LQC_JOIN_##S(14, 16) LQC_INPUT_HIGH_##S(16, 17) LQC_ADDP(2, 2, 3) LQC_CNT(1, 1)      \
  LQC_CNT(3, 6) LQC_JOIN_##S(13, 30) LQC_HIGH_##S(30, 112) LQC_CNT(4, 4) LQC_CNT(5, 5) LQC_JOIN_##S(7, 16)  \
  LQC_ADDP(31, 1, 3) LQC_ADDP(6, 0, 2) LQC_ADDP(5, 4, 5) LQC_JOIN_##S(15, 30)

/* The next run's first pair. */
#define LQC_PAIR_LAST_NEXT_RUN(S)                                                                          \
  "ldp x19, x21, [x22], #16\n\t" LQC_EOR(0, 8) LQC_EOR(2, 10) LQC_EOR(3, 11) LQC_EOR(1, 9)                 \
  "ubfiz x20, x21, #6, #32\n\t" LQC_ADDP(5, 5, 31) "add x20, x25, x20\n\t" LQC_CNT(0, 0)                   \
  LQC_HIGH_##S(16, 0) LQC_CNT(3, 3) LQC_LOW_##S(8, 0) LQC_CNT(1, 1) LQC_LOW_##S(10, 32) LQC_ADDP(31, 6, 5) \
  LQC_LOW_##S(9, 16) LQC_EOR(6, 15) LQC_HIGH_##S(30, 16) LQC_EOR(4, 12) LQC_JOIN_##S(8, 16)                \
  LQC_HIGH_##S(16, 32) LQC_ADDP(0, 0, 1) LQC_LOW_##S(12, 64) LQC_EOR(1, 14) LQC_LOW_##S(11, 48)            \
  LQC_EOR(5, 13) LQC_LOW_##S(14, 96) LQC_JOIN_##S(10, 16) LQC_HIGH_##S(16, 64) LQC_JOIN_##S(9, 30)         \
  LQC_HIGH_##S(30, 48) LQC_CNT(2, 2) "lsl x19, x19, #3\n\t" LQC_CNT(4, 4) LQC_HIGH_PLACE_##S               \
  LQC_JOIN_##S(12, 16) LQC_HIGH_##S(16, 96) LQC_JOIN_##S(11, 30) LQC_HIGH_##S(30, 80) LQC_CNT(5, 5)        \
  LQC_LOW_##S(13, 80) LQC_ADDP(2, 2, 3) LQC_INPUT_LOW_##S(17) LQC_JOIN_##S(14, 16)                         \
  LQC_INPUT_HIGH_##S(16, 17) LQC_CNT(3, 6) "lsr x21, x21, #32\n\t" LQC_ADDP(5, 4, 5)                       \
  "prfm pldl1keep, [x20, #512]\n\t" LQC_JOIN_##S(13, 30) LQC_HIGH_##S(30, 112) LQC_ADDP(6, 0, 2)           \
  LQC_LOW_##S(15, 112) LQC_CNT(1, 1) "prfm pldl1keep, [x20, #576]\n\t" LQC_JOIN_##S(7, 16)                 \
  LQC_UADALP(17, 31) LQC_JOIN_##S(15, 30) LQC_ADDP(31, 1, 3)

/* The same two with the tails, for tiles that begin at another block. */
#define LQC_PAIR_ENDED_SAME_RUN(S)                                                                        \
  "add x20, x20, #128\n\t" LQC_EOR(2, 10) LQC_HIGH_##S(16, 0) LQC_EOR(0, 8) LQC_EOR(3, 11)                \
  LQC_LOW_##S(8, 0) LQC_EOR(1, 9) LQC_LOW_##S(10, 32) LQC_CNT(2, 2) LQC_LOW_##S(9, 16) LQC_ADDP(5, 5, 31) \
  LQC_HIGH_##S(30, 16) LQC_JOIN_##S(8, 16) LQC_HIGH_##S(16, 32) LQC_CNT(1, 1) LQC_LOW_##S(11, 48)         \
  LQC_CNT(3, 3) "add x19, x19, #16\n\t" LQC_CNT(0, 0) "prfm pldl1keep, [x20, #576]\n\t" LQC_EOR(4, 12)    \
  LQC_LOW_##S(12, 64) LQC_ADDP(31, 6, 5) LQC_HIGH_PLACE_##S LQC_ADDP(2, 2, 3)                             \
  "prfm pldl1keep, [x20, #512]\n\t" LQC_ADDP(0, 0, 1) LQC_EOR(1, 14) LQC_LOW_##S(14, 96) LQC_EOR(6, 15)   \
  LQC_LOW_##S(15, 112) LQC_EOR(5, 13) LQC_LOW_##S(13, 80) LQC_JOIN_##S(10, 16) LQC_HIGH_##S(16, 64)       \
  LQC_CNT(4, 4) LQC_INPUT_LOW_##S(17) LQC_CNT(1, 1) LQC_CNT(5, 5) LQC_CNT(3, 6) LQC_JOIN_##S(9, 30)       \
  LQC_HIGH_##S(30, 48) LQC_UADALP(17, 31) LQC_ADDP(5, 4, 5) LQC_ADDP(31, 1, 3) LQC_JOIN_##S(12, 16)       \
  LQC_HIGH_##S(16, 96) LQC_ADDP(6, 0, 2) LQC_JOIN_##S(11, 30) LQC_HIGH_##S(30, 80) LQC_ADDP(5, 5, 31)     \
  LQC_JOIN_##S(14, 16) LQC_INPUT_HIGH_##S(16, 17) LQC_JOIN_##S(13, 30) LQC_HIGH_##S(30, 112)              \
  LQC_ADDP(31, 6, 5) LQC_JOIN_##S(7, 16) LQC_JOIN_##S(15, 30) LQC_UADALP(16, 31)

#define LQC_PAIR_ENDED_NEXT_RUN(S)                                                                        \
  LQC_EOR(0, 8) "ldp x19, x21, [x22], #16\n\t" LQC_ADDP(5, 5, 31) LQC_EOR(1, 9) LQC_EOR(3, 11)            \
  LQC_CNT(0, 0) "ubfiz x20, x21, #6, #32\n\t" "add x20, x25, x20\n\t" LQC_ADDP(31, 6, 5)                  \
  LQC_HIGH_##S(16, 0) LQC_CNT(1, 1) LQC_LOW_##S(8, 0) LQC_CNT(3, 3) LQC_EOR(2, 10) LQC_LOW_##S(11, 48)    \
  LQC_EOR(4, 12) LQC_LOW_##S(10, 32) LQC_EOR(6, 15) LQC_LOW_##S(9, 16) LQC_JOIN_##S(8, 16)                \
  LQC_HIGH_##S(16, 32) LQC_CNT(2, 2) LQC_HIGH_##S(30, 16) LQC_EOR(5, 13) LQC_LOW_##S(12, 64)              \
  LQC_ADDP(0, 0, 1) "lsl x19, x19, #3\n\t" LQC_EOR(1, 14) LQC_HIGH_PLACE_##S LQC_ADDP(2, 2, 3)            \
  LQC_LOW_##S(13, 80) LQC_CNT(3, 6) LQC_LOW_##S(14, 96) LQC_CNT(5, 5) LQC_INPUT_LOW_##S(17) LQC_CNT(1, 1) \
  LQC_LOW_##S(15, 112) LQC_UADALP(17, 31) "lsr x21, x21, #32\n\t" LQC_CNT(4, 4)                           \
  "prfm pldl1keep, [x20, #576]\n\t" LQC_JOIN_##S(10, 16) LQC_HIGH_##S(16, 64) LQC_JOIN_##S(9, 30)         \
  LQC_HIGH_##S(30, 48) LQC_ADDP(31, 1, 3) "prfm pldl1keep, [x20, #512]\n\t" LQC_ADDP(5, 4, 5)             \
  LQC_JOIN_##S(12, 16) LQC_HIGH_##S(16, 96) LQC_JOIN_##S(11, 30) LQC_HIGH_##S(30, 80) LQC_ADDP(6, 0, 2)   \
  LQC_ADDP(5, 5, 31) LQC_JOIN_##S(14, 16) LQC_INPUT_HIGH_##S(16, 17) LQC_JOIN_##S(13, 30)                 \
  LQC_HIGH_##S(30, 112) LQC_ADDP(31, 6, 5) LQC_JOIN_##S(7, 16) LQC_JOIN_##S(15, 30) LQC_UADALP(16, 31)

/* The run's last word, and LQC_PEEK_RUN; tails are left. */
#define LQC_PAIR_LAST_WORD(S)                                                                        \
  LQC_EOR(0, 8) "add x20, x20, #384\n\t" LQC_EOR(1, 9) LQC_LOW_##S(8, 128) LQC_LOW_##S(9, 144)       \
  LQC_EOR(3, 11) LQC_HIGH_##S(16, 128) LQC_EOR(2, 10) LQC_HIGH_##S(30, 144) LQC_CNT(0, 0)            \
  LQC_LOW_##S(11, 176) LQC_CNT(1, 1) LQC_LOW_##S(10, 160) LQC_CNT(3, 3) LQC_JOIN_##S(8, 16)          \
  LQC_HIGH_##S(16, 160) LQC_JOIN_##S(9, 30) "add x19, x19, #16\n\t" LQC_ADDP(5, 5, 31)               \
  LQC_HIGH_##S(30, 176) LQC_CNT(2, 2) "cmp x23, #1\n\t" LQC_JOIN_##S(10, 16) "sub x16, x22, #16\n\t" \
  "csel x16, x16, x22, eq\n\t" LQC_ADDP(0, 0, 1) LQC_JOIN_##S(11, 30) "add x30, x19, x17\n\t"        \
  LQC_ADDP(31, 6, 5) "ldp x27, x21, [x16]\n\t" LQC_ADDP(2, 2, 3) LQC_EOR(6, 15) LQC_EOR(5, 13)       \
  LQC_EOR(4, 12) "ubfiz x20, x21, #6, #32\n\t" LQC_EOR(1, 14) LQC_WORD_LOAD "lsr x21, x21, #32\n\t"  \
  LQC_CNT(3, 6) LQC_CNT(5, 5) "lsl x27, x27, #3\n\t" LQC_CNT(4, 4) "add x20, x20, x20, lsl #1\n\t"   \
  LQC_CNT(1, 1) "sub x21, x21, #2\n\t" LQC_UADALP(17, 31) "add x20, x25, x20\n\t" LQC_ADDP(6, 0, 2)  \
  LQC_ADDP(5, 4, 5) LQC_ADDP(31, 1, 3)

/* The next run's place to x27, its filters to x20 and its words, less 2, to x21; of the last run, its own. */
#define LQC_PEEK_RUN                                                                             \
  "cmp x23, #1\n\t" "sub x16, x22, #16\n\t" "csel x16, x16, x22, eq\n\t"                         \
  "ldp x27, x21, [x16]\n\t" "lsl x27, x27, #3\n\t" "ubfiz x20, x21, #6, #32\n\t"                 \
  "lsr x21, x21, #32\n\t" "add x20, x20, x20, lsl #1\n\t" "add x20, x25, x20\n\t"                \
  "sub x21, x21, #2\n\t"

/* That run's first pair, and the tails of this pixel. */
#define LQC_WORD_LAST_PAIR(S)                                                                              \
  LQC_EOR(0, 8) LQC_LOW_##S(8, 0) LQC_HIGH_##S(16, 0) LQC_EOR(2, 10) LQC_LOW_##S(10, 32) LQC_EOR(3, 11)    \
  LQC_HIGH_##S(30, 16) LQC_EOR(1, 9) LQC_LOW_##S(12, 64) LQC_UADALP(18, 6) LQC_JOIN_##S(8, 16)             \
  LQC_HIGH_##S(16, 32) LQC_LOW_##S(11, 48) LQC_ADDP(6, 4, 5) LQC_LOW_##S(9, 16) LQC_CNT(1, 1)              \
  LQC_LOW_##S(14, 96) LQC_CNT(3, 3) LQC_JOIN_##S(10, 16) LQC_HIGH_##S(16, 64) LQC_CNT(2, 2)                \
  "mov x19, x27\n\t" LQC_JOIN_##S(9, 30) LQC_HIGH_##S(30, 48) LQC_CNT(0, 0) LQC_HIGH_PLACE_##S             \
  LQC_JOIN_##S(12, 16) LQC_HIGH_##S(16, 96) LQC_ADDP(5, 2, 3) LQC_LOW_##S(13, 80) LQC_JOIN_##S(11, 30)     \
  LQC_HIGH_##S(30, 80) LQC_ADDP(4, 0, 1) LQC_INPUT_LOW_##S(17) LQC_JOIN_##S(14, 16)                        \
  LQC_INPUT_HIGH_##S(16, 17) LQC_UADALP(17, 6) LQC_LOW_##S(15, 112) LQC_JOIN_##S(13, 30)                   \
  LQC_HIGH_##S(30, 112) LQC_ADDP(6, 4, 5) "add x22, x22, #16\n\t" LQC_JOIN_##S(7, 16) LQC_JOIN_##S(15, 30) \
  LQC_UADALP(16, 6)

/* The first run of all, which x19 and x21 hold as it is in memory, while the sums get their start: for runs of pairs, and
   for those of words, once it is known that there is a pair. */
#define LQC_PAIR_FIRST(S)                                                                                \
  "ubfiz x20, x21, #6, #32\n\t" "lsl x19, x19, #3\n\t" "add x20, x25, x20\n\t" "ldr q16, [x28], #16\n\t" \
  LQC_HIGH_##S(16, 0) LQC_HIGH_PLACE_##S LQC_LOW_##S(8, 0) "movi v31.16b, #0\n\t" LQC_LOW_##S(10, 32)    \
  "movi v6.16b, #0\n\t" LQC_LOW_##S(12, 64) LQC_COPY_START(30) LQC_HIGH_##S(30, 16) LQC_COPY_START(28)   \
  LQC_JOIN_##S(8, 16) LQC_HIGH_##S(16, 32) LQC_LOW_##S(9, 16) LQC_COPY_START(17) LQC_LOW_##S(11, 48)     \
  LQC_COPY_START(22) LQC_LOW_##S(14, 96) LQC_COPY_START(19) LQC_JOIN_##S(10, 16) LQC_HIGH_##S(16, 64)    \
  LQC_JOIN_##S(9, 30) LQC_HIGH_##S(30, 48) LQC_LOW_##S(13, 80) LQC_COPY_START(29) LQC_INPUT_LOW_##S(17)  \
  LQC_COPY_START(21) LQC_JOIN_##S(12, 16) LQC_HIGH_##S(16, 96) LQC_JOIN_##S(11, 30) LQC_HIGH_##S(30, 80) \
  LQC_LOW_##S(15, 112) "movi v5.16b, #0\n\t" "prfm pldl1keep, [x20, #576]\n\t" LQC_COPY_START(27)        \
  LQC_JOIN_##S(14, 16) LQC_INPUT_HIGH_##S(16, 17) LQC_JOIN_##S(13, 30) LQC_HIGH_##S(30, 112)             \
  "prfm pldl1keep, [x20, #512]\n\t" LQC_COPY_START(26) LQC_COPY_START(20) "lsr x21, x21, #32\n\t"        \
  LQC_JOIN_##S(7, 16) LQC_COPY_START(24) LQC_COPY_START(23) LQC_COPY_START(18) LQC_JOIN_##S(15, 30)      \
  LQC_COPY_START(25)

#define LQC_NEXT_WORDS(S)                                                                            \
  "ubfiz x20, x21, #6, #32\n\t" "lsl x19, x19, #3\n\t" "lsr x21, x21, #32\n\t"                       \
  "add x20, x20, x20, lsl #1\n\t" LQC_HIGH_PLACE_##S "add x20, x25, x20\n\t" "subs x21, x21, #2\n\t"

#define LQC_WORDS_FIRST(S)                                                                              \
  LQC_LOW_##S(8, 0) LQC_COPY_START(29) LQC_HIGH_##S(16, 0) LQC_COPY_START(24) LQC_LOW_##S(10, 32)       \
  LQC_COPY_START(20) LQC_HIGH_##S(30, 16) LQC_COPY_START(27) LQC_LOW_##S(9, 16) LQC_COPY_START(19)      \
  LQC_JOIN_##S(8, 16) LQC_HIGH_##S(16, 32) LQC_LOW_##S(11, 48) LQC_COPY_START(26) LQC_LOW_##S(12, 64)   \
  LQC_COPY_START(28) LQC_JOIN_##S(9, 30) LQC_HIGH_##S(30, 48) LQC_JOIN_##S(10, 16) LQC_HIGH_##S(16, 64) \
  LQC_LOW_##S(14, 96) LQC_COPY_START(21) LQC_INPUT_LOW_##S(17) LQC_COPY_START(17) LQC_JOIN_##S(11, 30)  \
  LQC_HIGH_##S(30, 80) LQC_JOIN_##S(12, 16) LQC_HIGH_##S(16, 96) LQC_LOW_##S(13, 80) LQC_COPY_START(25) \
  LQC_LOW_##S(15, 112) LQC_COPY_START(23) LQC_COPY_START(22) LQC_JOIN_##S(14, 16)                       \
  LQC_INPUT_HIGH_##S(16, 17) LQC_JOIN_##S(13, 30) LQC_HIGH_##S(30, 112) LQC_COPY_START(18)              \
  LQC_COPY_START(30) LQC_JOIN_##S(7, 16) LQC_JOIN_##S(15, 30)

/* ---- The sums' start and end ------------------------------------------------------------------------------------- */

#define LQC_COPY_START(to) "mov v" #to ".16b, v16.16b\n\t"
#define LQC_COPY_STARTS                                                                        \
  LQC_COPY_START(17) LQC_COPY_START(18) LQC_COPY_START(19) LQC_COPY_START(20)                  \
  LQC_COPY_START(21) LQC_COPY_START(22) LQC_COPY_START(23) LQC_COPY_START(24)                  \
  LQC_COPY_START(25) LQC_COPY_START(26) LQC_COPY_START(27) LQC_COPY_START(28)                  \
  LQC_COPY_START(29) LQC_COPY_START(30)

/* Signs of the sums: one byte a pixel, bit c for filter c, to 16 bytes at x30; v7 holds the places. */
#define LQC_HIGH_BYTES(to, a, b) "uzp2 v" #to ".16b, v" #a ".16b, v" #b ".16b\n\t"
#define LQC_SIGN(v) "cmlt v" #v ".16b, v" #v ".16b, #0\n\t"
#define LQC_PLACE(v) "and v" #v ".16b, v" #v ".16b, v7.16b\n\t"
#define LQC_STORE_SIGNS                                                                                   \
  LQC_HIGH_BYTES(8, 16, 17) LQC_HIGH_BYTES(9, 18, 19) LQC_HIGH_BYTES(10, 20, 21) LQC_HIGH_BYTES(11, 22, 23) \
  LQC_HIGH_BYTES(12, 24, 25) LQC_HIGH_BYTES(13, 26, 27) LQC_HIGH_BYTES(14, 28, 29)                          \
  LQC_HIGH_BYTES(15, 30, 30) LQC_SIGN(8) LQC_SIGN(9) LQC_SIGN(10) LQC_SIGN(11) LQC_SIGN(12) LQC_SIGN(13)    \
  LQC_SIGN(14) LQC_SIGN(15) LQC_PLACE(8) LQC_PLACE(9) LQC_PLACE(10) LQC_PLACE(11) LQC_PLACE(12)             \
  LQC_PLACE(13) LQC_PLACE(14) LQC_PLACE(15) LQC_ADDP(10, 10, 11) LQC_ADDP(12, 12, 13) LQC_ADDP(8, 8, 9)     \
  LQC_ADDP(14, 14, 15) LQC_ADDP(8, 8, 10) LQC_ADDP(12, 12, 14) LQC_ADDP(8, 8, 12) "str q8, [x30]\n\t"

#define LQC_STORE_SUMS                                                                         \
  "stp q16, q17, [x30]\n\t" "stp q18, q19, [x30, #32]\n\t" "stp q20, q21, [x30, #64]\n\t"      \
  "stp q22, q23, [x30, #96]\n\t" "stp q24, q25, [x30, #128]\n\t"                               \
  "stp q26, q27, [x30, #160]\n\t" "stp q28, q29, [x30, #192]\n\t" "str q30, [x30, #224]\n\t"

/* clang-format on */

#endif /* LQC_BCONV2D_NEON_BLOCKS_H */
