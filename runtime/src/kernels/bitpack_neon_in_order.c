/* Signs of float32 for cores that issue nothing else beside a vector load of 128 bits, as LD4 of bitpack_neon.c is four
 * of: here 64 bits are loaded at once, one beside every vector operation.
 *
 * A load brings two numbers, channels 8m + 2k and 8m + 2k + 1 of a word. Eight loads, m = 0 .. 7, become a vector of
 * their highest bytes by UZP2, and the vectors of k = 3, 2, 1, 0 one by SRI, whose bits 7, 5, 3, 1 are the signs: of
 * odd channels at their place in the word's byte m, of even ones a place above. 37.5 vector operations and 36.5 loads
 * and prefetches a word. */
#include "bitpack_neon.h"

/* clang-format off */

#define LQC_LOAD(to, at) "ldr d" #to ", [%[in], #" #at "]\n\t"
#define LQC_LOAD_NEXT(to, at) "ldr d" #to ", [%[next], #" #at "]\n\t"
#define LQC_FETCH(at) "prfm pldl1keep, [%[in], #" #at "]\n\t"
#define LQC_HIGH_HALVES(to, b) "uzp2 v" #to ".4h, v" #to ".4h, v" #b ".4h\n\t"
#define LQC_HIGH_BYTES(to, b) "uzp2 v" #to ".8b, v" #to ".8b, v" #b ".8b\n\t"
#define LQC_JOIN(to, a, b) "zip1 v" #to ".2d, v" #a ".2d, v" #b ".2d\n\t"
#define LQC_LOWEST(v) "smin v30.16b, v30.16b, v" #v ".16b\n\t"
#define LQC_INSERT(to, from, shift) "sri v" #to ".16b, v" #from ".16b, #" #shift "\n\t"
#define LQC_KEEP_SIGNS(v) "and v" #v ".16b, v" #v ".16b, v28.16b\n\t"
#define LQC_PLACE(to, from) "ushl v" #to ".16b, v" #from ".16b, v29.16b\n\t"
#define LQC_TWO_WORDS "addp v26.16b, v26.16b, v27.16b\n\t"

/* Of 1024 bytes; the first eight numbers to meet are loaded, and those of the next four words are at the end. Found by a
   random search for a core that issues two instructions a cycle, one of them a vector operation, with results after
   four. */
#define LQC_FOUR_WORDS                                                                                           \
  LQC_LOAD(9, 48) LQC_LOAD(8, 16) LQC_HIGH_HALVES(0, 1) LQC_HIGH_HALVES(6, 7) LQC_LOAD(10, 80) LQC_LOAD(20, 136) \
  LQC_HIGH_HALVES(2, 3) LQC_LOAD(13, 176) "subs %[left], %[left], #1\n\t" LQC_HIGH_HALVES(4, 5) LQC_LOAD(16, 8)  \
  LQC_LOAD(11, 112) LQC_HIGH_HALVES(8, 9) LQC_HIGH_BYTES(0, 2) LQC_LOAD(14, 208) LQC_LOAD(12, 144)               \
  LQC_LOAD(18, 72) LQC_LOAD(15, 240) LQC_HIGH_BYTES(4, 6) LQC_LOAD(17, 40) LQC_HIGH_HALVES(10, 11)               \
  LQC_HIGH_HALVES(12, 13) LQC_LOAD(23, 232) LQC_LOAD(3, 96) LQC_HIGH_HALVES(14, 15) LQC_LOAD(22, 200)            \
  LQC_HIGH_HALVES(16, 17) LQC_LOAD(19, 104) LQC_LOAD(2, 64) LQC_HIGH_BYTES(8, 10) LQC_LOAD(1, 32)                \
  LQC_LOAD(21, 168) LQC_HIGH_BYTES(12, 14) LQC_JOIN(24, 0, 4) LQC_LOAD(0, 0) LQC_LOAD(15, 504)                   \
  LQC_HIGH_HALVES(18, 19) LQC_LOAD(7, 224) LQC_HIGH_HALVES(22, 23) LQC_LOAD(11, 376) LQC_JOIN(31, 8, 12)         \
  LQC_LOWEST(24) LQC_LOAD(5, 160) LQC_HIGH_HALVES(0, 1) LQC_LOAD(4, 128) LQC_LOAD(13, 440) LQC_HIGH_HALVES(2, 3) \
  LQC_LOAD(17, 304) LQC_HIGH_HALVES(20, 21) LQC_LOAD(14, 472) LQC_HIGH_BYTES(16, 18) LQC_LOAD(6, 192)            \
  LQC_HIGH_HALVES(4, 5) LQC_INSERT(24, 31, 2) LQC_LOAD(12, 408) LQC_HIGH_BYTES(20, 22) LQC_LOAD(8, 280)          \
  LQC_LOWEST(31) LQC_LOAD(18, 336) LQC_LOAD(9, 312) LQC_HIGH_HALVES(6, 7) LQC_LOAD(7, 488) LQC_HIGH_BYTES(0, 2)  \
  LQC_JOIN(31, 16, 20) LQC_LOAD(10, 344) LQC_LOAD(3, 360) LQC_HIGH_HALVES(14, 15) LQC_HIGH_HALVES(12, 13)        \
  LQC_LOAD(21, 432) LQC_HIGH_BYTES(4, 6) LQC_LOAD(19, 368) LQC_LOAD(16, 272) LQC_HIGH_HALVES(8, 9)               \
  LQC_LOAD(20, 400) LQC_INSERT(24, 31, 4) LQC_LOAD(23, 496) LQC_LOWEST(31) LQC_HIGH_BYTES(12, 14)                \
  LQC_LOAD(22, 464) LQC_LOAD(15, 480) LQC_HIGH_HALVES(10, 11) LQC_LOAD(6, 456) LQC_JOIN(31, 0, 4)                \
  LQC_LOAD(1, 296) LQC_HIGH_HALVES(20, 21) LQC_HIGH_HALVES(22, 23) LQC_LOAD(9, 288) LQC_HIGH_BYTES(8, 10)        \
  LQC_FETCH(2496) LQC_LOAD(2, 328) LQC_HIGH_HALVES(16, 17) LQC_HIGH_HALVES(18, 19) LQC_LOAD(4, 392)              \
  LQC_HIGH_HALVES(6, 7) LQC_JOIN(25, 8, 12) LQC_FETCH(2432) LQC_LOAD(0, 264) LQC_INSERT(24, 31, 6)               \
  LQC_HIGH_HALVES(2, 3) LQC_LOAD(8, 256) LQC_LOAD(5, 424) LQC_HIGH_BYTES(20, 22) LQC_LOAD(3, 624)                \
  LQC_HIGH_BYTES(16, 18) LQC_LOAD(14, 448) LQC_HIGH_HALVES(0, 1) LQC_LOAD(11, 352) LQC_HIGH_HALVES(8, 9)         \
  LQC_LOWEST(31) LQC_LOAD(10, 320) LQC_JOIN(31, 16, 20) LQC_LOAD(21, 696) LQC_LOAD(13, 416) LQC_KEEP_SIGNS(24)   \
  LQC_HIGH_BYTES(0, 2) LQC_LOAD(12, 384) LQC_HIGH_HALVES(10, 11) LQC_LOAD(17, 568) LQC_LOAD(16, 536)             \
  LQC_LOWEST(25) LQC_HIGH_HALVES(4, 5) LQC_LOAD(7, 752) LQC_HIGH_HALVES(12, 13) LQC_LOAD(13, 680)                \
  LQC_HIGH_BYTES(8, 10) LQC_LOAD(20, 664) LQC_LOWEST(31) LQC_LOAD(11, 616) LQC_LOAD(18, 600)                     \
  LQC_HIGH_BYTES(4, 6) LQC_LOAD(23, 760) LQC_HIGH_HALVES(14, 15) LQC_LOAD(22, 728) LQC_INSERT(25, 31, 2)         \
  LQC_HIGH_HALVES(20, 21) LQC_LOAD(5, 688) LQC_JOIN(31, 0, 4) LQC_LOAD(2, 592) LQC_HIGH_BYTES(12, 14)            \
  LQC_LOAD(9, 552) LQC_PLACE(26, 24) LQC_LOAD(0, 528) LQC_HIGH_HALVES(22, 23) LQC_LOAD(19, 632)                  \
  LQC_HIGH_HALVES(16, 17) LQC_LOAD(6, 720) LQC_LOWEST(31) LQC_LOAD(4, 656) LQC_LOAD(15, 744)                     \
  LQC_INSERT(25, 31, 4) LQC_JOIN(31, 8, 12) LQC_LOAD(1, 560) LQC_HIGH_HALVES(2, 3) LQC_LOAD(12, 648)             \
  LQC_HIGH_HALVES(4, 5) LQC_FETCH(2880) LQC_HIGH_HALVES(18, 19) LQC_HIGH_BYTES(20, 22) LQC_LOAD(3, 888)          \
  LQC_INSERT(25, 31, 6) LQC_LOAD(21, 672) LQC_HIGH_HALVES(12, 13) LQC_HIGH_BYTES(16, 18) LQC_LOAD(8, 520)        \
  LQC_LOWEST(31) LQC_LOAD(14, 712) LQC_LOAD(10, 584) LQC_HIGH_HALVES(6, 7) LQC_HIGH_HALVES(0, 1)                 \
  LQC_KEEP_SIGNS(25) LQC_LOAD(18, 576) LQC_JOIN(24, 16, 20) LQC_LOAD(16, 512) LQC_FETCH(2816)                    \
  LQC_HIGH_BYTES(4, 6) LQC_LOAD(7, 1016) LQC_HIGH_BYTES(0, 2) LQC_LOAD(2, 856) LQC_HIGH_HALVES(8, 9)             \
  LQC_HIGH_HALVES(10, 11) LQC_LOAD(6, 984) LQC_LOAD(17, 544) LQC_LOWEST(24) LQC_LOAD(9, 816) LQC_JOIN(31, 0, 4)  \
  LQC_LOAD(13, 944) LQC_HIGH_HALVES(14, 15) LQC_LOAD(19, 608) LQC_HIGH_HALVES(6, 7) LQC_LOAD(0, 792)             \
  LQC_HIGH_HALVES(2, 3) LQC_HIGH_HALVES(16, 17) LQC_LOAD(20, 640) LQC_HIGH_BYTES(8, 10) LQC_HIGH_BYTES(12, 14)   \
  LQC_LOAD(14, 976) LQC_LOAD(4, 920) LQC_INSERT(24, 31, 2) LQC_LOWEST(31) LQC_LOAD(23, 736)                      \
  LQC_HIGH_HALVES(18, 19) LQC_LOAD(5, 952) LQC_HIGH_HALVES(20, 21) LQC_LOAD(22, 704) LQC_LOAD(1, 824)            \
  LQC_PLACE(27, 25) LQC_JOIN(31, 8, 12) LQC_HIGH_HALVES(4, 5) LQC_LOAD(19, 872) LQC_LOAD(21, 936)                \
  LQC_HIGH_HALVES(22, 23) LQC_HIGH_HALVES(0, 1) LQC_LOAD(15, 1008) LQC_TWO_WORDS LQC_LOAD(10, 848)               \
  LQC_HIGH_BYTES(16, 18) LQC_LOAD(11, 880) LQC_LOAD(8, 784) LQC_HIGH_BYTES(20, 22) LQC_LOWEST(31)                \
  LQC_FETCH(2240) LQC_HIGH_BYTES(4, 6) LQC_LOAD(12, 912) LQC_INSERT(24, 31, 4) LQC_LOAD(22, 968)                 \
  LQC_LOAD(18, 840) LQC_JOIN(31, 16, 20) LQC_LOAD(16, 776) LQC_HIGH_HALVES(8, 9) LQC_HIGH_HALVES(12, 13)         \
  LQC_LOAD(20, 904) LQC_LOAD(17, 808) LQC_HIGH_HALVES(10, 11) LQC_LOAD(23, 1000) LQC_HIGH_HALVES(14, 15)         \
  LQC_HIGH_BYTES(0, 2) LQC_LOAD(6, 960) LQC_HIGH_HALVES(18, 19) LQC_HIGH_HALVES(20, 21) LQC_LOAD(3, 864)         \
  LQC_HIGH_HALVES(16, 17) LQC_JOIN(25, 0, 4) LQC_LOAD(5, 928) LQC_HIGH_BYTES(12, 14) LQC_LOAD(4, 896)            \
  LQC_HIGH_HALVES(22, 23) LQC_LOAD(1, 800) LQC_HIGH_BYTES(8, 10) LQC_LOWEST(31) LQC_FETCH(2176)                  \
  LQC_INSERT(24, 31, 6) LQC_LOAD(7, 992) LQC_HIGH_HALVES(4, 5) LQC_FETCH(2112) LQC_JOIN(31, 8, 12)               \
  LQC_LOAD(2, 832) LQC_LOAD(0, 768) LQC_HIGH_BYTES(20, 22) "add %[next], %[in], #1024\n\t" LQC_HIGH_HALVES(6, 7) \
  LQC_LOWEST(25) LQC_FETCH(2048) LQC_FETCH(2944) LQC_HIGH_BYTES(16, 18) LQC_HIGH_HALVES(2, 3) LQC_FETCH(2752)    \
  LQC_HIGH_HALVES(0, 1) LQC_LOWEST(31) "str q26, [%[out]], #16\n\t" LQC_INSERT(25, 31, 2) LQC_JOIN(31, 16, 20)   \
  LQC_HIGH_BYTES(0, 2) LQC_FETCH(3008) LQC_HIGH_BYTES(4, 6) LQC_INSERT(25, 31, 4) LQC_LOWEST(31)                 \
  LQC_JOIN(31, 0, 4) "csel %[next], %[in], %[next], eq\n\t" LQC_LOAD_NEXT(1, 56) LQC_LOAD_NEXT(5, 184)           \
  LQC_KEEP_SIGNS(24) LQC_LOAD_NEXT(0, 24) LQC_FETCH(2560) LQC_INSERT(25, 31, 6) LQC_FETCH(2624)                  \
  LQC_LOAD_NEXT(7, 248) LQC_FETCH(2368) LQC_KEEP_SIGNS(25) LQC_PLACE(26, 24) LQC_LOAD_NEXT(3, 120)               \
  LQC_FETCH(2688) LQC_PLACE(27, 25) LQC_FETCH(2304) LQC_LOAD_NEXT(2, 88) LQC_LOWEST(31) LQC_LOAD_NEXT(4, 152)    \
  "mov %[in], %[next]\n\t" LQC_TWO_WORDS LQC_LOAD_NEXT(6, 216) "str q26, [%[out]], #16\n\t"

/* clang-format on */

int lqc_signs_f32_neon_in_order(uint64_t *out, const float *in, size_t count) {
  const uint32_t shifts = 0x00ff; /* -1, 0 */
  size_t left = count / 4;
  const float *next;
  int32_t lowest;
  if (left == 0) {
    return 0;
  }
  __asm__ volatile("movi v30.16b, #0\n\tdup v29.8h, %w[shifts]\n\tmovi v28.16b, #0xaa\n\t" LQC_LOAD(0, 24)
                       LQC_LOAD(1, 56) LQC_LOAD(2, 88) LQC_LOAD(3, 120) LQC_LOAD(4, 152) LQC_LOAD(5, 184)
                           LQC_LOAD(6, 216) LQC_LOAD(7, 248) "1:\n\t" LQC_FOUR_WORDS "b.ne 1b\n\t"
                                                             "sminv b30, v30.16b\n\tsmov %w[lowest], v30.b[0]\n\t"
                   : [in] "+r"(in), [out] "+r"(out), [left] "+r"(left), [next] "=&r"(next), [lowest] "=r"(lowest)
                   : [shifts] "r"(shifts)
                   : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14",
                     "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28",
                     "v29", "v30", "v31", "cc", "memory");
  return lowest == INT8_MIN;
}
