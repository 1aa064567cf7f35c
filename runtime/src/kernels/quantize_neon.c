/* Quantization of float32 in double, as in plain_template.h: x * 2^f is exact there. Compilers leave the conversion to
 * integers scalar. FCVTM is the floor, and FMINNM takes a NaN for the limit. */
#include <arm_neon.h>

#include "kernels_isa.h"

enum { BLOCK = 8 };

/* Eight elements: clip(floor(x * scale + 1/2), +-limit). */
LQC_INLINE int16x8_t quantized(const float *in, const float *scales, float64x2_t limit) {
  int32x2_t q[BLOCK / 2];
  LQC_UNROLL
  for (uint32_t i = 0; i < BLOCK / 2; ++i) {
    float64x2_t v = vmulq_f64(vcvt_f64_f32(vld1_f32(in + 2 * i)), vcvt_f64_f32(vld1_f32(scales + 2 * i)));
    v = vminnmq_f64(vaddq_f64(v, vdupq_n_f64(0.5)), limit);
    q[i] = vmovn_s64(vcvtmq_s64_f64(vmaxq_f64(v, vnegq_f64(limit))));
  }
  return vmovn_high_s32(vmovn_s32(vcombine_s32(q[0], q[1])), vcombine_s32(q[2], q[3]));
}

void lqc_quantize_i8_neon(int8_t *out, const float *in, const float *scales, size_t n) {
  size_t e = 0;
  for (; e + BLOCK <= n; e += BLOCK) {
    vst1_s8(out + e, vmovn_s16(quantized(in + e, scales + e, vdupq_n_f64(INT8_MAX))));
  }
  lqc_quantize_i8_scalar(out + e, in + e, scales + e, n - e);
}

void lqc_quantize_i16_neon(int16_t *out, const float *in, const float *scales, size_t n) {
  size_t e = 0;
  for (; e + BLOCK <= n; e += BLOCK) {
    vst1q_s16(out + e, quantized(in + e, scales + e, vdupq_n_f64(INT16_MAX)));
  }
  lqc_quantize_i16_scalar(out + e, in + e, scales + e, n - e);
}
