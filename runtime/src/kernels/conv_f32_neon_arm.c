/* float32 convolution for 32-bit ARM, whose vectors are only used where they compute what IEEE 754 says: see
 * tiny_neon.h. */
#include "tiny_neon.h"

enum { VECTOR = 4 };

/* x by its address, else it goes through a core register. */
#define multiply_add(sum, x, w) vaddq_f32(sum, vmulq_f32(w, vld1q_dup_f32(&(x))))

/* One by one, else the sums stay in memory. */
LQC_INLINE void store_sums(float *out, const void *vectors, uint32_t count) {
  const float32x4_t *sums = vectors;
  LQC_UNROLL
  for (uint32_t v = 0; v < count; ++v) {
    vst1q_f32(out + v * VECTOR, sums[v]);
  }
}

/* `count` neighbours in memory: sums + bias, clipped. */
LQC_INLINE void finish(const lqc_conv_tile *t, float *out, uint32_t first, uint32_t count) {
  const float32x4_t low = vdupq_n_f32(t->low), high = vdupq_n_f32(t->high);
  uint32_t c = 0;
  for (; c + VECTOR <= count; c += VECTOR) {
    float32x4_t sum = vld1q_f32(out + c);
    if (t->bias) {
      sum = vaddq_f32(sum, vld1q_f32(t->bias + first + c));
    }
    vst1q_f32(out + c, lqc_clipped_neon(sum, low, high));
  }
  for (; c < count; ++c) {
    float sum = t->bias ? out[c] + t->bias[first + c] : out[c];
    sum = sum < t->low ? t->low : sum;
    out[c] = sum > t->high ? t->high : sum;
  }
}

/* The products of one tap. */
static void add_tap(float *restrict sums, const float *restrict x, const float *restrict w, uint32_t channels) {
  uint32_t c = 0;
  for (; c + VECTOR <= channels; c += VECTOR) {
    const float32x4_t product = vmulq_f32(vld1q_f32(x + c), vld1q_f32(w + c));
    vst1q_f32(sums + c, vaddq_f32(vld1q_f32(sums + c), product));
  }
  for (; c < channels; ++c) {
    sums[c] += x[c] * w[c];
  }
}

/* Whether vectors compute a tile exactly. `depth` input channels are read of each tap. */
static int takes(const lqc_conv_tile *t, uint32_t depth) {
  const float limits[VECTOR] = {t->low, t->high, t->low, t->high};
  uint32x4_t inputs = vdupq_n_u32(UINT32_MAX), weights = inputs, terms = lqc_least_of_neon(inputs, limits, VECTOR);
  for (uint32_t i = 0; i < t->rows; ++i) {
    const size_t last = (t->pixels - 1) * t->pixel_stride + (t->columns - 1) * t->column_stride + depth;
    inputs = lqc_least_of_neon(inputs, t->input + i * t->row_stride,
                               last); /* and, at times, some between those that are read */
    for (uint32_t j = 0; j < t->columns; ++j) {
      const float *w = t->weights + i * t->row_weights + j * t->column_weights;
      for (uint32_t k = 0; k < t->depth; ++k, w += t->weight_stride) {
        weights = lqc_least_of_neon(weights, w, t->channels);
      }
    }
  }
  if (t->bias) {
    terms = lqc_least_of_neon(terms, t->bias, t->channels);
  }
  return lqc_are_safe_factors_neon(inputs, weights) && lqc_least_exponent_neon(terms) >= LQC_SAFE_TERM;
}

#define LQC_TAKES(tile, depth) takes(tile, depth)
#define LQC_OWN_ARITHMETIC 1
#define LQC_ISA(name) name##_neon
#define LQC_VECTOR 4
#define LQC_VECTORS 2
#define LQC_PIXELS 4
#include "conv_f32_template.h"
