/* The inner loop of int8_conv_neon.c for four pixels and four channels on A64, as assembly text: of intrinsics,
 * compilers move so many products to the front that sums leave the registers. Private to kernels/.
 *
 * 16 elements of each pixel, low halves in v0-v3 and high ones in v4-v7, meet those of a channel, in v12 and v13 or v14
 * and v15; products are in v8-v11. What an instruction reads was written at least four vector instructions before.
 * Loads are of 64 bits, which issue beside arithmetic on cores where those of 128 do not, as soon as their registers
 * are free.
 */
#ifndef LQC_INT8_CONV_NEON_LOOP_H
#define LQC_INT8_CONV_NEON_LOOP_H

#include <arm_neon.h>
#include <stddef.h>

#include "kernels_isa.h"

/* Channel c, whose elements are in wl and wh, with loads, or nothing, behind each multiplication and some additions. */
#define LQC_CHANNEL(c, wl, wh, m0, m1, m2, m3, n0, n1, n2, n3, a0, a1, a2)                                  \
  "smull v8.8h, v0.8b, " wl ".8b\n\t" m0 "smull v9.8h, v1.8b, " wl ".8b\n\t" m1 "smull v10.8h, v2.8b, " wl  \
  ".8b\n\t" m2 "smull v11.8h, v3.8b, " wl ".8b\n\t" m3 "smlal v8.8h, v4.8b, " wh ".8b\n\t" n0               \
  "smlal v9.8h, v5.8b, " wh ".8b\n\t" n1 "smlal v10.8h, v6.8b, " wh ".8b\n\t" n2 "smlal v11.8h, v7.8b, " wh \
  ".8b\n\t" n3 "sadalp %[p0c" c "].4s, v8.8h\n\t" a0 "sadalp %[p1c" c "].4s, v9.8h\n\t" a1 "sadalp %[p2c" c \
  "].4s, v10.8h\n\t" a2 "sadalp %[p3c" c "].4s, v11.8h\n\t"

/* The first three; each loads the elements of the next one. */
#define LQC_THREE_CHANNELS                                                                                           \
  LQC_CHANNEL("0", "v12", "v13", "", "ldr d14, [%[w], #16]\n\t", "", "", "ldr d15, [%[w], #24]\n\t", "", "", "", "", \
              "", "")                                                                                                \
  LQC_CHANNEL("1", "v14", "v15", "", "ldr d12, [%[w], #32]\n\t", "", "", "ldr d13, [%[w], #40]\n\t", "", "", "", "", \
              "", "")                                                                                                \
  LQC_CHANNEL("2", "v12", "v13", "", "ldr d14, [%[w], #48]\n\t", "", "", "ldr d15, [%[w], #56]\n\t", "", "", "", "", \
              "", "")

/* The last one of a step, which loads what the next step begins with, and of all steps. */
#define LQC_LAST_CHANNEL                                                                           \
  LQC_CHANNEL("3", "v14", "v15", "ldr d0, [%[x0], #16]!\n\t", "ldr d1, [%[x1], #16]!\n\t",         \
              "ldr d2, [%[x2], #16]!\n\t", "ldr d3, [%[x3], #16]!\n\t", "ldr d4, [%[x0], #8]\n\t", \
              "ldr d5, [%[x1], #8]\n\t", "ldr d6, [%[x2], #8]\n\t", "ldr d7, [%[x3], #8]\n\t",     \
              "add %[w], %[w], %[stride]\n\t", "ldr d12, [%[w]]\n\t", "ldr d13, [%[w], #8]\n\t")
#define LQC_VERY_LAST_CHANNEL LQC_CHANNEL("3", "v14", "v15", "", "", "", "", "", "", "", "", "", "", "")

#define LQC_ZEROS(p)           \
  "movi %[" p "c0].4s, #0\n\t" \
  "movi %[" p "c1].4s, #0\n\t" \
  "movi %[" p "c2].4s, #0\n\t" \
  "movi %[" p "c3].4s, #0\n\t"
#define LQC_SUMS_OF(p, c0, c1, c2, c3) \
  [c0] "=&w"(sums[p][0]), [c1] "=&w"(sums[p][1]), [c2] "=&w"(sums[p][2]), [c3] "=&w"(sums[p][3])

/* sums[p][c] = `steps` (at least 1) times 16 elements of pixel p, at x + p * pixel_bytes, times those of channel c, at
   w + 16 c, and after every step at w + stride. */
LQC_INLINE void lqc_int8_loop_neon(int32x4_t sums[4][4], const int8_t *x, size_t pixel_bytes, const int8_t *w,
                                   size_t stride, size_t steps) {
  const int8_t *x0 = x, *x1 = x0 + pixel_bytes, *x2 = x1 + pixel_bytes, *x3 = x2 + pixel_bytes;
  __asm__(LQC_ZEROS("p0") LQC_ZEROS("p1") LQC_ZEROS("p2")
              LQC_ZEROS("p3") "ldp d0, d4, [%[x0]]\n\t"
                              "ldp d12, d13, [%[w]]\n\t"
                              "ldp d1, d5, [%[x1]]\n\t"
                              "ldp d2, d6, [%[x2]]\n\t"
                              "ldp d3, d7, [%[x3]]\n\t"
                              "subs %[steps], %[steps], #1\n\t"
                              "b.eq 2f\n\t"
                              ".p2align 4\n"
                              "1:\n\t" LQC_THREE_CHANNELS LQC_LAST_CHANNEL "subs %[steps], %[steps], #1\n\t"
                              "b.ne 1b\n"
                              "2:\n\t" LQC_THREE_CHANNELS LQC_VERY_LAST_CHANNEL
          : LQC_SUMS_OF(0, p0c0, p0c1, p0c2, p0c3), LQC_SUMS_OF(1, p1c0, p1c1, p1c2, p1c3),
            LQC_SUMS_OF(2, p2c0, p2c1, p2c2, p2c3), LQC_SUMS_OF(3, p3c0, p3c1, p3c2, p3c3), [x0] "+r"(x0),
            [x1] "+r"(x1), [x2] "+r"(x2), [x3] "+r"(x3), [w] "+r"(w), [steps] "+r"(steps)
          : [stride] "r"(stride)
          : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "cc",
            "memory");
}

#endif /* LQC_INT8_CONV_NEON_LOOP_H */
