/* float32, element by element, for 32-bit ARM, whose vectors are only used where they compute what IEEE 754 says: see
 * tiny_neon.h. A part of the elements is looked through first, and left to scalar code where it has a tiny number. */
#include <stdbool.h>

#include "tiny_neon.h"

enum { VECTOR = 4, PART = 256, BLOCK = 4 * VECTOR, AVERAGE_LOG2 = 16 };

/* ---- Affine ------------------------------------------------------------------------------------------------------ */

/* What channels have. */
typedef struct channel_values {
  uint32x4_t multipliers;
  bool terms_are_safe;
} channel_values;

static channel_values values_of(const lqc_affine_f32 *params) {
  const float limits[2] = {params->low, params->high};
  const uint32x4_t none = vdupq_n_u32(UINT32_MAX);
  uint32x4_t terms = lqc_least_of_neon(none, limits, 2);
  terms = params->offset ? lqc_least_of_neon(terms, params->offset, params->channels) : terms;
  return (channel_values){.multipliers =
                              params->multiplier ? lqc_least_of_neon(none, params->multiplier, params->channels) : none,
                          .terms_are_safe = lqc_least_exponent_neon(terms) >= LQC_SAFE_TERM};
}

/* Inlined with constants, whether there are such. */
LQC_INLINE size_t affine_vectors(float *out, const float *in, size_t count, const lqc_affine_f32 *params,
                                 const bool multiplies, const bool adds) {
  const float32x4_t low = vdupq_n_f32(params->low), high = vdupq_n_f32(params->high);
  const float *multiplier = params->multiplier, *offset = params->offset;
  size_t c = 0;
  for (; c + VECTOR <= count; c += VECTOR) {
    float32x4_t x = vld1q_f32(in + c);
    if (multiplies) {
      x = vmulq_f32(x, vld1q_f32(multiplier + c));
    }
    if (adds) {
      x = vaddq_f32(x, vld1q_f32(offset + c));
    }
    vst1q_f32(out + c, lqc_clipped_neon(x, low, high));
  }
  return c;
}

/* Elements from the first channel on, or, without channels' values, any. */
static void affine_row(float *out, const float *in, size_t count, const lqc_affine_f32 *params,
                       const channel_values *values) {
  const uint32x4_t inputs = lqc_least_of_neon(vdupq_n_u32(UINT32_MAX), in, count);
  lqc_affine_f32 rest = *params;
  size_t done = 0;
  if (values->terms_are_safe && (params->multiplier ? lqc_are_safe_factors_neon(inputs, values->multipliers)
                                                    : lqc_least_exponent_neon(inputs) >= LQC_SAFE_TERM)) {
    if (params->multiplier && params->offset) {
      done = affine_vectors(out, in, count, params, true, true);
    } else if (params->multiplier) {
      done = affine_vectors(out, in, count, params, true, false);
    } else if (params->offset) {
      done = affine_vectors(out, in, count, params, false, true);
    } else {
      done = affine_vectors(out, in, count, params, false, false);
    }
  }
  if (done < count) {
    rest.channels = (uint32_t)(count - done);
    rest.multiplier = rest.multiplier ? rest.multiplier + done : NULL;
    rest.offset = rest.offset ? rest.offset + done : NULL;
    lqc_affine_f32_scalar(out + done, in + done, 1, &rest);
  }
}

void lqc_affine_f32_neon(float *out, const float *in, size_t pixels, const lqc_affine_f32 *params) {
  const channel_values values = values_of(params);
  if (params->multiplier || params->offset) {
    for (size_t p = 0; p < pixels; ++p, out += params->channels, in += params->channels) {
      affine_row(out, in, params->channels, params, &values);
    }
    return;
  }
  for (size_t left = pixels * params->channels, count; left > 0; left -= count, out += count, in += count) {
    count = left < PART ? left : PART;
    affine_row(out, in, count, params, &values);
  }
}

/* ---- Two operands ------------------------------------------------------------------------------------------------ */

LQC_INLINE bool are_terms(uint32x4_t a, uint32x4_t b) {
  return lqc_least_exponent_neon(vminq_u32(a, b)) >= LQC_SAFE_TERM;
}

LQC_INLINE bool are_factors(uint32x4_t a, uint32x4_t b) {
  return lqc_are_safe_factors_neon(a, b) != 0;
}

LQC_INLINE float32x4_t largest(float32x4_t x, float32x4_t y) {
  return vbslq_f32(lqc_greater_neon(x, y), x, y);
}

LQC_INLINE float32x4_t smallest(float32x4_t x, float32x4_t y) {
  return vbslq_f32(lqc_greater_neon(y, x), x, y);
}

LQC_INLINE float32x4_t leaky(float32x4_t x, float32x4_t slope) {
  return vbslq_f32(lqc_greater_neon(vdupq_n_f32(0.0f), x), vmulq_f32(slope, x), x);
}

LQC_INLINE float32x4_t operand_at(const float *x, size_t i, size_t step) {
  return step ? vld1q_f32(x + i) : vld1q_dup_f32(x);
}

#define LQC_DEFINE_COMBINE(name, is_safe, operation)                                                               \
  void name##_neon(float *out, const float *a, size_t a_step, const float *b, size_t b_step, size_t count) {       \
    const uint32x4_t none = vdupq_n_u32(UINT32_MAX);                                                               \
    for (size_t part; count > 0; count -= part, out += part, a += part * a_step, b += part * b_step) {             \
      part = count < PART ? count : PART;                                                                          \
      size_t i = 0;                                                                                                \
      if (is_safe(lqc_least_of_neon(none, a, a_step ? part : 1), lqc_least_of_neon(none, b, b_step ? part : 1))) { \
        for (; i + VECTOR <= part; i += VECTOR) {                                                                  \
          vst1q_f32(out + i, operation(operand_at(a, i, a_step), operand_at(b, i, b_step)));                       \
        }                                                                                                          \
      }                                                                                                            \
      if (i < part) {                                                                                              \
        name##_scalar(out + i, a + i * a_step, a_step, b + i * b_step, b_step, part - i);                          \
      }                                                                                                            \
    }                                                                                                              \
  }
LQC_DEFINE_COMBINE(lqc_add_f32, are_terms, vaddq_f32)
LQC_DEFINE_COMBINE(lqc_subtract_f32, are_terms, vsubq_f32)
LQC_DEFINE_COMBINE(lqc_multiply_f32, are_factors, vmulq_f32)
LQC_DEFINE_COMBINE(lqc_maximum_f32, are_terms, largest)
LQC_DEFINE_COMBINE(lqc_minimum_f32, are_terms, smallest)
LQC_DEFINE_COMBINE(lqc_prelu_f32, are_factors, leaky)

/* ---- Pools ------------------------------------------------------------------------------------------------------- */

/* BLOCK elements from `first` on: their largest taps, or the sums of their taps. Returns whether they had no tiny
 * numbers; then they are written. */
LQC_INLINE bool pool_block(float *out, const lqc_pool_taps *taps, size_t first, const bool adds) {
  float32x4_t result[BLOCK / VECTOR];
  uint32x4_t least = vdupq_n_u32(UINT32_MAX);
  LQC_UNROLL
  for (uint32_t v = 0; v < BLOCK / VECTOR; ++v) {
    result[v] = adds ? vdupq_n_f32(0.0f) : vld1q_f32((const float *)(const void *)taps->input + first + v * VECTOR);
  }
  for (uint32_t i = 0; i < taps->rows; ++i) {
    for (uint32_t j = 0; j < taps->columns; ++j) {
      const int8_t *tap = taps->input + i * taps->row_stride + j * taps->column_stride;
      const float *x = (const float *)(const void *)tap + first;
      LQC_UNROLL
      for (uint32_t v = 0; v < BLOCK / VECTOR; ++v) {
        const float32x4_t value = vld1q_f32(x + v * VECTOR);
        least = lqc_least_neon(least, value);
        result[v] = adds ? vaddq_f32(result[v], value) : largest(value, result[v]);
      }
    }
  }
  if (lqc_least_exponent_neon(least) < (adds ? LQC_SAFE_TERM + AVERAGE_LOG2 : 1)) {
    return false;
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < BLOCK / VECTOR; ++v) {
    vst1q_f32(out + first + v * VECTOR, result[v]);
  }
  return true;
}

/* The same pool of the elements from `first` on. */
static lqc_pool_taps taps_from(const lqc_pool_taps *taps, size_t first) {
  lqc_pool_taps rest = *taps;
  rest.input += first * sizeof(float);
  return rest;
}

void lqc_max_f32_neon(float *out, const lqc_pool_taps *taps, size_t n) {
  for (size_t first = 0; first < n; first += BLOCK) {
    const size_t count = n - first < BLOCK ? n - first : BLOCK;
    if (count < BLOCK || !pool_block(out, taps, first, false)) {
      const lqc_pool_taps rest = taps_from(taps, first);
      lqc_max_f32_scalar(out + first, &rest, count);
    }
  }
}

/* There is no division of vectors. By a power of two, which is a product, it is exact down to 2^-126; what is left here
 * to the other unit is once for all taps. */
void lqc_average_f32_neon(float *out, const lqc_pool_taps *taps, size_t n) {
  const size_t tap_count = (size_t)taps->rows * taps->columns;
  const bool is_power = (tap_count & (tap_count - 1)) == 0;
  for (size_t first = 0; first < n; first += BLOCK) {
    const size_t count = n - first < BLOCK ? n - first : BLOCK;
    if (count < BLOCK || tap_count >> AVERAGE_LOG2 > 0 || !pool_block(out, taps, first, true)) {
      const lqc_pool_taps rest = taps_from(taps, first);
      lqc_average_f32_scalar(out + first, &rest, count);
    } else if (is_power) {
      for (size_t e = first; e < first + BLOCK; e += VECTOR) {
        vst1q_f32(out + e, vmulq_n_f32(vld1q_f32(out + e), 1.0f / (float)tap_count));
      }
    } else {
      for (size_t e = first; e < first + BLOCK; ++e) {
        out[e] /= (float)tap_count;
      }
    }
  }
}
