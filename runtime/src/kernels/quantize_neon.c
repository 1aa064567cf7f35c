/* Quantization of float32. Compilers leave the conversion to integers scalar. */
#include "kernels_isa.h"
#include "neon_intrinsics.h"

enum { BLOCK = 8 };

#if defined(__aarch64__)
typedef float64x2_t limit_vector;
#  define LIMIT(limit) vdupq_n_f64(limit)

/* Eight elements: clip(floor(x * scale + 1/2), +-limit), in double, as in plain_template.h: x * 2^f is exact there.
   FCVTM is the floor, and FMINNM takes a NaN for the limit. */
LQC_INLINE int16x8_t quantized(const float *in, const float *scales, limit_vector limit) {
  int32x2_t q[BLOCK / 2];
  LQC_UNROLL
  for (uint32_t i = 0; i < BLOCK / 2; ++i) {
    float64x2_t v = vmulq_f64(vcvt_f64_f32(vld1_f32(in + 2 * i)), vcvt_f64_f32(vld1_f32(scales + 2 * i)));
    v = vminnmq_f64(vaddq_f64(v, vdupq_n_f64(0.5)), limit);
    q[i] = vmovn_s64(vcvtmq_s64_f64(vmaxq_f64(v, vnegq_f64(limit))));
  }
  return vmovn_high_s32(vmovn_s32(vcombine_s32(q[0], q[1])), vcombine_s32(q[2], q[3]));
}
#else
#  include "tiny_neon.h"

typedef float32x4_t limit_vector;
#  define LIMIT(limit) vdupq_n_f32(limit)

/* The same in float32, as there are no vectors of doubles, for f of -64 to 64: x * 2^f is exact, or too small to round
   to anything but 0, or clipped. floor(v + 1/2) is floor(2v), which is exact, plus 1 and halved. A NaN is below
   nothing. */
LQC_INLINE int16x8_t quantized(const float *in, const float *scales, limit_vector limit) {
  int32x4_t q[BLOCK / 4];
  LQC_UNROLL
  for (uint32_t i = 0; i < BLOCK / 4; ++i) {
    float32x4_t v = vmulq_f32(vld1q_f32(in + 4 * i), vld1q_f32(scales + 4 * i));
    v = vmaxq_f32(vbslq_f32(lqc_greater_neon(limit, v), v, limit), vnegq_f32(limit));
    const int32x4_t twice = vcvtq_n_s32_f32(v, 1); /* towards 0 */
    const int32x4_t above = vreinterpretq_s32_u32(lqc_greater_neon(vcvtq_n_f32_s32(twice, 1), v));
    q[i] = vrshrq_n_s32(vaddq_s32(twice, above), 1);
  }
  return vcombine_s16(vmovn_s32(q[0]), vmovn_s32(q[1]));
}
#endif

/* Of the scales of n elements, a multiple of BLOCK, whether quantized() takes them. */
LQC_INLINE int takes(const float *scales, size_t n) {
#if defined(__aarch64__)
  (void)scales, (void)n;
  return 1;
#else
  const uint32x4_t low = vdupq_n_u32((uint32_t)(LQC_EXPONENT_BIAS - 64) << 23);
  uint32x4_t most = vdupq_n_u32(0);
  for (size_t e = 0; e < n; e += 4) {
    most = vmaxq_u32(most, vsubq_u32(vreinterpretq_u32_f32(vld1q_f32(scales + e)), low));
  }
  const uint32x2_t two = vpmax_u32(vget_low_u32(most), vget_high_u32(most));
  return vget_lane_u32(vpmax_u32(two, two), 0) <= 128u << 23;
#endif
}

void lqc_quantize_i8_neon(int8_t *out, const float *in, const float *scales, size_t n) {
  const size_t end = takes(scales, n - n % BLOCK) ? n - n % BLOCK : 0;
  for (size_t e = 0; e < end; e += BLOCK) {
    vst1_s8(out + e, vmovn_s16(quantized(in + e, scales + e, LIMIT(INT8_MAX))));
  }
  lqc_quantize_i8_scalar(out + end, in + end, scales + end, n - end);
}

void lqc_quantize_i16_neon(int16_t *out, const float *in, const float *scales, size_t n) {
  const size_t end = takes(scales, n - n % BLOCK) ? n - n % BLOCK : 0;
  for (size_t e = 0; e < end; e += BLOCK) {
    vst1q_s16(out + e, quantized(in + e, scales + e, LIMIT(INT16_MAX)));
  }
  lqc_quantize_i16_scalar(out + end, in + end, scales + end, n - end);
}
