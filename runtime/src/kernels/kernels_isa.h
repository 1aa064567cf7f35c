/* What each ISA's files define, under one naming rule: lqc_<kernel>_<isa>. Private to kernels/. */
#ifndef LQC_KERNELS_ISA_H
#define LQC_KERNELS_ISA_H

#include <stdbool.h>

#include "kernels.h"

#define LQC_DECLARE_KERNELS(isa)                                                                                      \
  extern const lqc_bconv_kernel lqc_bconv2d_##isa;                                                                    \
  extern const lqc_int8_kernel lqc_int8_conv_##isa;                                                                   \
  void lqc_threshold_##isa(uint64_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params); \
  void lqc_clip_##isa(int8_t *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params);        \
  void lqc_affine_##isa(float *out, const uint16_t *sums, uint32_t missing, const lqc_epilogue_params *params);       \
  void lqc_bitpack_f32_##isa(uint64_t *out, const float *in, size_t pixels, uint32_t channels,                        \
                             const float *thresholds, const uint64_t *invert);                                        \
  void lqc_bitpack_i8_##isa(uint64_t *out, const int8_t *in, size_t pixels, uint32_t channels,                        \
                            const int8_t *thresholds, const uint64_t *invert);

/* Kernels of plain loops, whose vectors the compiler makes: the same source for every instruction set. On aarch64 the
 * scalar ones have NEON already, and those named neon are what intrinsics do better. */
#define LQC_DECLARE_FIXED_POINT(isa)                                                                         \
  void lqc_fixed_point_##isa(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch); \
  void lqc_fixed_point_wide_##isa(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch);

#define LQC_DECLARE_COMBINE(name, isa) \
  void lqc_##name##_f32_##isa(float *out, const float *a, size_t a_step, const float *b, size_t b_step, size_t count)

#define LQC_DECLARE_PLAIN_KERNELS(isa)                                                                 \
  void lqc_conv_f32_##isa(const lqc_conv_tile *tile);                                                  \
  void lqc_depthwise_f32_##isa(const lqc_conv_tile *tile);                                             \
  void lqc_int8_depthwise_##isa(const lqc_depthwise_pixel *pixel);                                     \
  void lqc_affine_f32_##isa(float *out, const float *in, size_t pixels, const lqc_affine_f32 *params); \
  LQC_DECLARE_COMBINE(add, isa);                                                                       \
  LQC_DECLARE_COMBINE(subtract, isa);                                                                  \
  LQC_DECLARE_COMBINE(multiply, isa);                                                                  \
  LQC_DECLARE_COMBINE(maximum, isa);                                                                   \
  LQC_DECLARE_COMBINE(minimum, isa);                                                                   \
  LQC_DECLARE_COMBINE(prelu, isa);                                                                     \
  int32_t lqc_sum_and_magnitudes_##isa(const int8_t *values, size_t n, int32_t *magnitudes);           \
  void lqc_max_f32_##isa(float *out, const lqc_pool_taps *taps, size_t n);                             \
  void lqc_average_f32_##isa(float *out, const lqc_pool_taps *taps, size_t n);                         \
  void lqc_max_i8_##isa(int8_t *out, const lqc_pool_taps *taps, size_t n);                             \
  void lqc_sum_i8_##isa(int32_t *sums, const lqc_pool_taps *taps, size_t n);                           \
  void lqc_quantize_i8_##isa(int8_t *out, const float *in, const float *scales, size_t n);             \
  void lqc_quantize_i16_##isa(int16_t *out, const float *in, const float *scales, size_t n);

LQC_DECLARE_FIXED_POINT(scalar)
LQC_DECLARE_FIXED_POINT(avx2)
LQC_DECLARE_FIXED_POINT(loops_avx2)
LQC_DECLARE_FIXED_POINT(avx512)

/* Programs that have loops of their own: whether it was one of theirs, which then has run. */
bool lqc_fixed_point_pair_avx512(const lqc_lane_program *program, const lqc_lane_pixels *pixels);
bool lqc_fixed_point_affine_neon(const lqc_lane_program *program, const lqc_lane_pixels *pixels);
bool lqc_fixed_point_affine_avx512(const lqc_lane_program *program, const lqc_lane_pixels *pixels);
bool lqc_fixed_point_usual_wide_avx512(const lqc_lane_program *program, const lqc_lane_pixels *pixels);
bool lqc_fixed_point_usual_avx2(const lqc_lane_program *program, const lqc_lane_pixels *pixels);
bool lqc_fixed_point_usual_wide_avx2(const lqc_lane_program *program, const lqc_lane_pixels *pixels);

LQC_DECLARE_PLAIN_KERNELS(scalar)
LQC_DECLARE_PLAIN_KERNELS(neon) /* of A64 some of them */
LQC_DECLARE_PLAIN_KERNELS(avx2)
LQC_DECLARE_PLAIN_KERNELS(avx512)

LQC_DECLARE_KERNELS(scalar)
LQC_DECLARE_KERNELS(neon)
LQC_DECLARE_KERNELS(avx2)
LQC_DECLARE_KERNELS(avx512)

extern const lqc_bconv_kernel lqc_bconv2d_wide_scalar;
extern const lqc_bconv_kernel lqc_bconv2d_neon_pairs, lqc_bconv2d_neon_in_order, lqc_bconv2d_neon_in_order_pairs;
extern const lqc_int8_kernel lqc_int8_conv_neon_dot;
void lqc_bitpack_f32_neon_in_order(uint64_t *out, const float *in, size_t pixels, uint32_t channels,
                                   const float *thresholds, const uint64_t *invert);
LQC_DECLARE_FIXED_POINT(neon)
void lqc_threshold_wide_scalar(uint64_t *out, const uint32_t *sums, uint32_t missing,
                               const lqc_epilogue_params *params);
void lqc_clip_wide_scalar(int8_t *out, const uint32_t *sums, uint32_t missing, const lqc_epilogue_params *params);
void lqc_affine_wide_scalar(float *out, const uint32_t *sums, uint32_t missing, const lqc_epilogue_params *params);

void lqc_bitpack_i16_scalar(uint64_t *out, const int16_t *in, size_t pixels, uint32_t channels,
                            const int16_t *thresholds, const uint64_t *invert);

#define LQC_WORD_BITS 64u

/* Arrays of vectors live in registers only where every loop over them is unrolled, and early. */
#if defined(__clang__)
#  define LQC_UNROLL _Pragma("clang loop unroll(full)")
#else
#  define LQC_UNROLL _Pragma("GCC unroll 16")
#endif
/* What a loop writes is what it has just read in the same step, or nowhere read: vectors need no check at run time. */
#if defined(__clang__)
#  define LQC_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#  define LQC_INDEPENDENT _Pragma("GCC ivdep")
#else
#  define LQC_INDEPENDENT
#endif
#define LQC_INLINE static inline __attribute__((always_inline))

/* A statement that does of_pixels(..., n) with n = pixels as a constant, 1 .. 4. */
#define LQC_SWITCH_PIXELS(pixels, of_pixels, ...) \
  switch (pixels) {                               \
  case 1:                                         \
    of_pixels(__VA_ARGS__, 1);                    \
    break;                                        \
  case 2:                                         \
    of_pixels(__VA_ARGS__, 2);                    \
    break;                                        \
  case 3:                                         \
    of_pixels(__VA_ARGS__, 3);                    \
    break;                                        \
  default:                                        \
    of_pixels(__VA_ARGS__, 4);                    \
    break;                                        \
  }

static inline uint32_t lqc_min_u32(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

/* n rounded up to a multiple; n near UINT32_MAX does not wrap in size_t arithmetic of 64 bits. */
static inline size_t lqc_round_up(size_t n, size_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

/* Bits below `bits`, of 0 .. 64. */
static inline uint64_t lqc_low_mask(uint32_t bits) {
  return bits >= LQC_WORD_BITS ? ~(uint64_t)0 : ((uint64_t)1 << bits) - 1;
}

/* out_channels * words * 8 rounded up to whole blocks and LQC_ALIGNMENT; 0 where that does not fit a size_t. */
static inline size_t lqc_packed_bytes(uint32_t out_channels, uint32_t channel_block, size_t bytes_per_channel) {
  uint64_t channels = ((uint64_t)out_channels + channel_block - 1) / channel_block * channel_block;
  if (bytes_per_channel != 0 && channels > (SIZE_MAX - LQC_ALIGNMENT) / bytes_per_channel) {
    return 0;
  }
  return lqc_round_up((size_t)channels * bytes_per_channel, LQC_ALIGNMENT);
}

#endif /* LQC_KERNELS_ISA_H */
