/* What stands between the blocks of bconv2d_neon_blocks.h: a step's last pixel, computed while the filters of the next
 * step replace those that it is done with, and the end of a block of filters with the start of the next. A list
 * scheduler's order, improved by random exchanges, for a core that issues two instructions a cycle, one vector
 * operation and one load or store at most, with results after four cycles. */
#ifndef LQC_BCONV2D_NEON_TRANSITIONS_H
#define LQC_BCONV2D_NEON_TRANSITIONS_H

#include "bconv2d_neon_blocks.h"

/* clang-format off */

/* ---- The last pixel of a pair ------------------------------------------------------------------------------------ */

/* Its first EORs go beside the instructions that decide what follows. Where the run goes on: label 5 is its end. */
#define LQC_PAIR_LAST_HEAD                                                                                         \
  LQC_EOR(0, 8) "subs x21, x21, #2\n\t" LQC_EOR(1, 9) "b.eq 5f\n\t" LQC_EOR(2, 10)
/* Where it has ended, x19, x27, x20 and x21 get the next entry, whatever that is. */
#define LQC_ENTRY "ldp x19, x27, [x22, #16]\n\t" "ldp x20, x21, [x22, #32]!\n\t"
#define LQC_PAIR_LAST_NEXT_HEAD_HALVES                                                                             \
  LQC_EOR(2, 10) "ldp x19, x27, [x22, #16]\n\t" LQC_EOR(3, 11) "ldp x20, x21, [x22, #32]!\n\t"                     \
  LQC_EOR(4, 12) "subs x23, x23, #1\n\t" LQC_ADDP(5, 5, 31)
#define LQC_PAIR_LAST_NEXT_HEAD_WHOLE                                                                              \
  "subs x23, x23, #1\n\t" "ldp x19, x27, [x22, #16]\n\t" LQC_ADDP(5, 5, 31) LQC_EOR(3, 11) LQC_EOR(4, 12)          \
  "ldp x20, x21, [x22, #32]!\n\t" LQC_EOR(2, 10)

/* The same run's next pair; tails are left to the block that follows. */
#define LQC_PAIR_LAST_SAME_RUN_WHOLE(L)                                                                        \
  LQC_EOR(4, 12) LQC_NEXT_PLACE_##L LQC_CNT(2, 2) LQC_ADDP(5, 5, 31) LQC_CNT(1, 1) LQC_CNT(0, 0) LQC_CNT(4, 4) \
  LQC_ADDP(31, 6, 5) LQC_LOW_WHOLE(9, 16) LQC_EOR(5, 13) LQC_EOR(3, 11) LQC_LOW_WHOLE(12, 64)                  \
  LQC_LOW_WHOLE(8, 0) LQC_LOW_WHOLE(13, 80) "add x19, x19, #16\n\t" LQC_CNT(3, 3) LQC_ADDP(0, 0, 1)            \
  LQC_LOW_WHOLE(10, 32) LQC_EOR(1, 14) LQC_EOR(6, 15) LQC_FETCH_2_##L LQC_CNT(5, 5) LQC_INPUT_LOW_WHOLE(17)    \
  LQC_ADDP(2, 2, 3) LQC_LOW_WHOLE(14, 96) LQC_CNT(3, 6) LQC_CNT(1, 1) LQC_ADDP(6, 0, 2) LQC_LOW_WHOLE(15, 112) \
  LQC_UADALP(17, 31) LQC_ADDP(5, 4, 5) LQC_LOW_WHOLE(11, 48) LQC_ADDP(31, 1, 3) LQC_FETCH_1_##L
#define LQC_PAIR_LAST_SAME_RUN_HALVES(L)                                                                         \
  LQC_NEXT_PLACE_##L LQC_EOR(4, 12) LQC_HIGH_HALVES(16, 0) LQC_ADDP(5, 5, 31) LQC_CNT(0, 0) LQC_LOW_HALVES(8, 0) \
  LQC_CNT(2, 2) LQC_LOW_HALVES(10, 32) LQC_HIGH_HALVES(30, 16) LQC_CNT(1, 1) LQC_ADDP(31, 6, 5)                  \
  LQC_LOW_HALVES(12, 64) LQC_JOIN_HALVES(8, 16) LQC_HIGH_HALVES(16, 32) "add x19, x19, #16\n\t" LQC_EOR(5, 13)   \
  LQC_EOR(6, 15) LQC_LOW_HALVES(9, 16) LQC_FETCH_2_##L LQC_EOR(3, 11) LQC_JOIN_HALVES(10, 16)                    \
  LQC_LOW_HALVES(13, 80) LQC_ADDP(0, 0, 1) LQC_CNT(4, 4) LQC_HIGH_HALVES(16, 64) LQC_LOW_HALVES(15, 112)         \
  LQC_EOR(1, 14) LQC_LOW_HALVES(14, 96) LQC_CNT(3, 3) LQC_CNT(5, 5) LQC_LOW_HALVES(11, 48)                       \
  LQC_JOIN_HALVES(9, 30) LQC_HIGH_HALVES(30, 48) LQC_JOIN_HALVES(12, 16) LQC_HIGH_HALVES(16, 96)                 \
  LQC_HIGH_PLACE_HALVES LQC_UADALP(17, 31) LQC_ADDP(2, 2, 3) LQC_JOIN_HALVES(11, 30) LQC_HIGH_HALVES(30, 80)     \
  LQC_JOIN_HALVES(14, 16) LQC_INPUT_HIGH_HALVES(16, 17) LQC_INPUT_LOW_HALVES(17) LQC_CNT(3, 6) LQC_CNT(1, 1)     \
  LQC_JOIN_HALVES(13, 30) LQC_HIGH_HALVES(30, 112) LQC_ADDP(6, 0, 2) LQC_JOIN_HALVES(7, 16) LQC_ADDP(5, 4, 5)    \
  LQC_FETCH_1_##L LQC_JOIN_HALVES(15, 30) LQC_ADDP(31, 1, 3)

/* The next entry's first pair. I: WHOLE or CROSS. */
#define LQC_PAIR_LAST_NEXT_RUN_WHOLE(I, L)                                                                       \
  "add x20, x25, x20\n\t" LQC_CNT(3, 3) LQC_CNT(2, 2) LQC_CNT(1, 1) LQC_ADDP(31, 6, 5) LQC_FETCH_1_##L           \
  LQC_EOR(6, 15) LQC_EOR(5, 13) LQC_LOW_WHOLE(13, 80) LQC_ADDP(0, 0, 1) LQC_LOW_WHOLE(15, 112) LQC_EOR(1, 14)    \
  LQC_LOW_WHOLE(9, 16) LQC_ADDP(2, 2, 3) LQC_LOW_WHOLE(10, 32) LQC_CNT(4, 4) LQC_INPUT_LOW_##I(17) LQC_CNT(1, 1) \
  LQC_CNT(5, 5) LQC_INPUT_HIGH_##I(16, 17) LQC_LOW_WHOLE(12, 64) LQC_CNT(3, 6) LQC_UADALP(17, 31)                \
  LQC_ADDP(5, 4, 5) LQC_FETCH_2_##L LQC_ADDP(6, 0, 2) LQC_LOW_WHOLE(14, 96) LQC_ADDP(31, 1, 3)                   \
  LQC_LOW_WHOLE(8, 0) LQC_LOW_WHOLE(11, 48) LQC_JOIN_##I(7, 16)
#define LQC_PAIR_LAST_NEXT_RUN_HALVES(I, L)                                                                     \
  LQC_CNT(1, 1) "add x20, x25, x20\n\t" LQC_CNT(3, 3) LQC_HIGH_HALVES(16, 0) LQC_ADDP(31, 6, 5)                 \
  LQC_LOW_HALVES(8, 0) LQC_LOW_HALVES(9, 16) LQC_EOR(5, 13) LQC_ADDP(0, 0, 1) LQC_HIGH_HALVES(30, 16)           \
  LQC_EOR(6, 15) LQC_LOW_HALVES(10, 32) LQC_JOIN_HALVES(8, 16) LQC_HIGH_HALVES(16, 32) LQC_LOW_HALVES(11, 48)   \
  LQC_CNT(2, 2) LQC_JOIN_HALVES(9, 30) LQC_HIGH_HALVES(30, 48) LQC_LOW_HALVES(12, 64) LQC_EOR(1, 14)            \
  LQC_JOIN_HALVES(10, 16) LQC_HIGH_HALVES(16, 64) LQC_CNT(5, 5) LQC_LOW_HALVES(13, 80) LQC_LOW_HALVES(14, 96)   \
  LQC_JOIN_HALVES(11, 30) LQC_HIGH_HALVES(30, 80) LQC_CNT(4, 4) LQC_JOIN_HALVES(12, 16) LQC_HIGH_HALVES(16, 96) \
  LQC_FETCH_2_##L LQC_ADDP(2, 2, 3) LQC_CNT(1, 1) LQC_INPUT_LOW_##I(17) LQC_LOW_HALVES(15, 112)                 \
  LQC_JOIN_HALVES(13, 30) LQC_JOIN_HALVES(14, 16) LQC_INPUT_HIGH_##I(16, 17) LQC_HIGH_HALVES(30, 112)           \
  LQC_UADALP(17, 31) LQC_CNT(3, 6) LQC_ADDP(6, 0, 2) LQC_JOIN_##I(7, 16) LQC_JOIN_HALVES(15, 30)                \
  LQC_ADDP(31, 1, 3) LQC_FETCH_1_##L LQC_ADDP(5, 4, 5)

/* The same two with the tails, for tiles that begin at another block. */
#define LQC_PAIR_ENDED_SAME_RUN(S, L)                                                                        \
  LQC_EOR(4, 12) LQC_EOR(3, 11) LQC_CNT(1, 1) LQC_ADDP(5, 5, 31) LQC_NEXT_PLACE_##L LQC_LOW_##S(12, 64)      \
  LQC_CNT(0, 0) LQC_CNT(4, 4) LQC_LOW_##S(8, 0) LQC_CNT(3, 3) "add x19, x19, #16\n\t" LQC_CNT(2, 2)          \
  LQC_HIGH_##S(16, 0) LQC_ADDP(0, 0, 1) LQC_FETCH_1_##L LQC_LOW_##S(10, 32) LQC_ADDP(31, 6, 5)               \
  LQC_HIGH_##S(30, 16) LQC_EOR(5, 13) LQC_FETCH_2_##L LQC_JOIN_##S(8, 16) LQC_EOR(1, 14) LQC_LOW_##S(14, 96) \
  LQC_EOR(6, 15) LQC_LOW_##S(13, 80) LQC_ADDP(2, 2, 3) LQC_LOW_##S(9, 16) LQC_HIGH_##S(16, 32) LQC_CNT(5, 5) \
  LQC_UADALP(17, 31) LQC_LOW_##S(11, 48) LQC_CNT(1, 1) LQC_HIGH_PLACE_##S LQC_CNT(3, 6) LQC_JOIN_##S(10, 16) \
  LQC_HIGH_##S(16, 64) LQC_JOIN_##S(9, 30) LQC_HIGH_##S(30, 48) LQC_ADDP(5, 4, 5) LQC_ADDP(31, 1, 3)         \
  LQC_LOW_##S(15, 112) LQC_JOIN_##S(12, 16) LQC_HIGH_##S(16, 96) LQC_JOIN_##S(11, 30) LQC_HIGH_##S(30, 80)   \
  LQC_ADDP(6, 0, 2) LQC_ADDP(5, 5, 31) LQC_INPUT_LOW_##S(17) LQC_JOIN_##S(14, 16) LQC_INPUT_HIGH_##S(16, 17) \
  LQC_JOIN_##S(13, 30) LQC_HIGH_##S(30, 112) LQC_ADDP(31, 6, 5) LQC_JOIN_##S(7, 16) LQC_JOIN_##S(15, 30)     \
  LQC_UADALP(16, 31)

#define LQC_PAIR_ENDED_NEXT_RUN(S, L)                                                                            \
  "add x20, x25, x20\n\t" LQC_CNT(1, 1) LQC_CNT(2, 2) LQC_LOW_##S(10, 32) LQC_CNT(3, 3) LQC_HIGH_##S(16, 0)      \
  LQC_ADDP(31, 6, 5) LQC_EOR(6, 15) LQC_LOW_##S(8, 0) LQC_ADDP(0, 0, 1) LQC_EOR(5, 13) LQC_LOW_##S(13, 80)       \
  LQC_EOR(1, 14) LQC_LOW_##S(12, 64) LQC_ADDP(2, 2, 3) LQC_JOIN_##S(8, 16) LQC_LOW_##S(14, 96) LQC_CNT(3, 6)     \
  LQC_INPUT_LOW_##S(17) LQC_CNT(4, 4) LQC_HIGH_##S(16, 32) LQC_LOW_##S(9, 16) LQC_CNT(1, 1) LQC_HIGH_##S(30, 16) \
  LQC_CNT(5, 5) LQC_UADALP(17, 31) LQC_JOIN_##S(10, 16) LQC_HIGH_##S(16, 64) LQC_ADDP(31, 1, 3)                  \
  LQC_ADDP(5, 4, 5) LQC_LOW_##S(11, 48) LQC_JOIN_##S(9, 30) LQC_HIGH_##S(30, 48) LQC_JOIN_##S(12, 16)            \
  LQC_HIGH_##S(16, 96) LQC_LOW_##S(15, 112) LQC_ADDP(6, 0, 2) LQC_ADDP(5, 5, 31) LQC_JOIN_##S(11, 30)            \
  LQC_HIGH_##S(30, 80) LQC_JOIN_##S(14, 16) LQC_INPUT_HIGH_##S(16, 17) LQC_ADDP(31, 6, 5) LQC_JOIN_##S(13, 30)   \
  LQC_HIGH_##S(30, 112) LQC_FETCH_2_##L LQC_JOIN_##S(7, 16) LQC_FETCH_1_##L LQC_UADALP(16, 31)                   \
  LQC_JOIN_##S(15, 30)

/* The next entry's word, and its first pixel with the tails. */
#define LQC_PAIR_LAST_WORD(S)                                                                                    \
  LQC_CNT(0, 0) "add x20, x25, x20\n\t" LQC_CNT(1, 1) LQC_LOW_##S(9, 16) LQC_CNT(3, 3) LQC_CNT(2, 2)             \
  LQC_HIGH_##S(30, 16) LQC_ADDP(31, 6, 5) LQC_LOW_##S(8, 0) LQC_EOR(6, 15) LQC_HIGH_##S(16, 0) LQC_ADDP(0, 0, 1) \
  LQC_LOW_##S(11, 48) LQC_JOIN_##S(9, 30) LQC_EOR(5, 13) LQC_HIGH_##S(30, 48) LQC_EOR(1, 14) LQC_ADDP(2, 2, 3)   \
  LQC_LOW_##S(10, 32) LQC_CNT(3, 6) LQC_JOIN_##S(11, 30) LQC_WORD_ADDRESS(17) LQC_WORD_LOAD LQC_CNT(4, 4)        \
  LQC_CNT(5, 5) LQC_JOIN_##S(8, 16) LQC_HIGH_##S(16, 32) LQC_CNT(1, 1) LQC_ADDP(6, 0, 2) LQC_UADALP(17, 31)      \
  LQC_JOIN_##S(10, 16) LQC_ADDP(31, 1, 3) LQC_ADDP(5, 4, 5)
#define LQC_WORD_FIRST_PAIR_TAILS                                                                            \
  LQC_EOR(3, 11) LQC_WORD_ADDRESS(14) LQC_EOR(0, 8) LQC_EOR(1, 9) LQC_EOR(2, 10) LQC_ADDP(5, 5, 31)          \
  LQC_CNT(0, 0) LQC_WORD_LOAD LQC_CNT(1, 1) LQC_CNT(2, 2) LQC_ADDP(31, 6, 5) LQC_CNT(3, 3) LQC_ADDP(4, 0, 1) \
  LQC_UADALP(16, 31) LQC_ADDP(5, 2, 3)

/* Nothing. v31 is left to be added to pixel 0. */
#define LQC_PAIR_LAST                                                                                         \
  LQC_CNT(0, 0) LQC_CNT(3, 3) LQC_CNT(1, 1) LQC_ADDP(31, 6, 5) LQC_EOR(6, 15) LQC_CNT(2, 2) LQC_ADDP(0, 0, 1) \
  LQC_EOR(5, 13) LQC_EOR(1, 14) LQC_ADDP(2, 2, 3) LQC_CNT(4, 4) LQC_CNT(3, 6) LQC_CNT(1, 1) LQC_CNT(5, 5)     \
  LQC_UADALP(17, 31) LQC_ADDP(31, 1, 3) LQC_ADDP(5, 4, 5) LQC_ADDP(6, 0, 2) LQC_ADDP(5, 5, 31)                \
  LQC_ADDP(31, 6, 5)

/* ---- The last pixel of a word ------------------------------------------------------------------------------------ */

/* Label 26: another word follows. */
#define LQC_WORD_LAST_HEAD                                                                                      \
  LQC_EOR(0, 8) LQC_EOR(1, 9) "cmp x27, #1\n\t" LQC_EOR(2, 10) "b.ne 26f\n\t"
/* Nothing. v31 is left to be added to pixel 0. */
#define LQC_WORD_LAST                                                                                        \
  LQC_EOR(3, 11) LQC_CNT(0, 0) LQC_CNT(1, 1) LQC_CNT(2, 2) LQC_CNT(3, 3) LQC_UADALP(18, 6) LQC_ADDP(6, 4, 5) \
  LQC_ADDP(4, 0, 1) LQC_ADDP(5, 2, 3) LQC_UADALP(17, 6) LQC_ADDP(31, 4, 5)
#define LQC_WORD_ENDED LQC_WORD_LAST LQC_UADALP(16, 31)

/* ---- The end of a block of filters ------------------------------------------------------------------------------- */

/* To the next block of filters, of which x26 are left and x23 are entries of pairs; flags: equal if either is none. */
#define LQC_END_SUMS                                                                                \
  "ldp x22, x23, [x0, #24]\n\t" "subs x26, x26, #1\n\t" "ldr x16, [x0, #16]\n\t" LQC_UADALP(16, 31) \
  "ccmp x23, #0, #4, ne\n\t" "add x25, x25, x16\n\t"
#define LQC_END_SIGNS                                                                                      \
  LQC_HIGH_BYTES(2, 20, 21) LQC_HIGH_BYTES(1, 18, 19) LQC_HIGH_BYTES(3, 22, 23) "ldr x16, [x0, #16]\n\t"   \
  "ldp x22, x23, [x0, #24]\n\t" LQC_UADALP(16, 31) "subs x26, x26, #1\n\t" LQC_HIGH_BYTES(31, 30, 30)      \
  LQC_HIGH_BYTES(4, 24, 25) LQC_HIGH_BYTES(0, 16, 17) "ccmp x23, #0, #4, ne\n\t" LQC_HIGH_BYTES(6, 28, 29) \
  "add x25, x25, x16\n\t" LQC_HIGH_BYTES(5, 26, 27)

/* 256 or 16 bytes to where x0 says. */
#define LQC_SUMS                                                                                                \
  "ldr x30, [x0, #64]\n\t" "stp q16, q17, [x30], #32\n\t" "stp q18, q19, [x30], #32\n\t"                        \
  "stp q20, q21, [x30], #32\n\t" "stp q22, q23, [x30], #32\n\t" "stp q24, q25, [x30], #32\n\t"                  \
  "stp q26, q27, [x30], #32\n\t" "stp q28, q29, [x30], #32\n\t" "str q30, [x30], #32\n\t"                       \
  "str x30, [x0, #64]\n\t"
#define LQC_SIGNS                                                                                                \
  "ldr d7, [x0, #224]\n\t" LQC_SIGN(31) LQC_SIGN(2) LQC_SIGN(0) LQC_SIGN(5) LQC_SIGN(4) "dup v7.2d, v7.d[0]\n\t" \
  LQC_SIGN(3) LQC_SIGN(1) LQC_SIGN(6) LQC_PLACE(5) LQC_PLACE(3) LQC_PLACE(1) LQC_PLACE(2) LQC_PLACE(0)           \
  LQC_PLACE(4) LQC_PLACE(6) "ldr x30, [x0, #64]\n\t" LQC_PLACE(31) LQC_ADDP(0, 0, 1) LQC_ADDP(4, 4, 5)           \
  LQC_ADDP(2, 2, 3) LQC_ADDP(6, 6, 31) LQC_ADDP(0, 0, 2) LQC_ADDP(4, 4, 6) LQC_ADDP(0, 0, 4)                     \
  "str q0, [x30], #16\n\t" "str x30, [x0, #64]\n\t"

/* ---- The start of a block of filters, at the first entry --------------------------------------------------------- */

#define LQC_FIRST_WHOLE(L)                                                                                      \
  LQC_ENTRY "add x20, x25, x20\n\t" LQC_INPUT_LOW_WHOLE(17) LQC_LOW_WHOLE(8, 0) LQC_LOW_WHOLE(9, 16)            \
  LQC_LOW_WHOLE(10, 32) LQC_LOW_WHOLE(11, 48) LQC_LOW_WHOLE(12, 64) LQC_LOW_WHOLE(13, 80)                       \
  LQC_LOW_WHOLE(14, 96) LQC_LOW_WHOLE(15, 112) LQC_LOAD_STARTS LQC_FETCH_1_##L LQC_FETCH_2_##L
#define LQC_FIRST_HALVES(L)                                                                                      \
  "ldp x19, x27, [x22, #16]\n\t" "ldp x20, x21, [x22, #32]!\n\t" "add x20, x25, x20\n\t" LQC_HIGH_HALVES(16, 0)  \
  LQC_LOW_HALVES(8, 0) "ldr d16, [x28]\n\t" LQC_LOW_HALVES(10, 32) LQC_JOIN_HALVES(8, 16)                        \
  LQC_HIGH_HALVES(16, 32) LQC_LOW_HALVES(12, 64) LQC_LOW_HALVES(11, 48) LQC_HIGH_HALVES(30, 16)                  \
  LQC_JOIN_HALVES(10, 16) LQC_HIGH_HALVES(16, 64) LQC_LOW_HALVES(14, 96) LQC_LOW_HALVES(9, 16)                   \
  LQC_JOIN_HALVES(12, 16) LQC_HIGH_HALVES(16, 96) LQC_JOIN_HALVES(9, 30) LQC_HIGH_HALVES(30, 48)                 \
  LQC_INPUT_LOW_HALVES(17) LQC_JOIN_HALVES(14, 16) LQC_INPUT_HIGH_HALVES(16, 17) LQC_LOW_HALVES(13, 80)          \
  LQC_JOIN_HALVES(11, 30) LQC_HIGH_HALVES(30, 80) LQC_JOIN_HALVES(7, 16) "ldr x16, [x28, #8]\n\t"                \
  "add x28, x28, #16\n\t" LQC_JOIN_HALVES(13, 30) LQC_HIGH_HALVES(30, 112) LQC_LOW_HALVES(15, 112)               \
  LQC_JOIN_HALVES(16, 16) LQC_JOIN_HALVES(15, 30) LQC_COPY_START(27) LQC_COPY_START(22) LQC_COPY_START(26)       \
  LQC_COPY_START(25) LQC_COPY_START(28) LQC_COPY_START(29) LQC_COPY_START(23) LQC_COPY_START(21)                 \
  LQC_COPY_START(30) LQC_COPY_START(18) LQC_COPY_START(24) LQC_FETCH_1_##L LQC_COPY_START(17) LQC_COPY_START(20) \
  LQC_COPY_START(19) LQC_FETCH_2_##L

/* With the end of the block before. */
#define LQC_SUMS_THEN_FIRST_WHOLE(L) LQC_SUMS LQC_FIRST_WHOLE(L)
#define LQC_SIGNS_THEN_FIRST_WHOLE(L) LQC_SIGNS LQC_FIRST_WHOLE(L)
#define LQC_SUMS_THEN_FIRST_HALVES(L)                                                                            \
  "ldr x30, [x0, #64]\n\t" "ldp x19, x27, [x22, #16]\n\t" "ldp x20, x21, [x22, #32]!\n\t"                        \
  "stp q16, q17, [x30], #32\n\t" "add x20, x25, x20\n\t" LQC_LOW_HALVES(12, 64) LQC_LOW_HALVES(10, 32)           \
  LQC_LOW_HALVES(8, 0) LQC_HIGH_HALVES(16, 0) "stp q18, q19, [x30], #32\n\t" LQC_INPUT_LOW_HALVES(17)            \
  LQC_JOIN_HALVES(8, 16) LQC_HIGH_HALVES(16, 32) "stp q20, q21, [x30], #32\n\t" LQC_LOW_HALVES(14, 96)           \
  LQC_JOIN_HALVES(10, 16) LQC_HIGH_HALVES(16, 64) "stp q22, q23, [x30], #32\n\t" LQC_JOIN_HALVES(12, 16)         \
  LQC_HIGH_HALVES(16, 96) "stp q24, q25, [x30], #32\n\t" LQC_JOIN_HALVES(14, 16) LQC_INPUT_HIGH_HALVES(16, 17)   \
  LQC_LOW_HALVES(11, 48) "ldr d16, [x28]\n\t" LQC_LOW_HALVES(9, 16) LQC_JOIN_HALVES(7, 16)                       \
  "ldr x16, [x28, #8]\n\t" "stp q26, q27, [x30], #32\n\t" LQC_JOIN_HALVES(16, 16) "stp q28, q29, [x30], #32\n\t" \
  LQC_COPY_START(21) "str q30, [x30], #32\n\t" LQC_COPY_START(24) LQC_COPY_START(28) "str x30, [x0, #64]\n\t"    \
  LQC_COPY_START(17) LQC_COPY_START(30) LQC_HIGH_HALVES(30, 16) LQC_JOIN_HALVES(9, 30) LQC_HIGH_HALVES(30, 48)   \
  LQC_COPY_START(25) LQC_LOW_HALVES(15, 112) LQC_LOW_HALVES(13, 80) LQC_COPY_START(23) LQC_COPY_START(29)        \
  LQC_JOIN_HALVES(11, 30) LQC_HIGH_HALVES(30, 80) LQC_FETCH_2_##L LQC_COPY_START(18) LQC_COPY_START(20)          \
  LQC_FETCH_1_##L LQC_COPY_START(26) LQC_JOIN_HALVES(13, 30) LQC_HIGH_HALVES(30, 112) LQC_COPY_START(22)         \
  LQC_COPY_START(19) "add x28, x28, #16\n\t" LQC_COPY_START(27) LQC_JOIN_HALVES(15, 30)
#define LQC_SIGNS_THEN_FIRST_HALVES(L)                                                                           \
  LQC_SIGN(2) "ldr d7, [x0, #224]\n\t" "ldp x19, x27, [x22, #16]\n\t" LQC_SIGN(31) LQC_SIGN(6)                   \
  "ldp x20, x21, [x22, #32]!\n\t" LQC_SIGN(5) LQC_SIGN(1) "dup v7.2d, v7.d[0]\n\t" LQC_SIGN(4)                   \
  "add x20, x25, x20\n\t" LQC_HIGH_HALVES(16, 0) LQC_SIGN(0) LQC_LOW_HALVES(8, 0) LQC_SIGN(3)                    \
  LQC_LOW_HALVES(10, 32) LQC_PLACE(6) LQC_PLACE(5) LQC_LOW_HALVES(14, 96) LQC_LOW_HALVES(12, 64) LQC_PLACE(31)   \
  LQC_JOIN_HALVES(8, 16) LQC_HIGH_HALVES(16, 32) LQC_PLACE(2) "ldr d16, [x28]\n\t" LQC_PLACE(0) LQC_PLACE(3)     \
  LQC_JOIN_HALVES(10, 16) LQC_HIGH_HALVES(16, 64) LQC_PLACE(4) LQC_LOW_HALVES(15, 112) LQC_PLACE(1)              \
  LQC_ADDP(2, 2, 3) LQC_INPUT_LOW_HALVES(17) LQC_JOIN_HALVES(12, 16) LQC_HIGH_HALVES(16, 96)                     \
  "ldr x30, [x0, #64]\n\t" LQC_ADDP(6, 6, 31) LQC_ADDP(0, 0, 1) LQC_LOW_HALVES(9, 16) LQC_ADDP(4, 4, 5)          \
  LQC_JOIN_HALVES(14, 16) LQC_INPUT_HIGH_HALVES(16, 17) LQC_ADDP(0, 0, 2) LQC_FETCH_1_##L LQC_ADDP(4, 4, 6)      \
  LQC_JOIN_HALVES(7, 16) "ldr x16, [x28, #8]\n\t" LQC_ADDP(0, 0, 4) LQC_JOIN_HALVES(16, 16)                      \
  LQC_LOW_HALVES(13, 80) "str q0, [x30], #16\n\t" LQC_COPY_START(23) LQC_COPY_START(30) "str x30, [x0, #64]\n\t" \
  LQC_COPY_START(18) LQC_HIGH_HALVES(30, 16) LQC_LOW_HALVES(11, 48) LQC_COPY_START(21) LQC_COPY_START(19)        \
  LQC_COPY_START(17) LQC_JOIN_HALVES(9, 30) LQC_HIGH_HALVES(30, 48) "add x28, x28, #16\n\t" LQC_COPY_START(28)   \
  LQC_COPY_START(22) LQC_FETCH_2_##L LQC_COPY_START(29) LQC_JOIN_HALVES(11, 30) LQC_HIGH_HALVES(30, 80)          \
  LQC_COPY_START(27) LQC_COPY_START(24) LQC_COPY_START(20) LQC_JOIN_HALVES(13, 30) LQC_HIGH_HALVES(30, 112)      \
  LQC_COPY_START(26) LQC_COPY_START(25) LQC_JOIN_HALVES(15, 30)

/* clang-format on */

#endif /* LQC_BCONV2D_NEON_TRANSITIONS_H */
