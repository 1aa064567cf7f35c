/* Kernels of plain loops, whose vectors the compiler makes. Included once for each instruction set, which its compiler
 * options choose; LQC_ISA(name) is what a name becomes. */
#include <string.h>

#include "kernels_isa.h"

int32_t LQC_ISA(lqc_sum_and_magnitudes)(const int8_t *values, size_t n, int32_t *magnitudes) {
  int32_t sum = 0, all = 0;
  for (size_t i = 0; i < n; ++i) {
    int32_t value = values[i];
    sum += value;
    all += value < 0 ? -value : value;
  }
  *magnitudes = all;
  return sum;
}

#if !LQC_OWN_FLOATS
/* ---- float32, element by element ------------------------------------------------------------------------------- */

static inline float activated(float x, const lqc_affine_f32 *params) {
  x = x < params->low ? params->low : x;
  return x > params->high ? params->high : x;
}

/* Defines NAME(out, in, count, params): of `count` neighbouring channels from the first on, or of any. */
#  define LQC_DEFINE_AFFINE(name, expression)                                                   \
    static void name(float *out, const float *in, size_t count, const lqc_affine_f32 *params) { \
      const lqc_affine_f32 p = *params;                                                         \
      LQC_INDEPENDENT                                                                           \
      for (size_t c = 0; c < count; ++c) {                                                      \
        float x = in[c];                                                                        \
        out[c] = activated(expression, &p);                                                     \
      }                                                                                         \
    }
LQC_DEFINE_AFFINE(activation, x)
LQC_DEFINE_AFFINE(with_offset, x + p.offset[c])
LQC_DEFINE_AFFINE(with_multiplier, x *p.multiplier[c])
LQC_DEFINE_AFFINE(with_both, x *p.multiplier[c] + p.offset[c])

void LQC_ISA(lqc_affine_f32)(float *out, const float *in, size_t pixels, const lqc_affine_f32 *params) {
  const size_t channels = params->channels;
  if (params->multiplier == NULL && params->offset == NULL) {
    activation(out, in, pixels * channels, params);
    return;
  }
  for (size_t p = 0; p < pixels; ++p, out += channels, in += channels) {
    if (params->multiplier && params->offset) {
      with_both(out, in, channels, params);
    } else if (params->multiplier) {
      with_multiplier(out, in, channels, params);
    } else {
      with_offset(out, in, channels, params);
    }
  }
}

/* The product is always computed: that is a vector, a branch is none. */
static inline float leaky(float x, float slope) {
  float product = slope * x;
  return x < 0.0f ? product : x;
}

#  define LQC_DEFINE_COMBINE(name, expression)                                                                   \
    void LQC_ISA(name)(float *out, const float *a, size_t a_step, const float *b, size_t b_step, size_t count) { \
      if (a_step == 1 && b_step == 1) {                                                                          \
        LQC_INDEPENDENT                                                                                          \
        for (size_t i = 0; i < count; ++i) {                                                                     \
          float x = a[i], y = b[i];                                                                              \
          out[i] = (expression);                                                                                 \
        }                                                                                                        \
        return;                                                                                                  \
      }                                                                                                          \
      for (size_t i = 0; i < count; ++i) {                                                                       \
        float x = a[i * a_step], y = b[i * b_step];                                                              \
        out[i] = (expression);                                                                                   \
      }                                                                                                          \
    }
LQC_DEFINE_COMBINE(lqc_add_f32, x + y)
LQC_DEFINE_COMBINE(lqc_subtract_f32, x - y)
LQC_DEFINE_COMBINE(lqc_multiply_f32, x *y)
LQC_DEFINE_COMBINE(lqc_maximum_f32, x > y ? x : y)
LQC_DEFINE_COMBINE(lqc_minimum_f32, x < y ? x : y)
LQC_DEFINE_COMBINE(lqc_prelu_f32, leaky(x, y))

#endif

#if !LQC_OWN_POOLS
/* ---- Pools ------------------------------------------------------------------------------------------------------- */

static void max_tap(int8_t *restrict out, const int8_t *restrict in, size_t n) {
  for (size_t e = 0; e < n; ++e) {
    out[e] = in[e] > out[e] ? in[e] : out[e];
  }
}

void LQC_ISA(lqc_max_i8)(int8_t *out, const lqc_pool_taps *taps, size_t n) {
  memcpy(out, taps->input, n);
  for (uint32_t i = 0; i < taps->rows; ++i) {
    for (uint32_t j = i == 0; j < taps->columns; ++j) {
      max_tap(out, taps->input + i * taps->row_stride + j * taps->column_stride, n);
    }
  }
}

#  if !LQC_OWN_FLOATS
static const float *float_tap(const lqc_pool_taps *taps, uint32_t i, uint32_t j) {
  return (const float *)(const void *)(taps->input + i * taps->row_stride + j * taps->column_stride);
}

static void max_tap_f32(float *restrict out, const float *restrict in, size_t n) {
  for (size_t e = 0; e < n; ++e) {
    out[e] = in[e] > out[e] ? in[e] : out[e];
  }
}

void LQC_ISA(lqc_max_f32)(float *out, const lqc_pool_taps *taps, size_t n) {
  memcpy(out, taps->input, n * sizeof(*out));
  for (uint32_t i = 0; i < taps->rows; ++i) {
    for (uint32_t j = i == 0; j < taps->columns; ++j) {
      max_tap_f32(out, float_tap(taps, i, j), n);
    }
  }
}

static void add_tap_f32(float *restrict sums, const float *restrict in, size_t n) {
  for (size_t e = 0; e < n; ++e) {
    sums[e] += in[e];
  }
}

void LQC_ISA(lqc_average_f32)(float *out, const lqc_pool_taps *taps, size_t n) {
  const float count = (float)((size_t)taps->rows * taps->columns);
  memset(out, 0, n * sizeof(*out));
  for (uint32_t i = 0; i < taps->rows; ++i) {
    for (uint32_t j = 0; j < taps->columns; ++j) {
      add_tap_f32(out, float_tap(taps, i, j), n);
    }
  }
  for (size_t e = 0; e < n; ++e) {
    out[e] /= count;
  }
}
#  endif

static void sum_tap(int32_t *restrict sums, const int8_t *restrict in, size_t n) {
  for (size_t e = 0; e < n; ++e) {
    sums[e] += in[e];
  }
}

void LQC_ISA(lqc_sum_i8)(int32_t *sums, const lqc_pool_taps *taps, size_t n) {
  memset(sums, 0, n * sizeof(*sums));
  for (uint32_t i = 0; i < taps->rows; ++i) {
    for (uint32_t j = 0; j < taps->columns; ++j) {
      sum_tap(sums, taps->input + i * taps->row_stride + j * taps->column_stride, n);
    }
  }
}

#endif

#if !LQC_OWN_QUANTIZE
/* ---- Quantize ---------------------------------------------------------------------------------------------------- */

/* In double x * 2^f is exact, and adding 1/2 rounds only where the floor is the same: the sum of 1/2 and a number of 24
 * bits has more than 53 bits only where |x * 2^f| is below 2^-29 or above 2^52. A NaN, which only overflow inside the
 * model can make, gives `limit`. */
#  define LQC_DEFINE_QUANTIZE(name, type, limit)                                                               \
    void LQC_ISA(name)(type *restrict out, const float *restrict in, const float *restrict scales, size_t n) { \
      for (size_t e = 0; e < n; ++e) {                                                                         \
        double v = (double)in[e] * (double)scales[e] + 0.5;                                                    \
        v = v < limit ? v : limit;                                                                             \
        v = v > -limit ? v : -limit;                                                                           \
        int32_t q = (int32_t)v;                                                                                \
        out[e] = (type)(q - (v < q));                                                                          \
      }                                                                                                        \
    }
LQC_DEFINE_QUANTIZE(lqc_quantize_i8, int8_t, INT8_MAX)
LQC_DEFINE_QUANTIZE(lqc_quantize_i16, int16_t, INT16_MAX)

#endif

#if !LQC_OWN_DEPTHWISE
/* ---- Depthwise int8 convolution ---------------------------------------------------------------------------------- */

/* Preparing has proven that no sum, with the bias or without, leaves int32. */
static void add_tap(int32_t *restrict sums, const int8_t *restrict x, const int8_t *restrict w, uint32_t channels,
                    uint32_t each) {
  if (each == 1) {
    for (uint32_t c = 0; c < channels; ++c) {
      sums[c] += (int16_t)x[c] * (int16_t)w[c];
    }
    return;
  }
  for (uint32_t c = 0; c < channels; ++x) {
    for (uint32_t end = c + each; c < end; ++c) {
      sums[c] += *x * w[c];
    }
  }
}

void LQC_ISA(lqc_int8_depthwise)(const lqc_depthwise_pixel *pixel) {
  memcpy(pixel->sums, pixel->bias, pixel->out_channels * sizeof(int32_t));
  for (uint32_t i = 0; i < pixel->rows; ++i) {
    for (uint32_t j = 0; j < pixel->columns; ++j) {
      const int8_t *x = pixel->input + i * pixel->row_stride + j * pixel->column_stride;
      const int8_t *w = pixel->weights + i * pixel->row_weights + j * pixel->column_weights;
      add_tap(pixel->sums, x, w, pixel->out_channels, pixel->out_channels / pixel->channels);
    }
  }
}

#endif
