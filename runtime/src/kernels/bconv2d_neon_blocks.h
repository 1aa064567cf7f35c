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

/* clang-format off: an instruction after the other */

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
#define LQC_PAIR_BLOCK_OF(tail_1, tail_2, tail_3, load)                                                        \
  LQC_EOR(0, 8)                                                                                                \
  LQC_EOR(1, 9) LQC_EOR(2, 10) LQC_EOR(3, 11) LQC_EOR(4, 12) LQC_CNT(0, 0) LQC_CNT(1, 1) LQC_CNT(2, 2)         \
      tail_1 LQC_CNT(3, 3) LQC_CNT(4, 4) LQC_ADDP(0, 0, 1) tail_2 LQC_EOR(5, 13) LQC_EOR(1, 14) LQC_EOR(6, 15) \
          load LQC_ADDP(2, 2, 3) LQC_CNT(5, 5) LQC_CNT(1, 1) LQC_CNT(3, 6) LQC_ADDP(6, 0, 2) LQC_ADDP(5, 4, 5) \
              tail_3 LQC_ADDP(31, 1, 3)

#define LQC_PAIR_BLOCK(sum_before, load) \
  LQC_PAIR_BLOCK_OF(LQC_PAIR_TAIL_1, LQC_PAIR_TAIL_2, LQC_PAIR_TAIL_3(sum_before), load)

/* Pixels 14 to 0. Labels: 14 the first block, 13 the second. Blocks 13 to 1 have LQC_PAIR_BLOCK_BYTES each. */
#define LQC_PAIR_BLOCK_BYTES 100
#define LQC_PAIR_BLOCKS                                                                                               \
  "14:\n\t" LQC_PAIR_BLOCK_OF(LQC_NOTHING, LQC_NOTHING, LQC_NOTHING, LQC_PAIR_LOAD(14)) "13:\n\t" LQC_PAIR_BLOCK(     \
      30, LQC_PAIR_LOAD(13)) LQC_PAIR_BLOCK(29, LQC_PAIR_LOAD(12)) LQC_PAIR_BLOCK(28, LQC_PAIR_LOAD(11))              \
      LQC_PAIR_BLOCK(27, LQC_PAIR_LOAD(10)) LQC_PAIR_BLOCK(26, LQC_PAIR_LOAD(9)) LQC_PAIR_BLOCK(25, LQC_PAIR_LOAD(8)) \
          LQC_PAIR_BLOCK(24, LQC_PAIR_LOAD(7)) LQC_PAIR_BLOCK(23, LQC_PAIR_LOAD(6))                                   \
              LQC_PAIR_BLOCK(22, LQC_PAIR_LOAD(5)) LQC_PAIR_BLOCK(21, LQC_PAIR_LOAD(4))                               \
                  LQC_PAIR_BLOCK(20, LQC_PAIR_LOAD(3)) LQC_PAIR_BLOCK(19, LQC_PAIR_LOAD(2))                           \
                      LQC_PAIR_BLOCK(18, LQC_PAIR_LOAD(1)) LQC_PAIR_BLOCK(17, LQC_NOTHING)

/* ---- 64 bits: a register holds one word of two filters, the input's word stands in both halves ------------------- */

#define LQC_WORD_TAIL_1 LQC_ADDP(5, 4, 5)
#define LQC_WORD_TAIL_2(sum) LQC_UADALP(sum, 5)

#define LQC_WORD_ADDRESS(place) "add x30, x19, x" #place "\n\t"
#define LQC_WORD_LOAD "ld1r {v7.2d}, [x30]\n\t"

#define LQC_WORD_BLOCK_OF(tail_1, tail_2, address, load)                                                           \
  LQC_EOR(0, 8)                                                                                                    \
  LQC_EOR(1, 9) LQC_EOR(2, 10) address LQC_EOR(3, 11) LQC_CNT(0, 0) load LQC_CNT(1, 1) LQC_CNT(2, 2) LQC_CNT(3, 3) \
      tail_1 LQC_ADDP(4, 0, 1) tail_2 LQC_ADDP(5, 2, 3)

#define LQC_WORD_BLOCK(sum_before, next) \
  LQC_WORD_BLOCK_OF(LQC_WORD_TAIL_1, LQC_WORD_TAIL_2(sum_before), LQC_WORD_ADDRESS(next), LQC_WORD_LOAD)

/* Label 23: the second block. */
#define LQC_WORD_BLOCK_BYTES 56
#define LQC_WORD_BLOCKS                                                                                             \
  LQC_WORD_BLOCK_OF(LQC_NOTHING, LQC_NOTHING, LQC_WORD_ADDRESS(14), LQC_WORD_LOAD)                                  \
  "23:\n\t" LQC_WORD_BLOCK(30, 13) LQC_WORD_BLOCK(29, 12) LQC_WORD_BLOCK(28, 11) LQC_WORD_BLOCK(27, 10)             \
      LQC_WORD_BLOCK(26, 9) LQC_WORD_BLOCK(25, 8) LQC_WORD_BLOCK(24, 7) LQC_WORD_BLOCK(23, 6) LQC_WORD_BLOCK(22, 5) \
          LQC_WORD_BLOCK(21, 4) LQC_WORD_BLOCK(20, 3) LQC_WORD_BLOCK(19, 2) LQC_WORD_BLOCK(18, 1)                   \
              LQC_WORD_BLOCK_OF(LQC_WORD_TAIL_1, LQC_WORD_TAIL_2(17), LQC_NOTHING, LQC_NOTHING)

/* ---- The sums' start and end ------------------------------------------------------------------------------------- */

#define LQC_COPY_START(to) "mov v" #to ".16b, v16.16b\n\t"
#define LQC_START_SUMS                                                                                  \
  "ldr q16, [x28], #16\n\t" LQC_COPY_START(17) LQC_COPY_START(18) LQC_COPY_START(19) LQC_COPY_START(20) \
      LQC_COPY_START(21) LQC_COPY_START(22) LQC_COPY_START(23) LQC_COPY_START(24) LQC_COPY_START(25)    \
          LQC_COPY_START(26) LQC_COPY_START(27) LQC_COPY_START(28) LQC_COPY_START(29) LQC_COPY_START(30)

/* The next run: x19 its place in the input, x20 its filters, x21 its words. */
#define LQC_NEXT_RUN             \
  "ldp x19, x21, [x22], #16\n\t" \
  "ubfiz x20, x21, #6, #32\n\t"  \
  "lsl x19, x19, #3\n\t"         \
  "add x20, x25, x20\n\t"        \
  "lsr x21, x21, #32\n\t"

/* Signs of the sums: one byte a pixel, bit c for filter c, to 16 bytes at x30; v7 holds the places. */
#define LQC_HIGH_BYTES(to, a, b) "uzp2 v" #to ".16b, v" #a ".16b, v" #b ".16b\n\t"
#define LQC_SIGN(v) "cmlt v" #v ".16b, v" #v ".16b, #0\n\t"
#define LQC_PLACE(v) "and v" #v ".16b, v" #v ".16b, v7.16b\n\t"
#define LQC_STORE_SIGNS                                                                                               \
  LQC_HIGH_BYTES(9, 18, 19)                                                                                           \
  LQC_HIGH_BYTES(10, 20, 21) LQC_HIGH_BYTES(11, 22, 23) LQC_HIGH_BYTES(12, 24, 25) LQC_HIGH_BYTES(13, 26, 27)         \
      LQC_HIGH_BYTES(14, 28, 29) LQC_HIGH_BYTES(15, 30, 30) LQC_HIGH_BYTES(8, 16, 17) LQC_SIGN(9) LQC_SIGN(10)        \
          LQC_SIGN(11) LQC_SIGN(12) LQC_SIGN(13) LQC_SIGN(14) LQC_SIGN(15) LQC_SIGN(8) LQC_PLACE(9) LQC_PLACE(10)     \
              LQC_PLACE(11) LQC_PLACE(12) LQC_PLACE(13) LQC_PLACE(14) LQC_PLACE(15) LQC_PLACE(8) LQC_ADDP(10, 10, 11) \
                  LQC_ADDP(12, 12, 13) LQC_ADDP(14, 14, 15) LQC_ADDP(8, 8, 9) LQC_ADDP(12, 12, 14) LQC_ADDP(8, 8, 10) \
                      LQC_ADDP(8, 8, 12) "str q8, [x30]\n\t"

#define LQC_STORE_SUMS            \
  "stp q16, q17, [x30]\n\t"       \
  "stp q18, q19, [x30, #32]\n\t"  \
  "stp q20, q21, [x30, #64]\n\t"  \
  "stp q22, q23, [x30, #96]\n\t"  \
  "stp q24, q25, [x30, #128]\n\t" \
  "stp q26, q27, [x30, #160]\n\t" \
  "stp q28, q29, [x30, #192]\n\t" \
  "str q30, [x30, #224]\n\t"

/* clang-format on */

#endif /* LQC_BCONV2D_NEON_BLOCKS_H */
