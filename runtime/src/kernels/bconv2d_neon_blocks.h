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

/* From a pair's filters to the next pair's, and those of some steps later. */
#define LQC_NEXT_PLACE_PAIRS "add x20, x20, #128\n\t"
#define LQC_FETCH_1_PAIRS "prfm pldl1keep, [x20, #512]\n\t"
#define LQC_FETCH_2_PAIRS "prfm pldl1keep, [x20, #576]\n\t"
#define LQC_NEXT_PLACE_WORDS "add x20, x20, #384\n\t"
#define LQC_FETCH_1_WORDS "prfm pldl1keep, [x20, #768]\n\t"
#define LQC_FETCH_2_WORDS "prfm pldl1keep, [x20, #832]\n\t"

/* ---- Loads of 128 bits ------------------------------------------------------------------------------------------- */

/* WHOLE, or, for cores that issue nothing else beside a vector load of 128 bits, HALVES: the low half to the vector
   register, the high one to an integer register, which INS brings there. x27 is the distance of the input's high half,
   which may be anywhere. */
#define LQC_LOW_WHOLE(filter, at) "ldr q" #filter ", [x20, #" #at "]\n\t"
#define LQC_HIGH_WHOLE(half, at)
#define LQC_INPUT_LOW_WHOLE(place) "ldr q7, [x" #place ", x19]\n\t"
#define LQC_INPUT_HIGH_WHOLE(half, place)
#define LQC_JOIN_WHOLE(to, half)
#define LQC_HIGH_PLACE_WHOLE
/* In two halves after all: the low one is extended with zeros. */
#define LQC_INPUT_LOW_CROSS(place) "ldr d7, [x" #place ", x19]\n\t"
#define LQC_INPUT_HIGH_CROSS(half, place) "add x30, x27, x" #place "\n\t"
#define LQC_JOIN_CROSS(to, half) "ld1 {v" #to ".d}[1], [x30]\n\t"

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

#define LQC_PAIR_TAILS LQC_PAIR_TAIL_1 LQC_PAIR_TAIL_2 LQC_PAIR_TAIL_3(16)

/* Pixel 14, and no tail before it. */
#define LQC_PAIR_BLOCK_FIRST(S)                                                                  \
  LQC_PAIR_BLOCK_OF(LQC_NOTHING, LQC_NOTHING, LQC_NOTHING, LQC_INPUT_HIGH_##S(16, 14),           \
                    LQC_INPUT_LOW_##S(14), LQC_JOIN_##S(7, 16))

/* Pixels 13 to 1. LQC_PAIR_BLOCK_BYTES each, by which a smaller tile finds its first. */
#define LQC_PAIR_BLOCK_BYTES_WHOLE 100
#define LQC_PAIR_BLOCK_BYTES_HALVES 108
#define LQC_PAIR_BLOCK_BYTES_CROSS 108
#define LQC_PAIR_BLOCKS(label, S)                                                                       \
  #label ":\n\t" LQC_PAIR_BLOCK(S, 30, 13) LQC_PAIR_BLOCK(S, 29, 12) LQC_PAIR_BLOCK(S, 28, 11)        \
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

/* Pixel 14, and no tail before it. */
#define LQC_WORD_FIRST                                                                         \
  LQC_WORD_BLOCK_OF(LQC_NOTHING, LQC_NOTHING, LQC_WORD_ADDRESS(14), LQC_WORD_LOAD)

/* Pixels 13 to 1, label 23. LQC_WORD_BLOCK_BYTES each. The first block's older tail is that of no pixel. */
#define LQC_WORD_BLOCK_BYTES 56
#define LQC_WORD_BLOCKS                                                                        \
  "23:\n\t" LQC_WORD_BLOCK(31, 13) LQC_WORD_BLOCK(30, 12) LQC_WORD_BLOCK(29, 11)               \
  LQC_WORD_BLOCK(28, 10) LQC_WORD_BLOCK(27, 9) LQC_WORD_BLOCK(26, 8) LQC_WORD_BLOCK(25, 7)     \
  LQC_WORD_BLOCK(24, 6) LQC_WORD_BLOCK(23, 5) LQC_WORD_BLOCK(22, 4) LQC_WORD_BLOCK(21, 3)      \
  LQC_WORD_BLOCK(20, 2) LQC_WORD_BLOCK(19, 1)

/* ---- The sums' start and end ------------------------------------------------------------------------------------- */

#define LQC_COPY_START(to) "mov v" #to ".16b, v16.16b\n\t"
#define LQC_COPY_STARTS                                                                        \
  LQC_COPY_START(17) LQC_COPY_START(18) LQC_COPY_START(19) LQC_COPY_START(20)                  \
  LQC_COPY_START(21) LQC_COPY_START(22) LQC_COPY_START(23) LQC_COPY_START(24)                  \
  LQC_COPY_START(25) LQC_COPY_START(26) LQC_COPY_START(27) LQC_COPY_START(28)                  \
  LQC_COPY_START(29) LQC_COPY_START(30)
/* By loads, which go beside vector operations out of order. */
#define LQC_LOAD_START(to) "ldr q" #to ", [x28]\n\t"
#define LQC_LOAD_STARTS                                                                        \
  LQC_LOAD_START(30) LQC_LOAD_START(29) LQC_LOAD_START(28) LQC_LOAD_START(27)                  \
  LQC_LOAD_START(26) LQC_LOAD_START(25) LQC_LOAD_START(24) LQC_LOAD_START(23)                  \
  LQC_LOAD_START(22) LQC_LOAD_START(21) LQC_LOAD_START(20) LQC_LOAD_START(19)                  \
  LQC_LOAD_START(18) LQC_LOAD_START(17) "ldr q16, [x28], #16\n\t"

/* Signs of the sums: one byte a pixel, bit c for filter c, to 16 bytes; v7 holds the places. */
#define LQC_HIGH_BYTES(to, a, b) "uzp2 v" #to ".16b, v" #a ".16b, v" #b ".16b\n\t"
#define LQC_SIGN(v) "cmlt v" #v ".16b, v" #v ".16b, #0\n\t"
#define LQC_PLACE(v) "and v" #v ".16b, v" #v ".16b, v7.16b\n\t"
/* clang-format on */

#endif /* LQC_BCONV2D_NEON_BLOCKS_H */
