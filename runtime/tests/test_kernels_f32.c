/* Every kernel that takes float32, element by element or in sums, against a plain loop, bit for bit: numbers of all
 * magnitudes, both zeros and infinities, arrays that end where memory ends, in place and not. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>

#include "kernels_testing.h"

/* Of `exponents` biased exponents from `least` on. */
static float float_of(uint32_t least, uint32_t exponents, uint64_t *seed) {
  const uint32_t bits = ((uint32_t)random_u64(seed) & 0x807fffffu) | (least + random_below(seed, exponents)) << 23;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

static float random_float(uint64_t *seed) {
  static const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, 1.0f, -1.0f, 6.0f};
  if (random_below(seed, 5) == 0) {
    return special[random_below(seed, 7)];
  }
  return float_of(90, 70, seed); /* finite, and products of two are */
}

typedef enum magnitudes { ORDINARY, SOME_TINY, TINY_DIFFERENCES } magnitudes;

static magnitudes random_magnitudes(uint64_t *seed) {
  const uint32_t kind = random_below(seed, 6);
  return kind == 0 ? SOME_TINY : kind == 1 ? TINY_DIFFERENCES : ORDINARY;
}

static float *last_of(guarded *memory, size_t count, magnitudes kind, uint64_t *seed) {
  *memory = guarded_new(count * sizeof(float));
  float *values = guarded_last(memory, count * sizeof(float));
  for (size_t i = 0; i < count; ++i) {
    values[i] = kind == TINY_DIFFERENCES ? float_of(1, 24, seed)
                                         : random_float(seed) * (kind == SOME_TINY ? perhaps_tiny_scale(seed) : 1.0f);
  }
  return values;
}

static float *last_random(guarded *memory, size_t count, uint64_t *seed) {
  return last_of(memory, count, random_magnitudes(seed), seed);
}

/* One NaN is as good as another: which one an instruction gives depends on the order of its operands. */
static int same(float a, float b) {
  return (a != a && b != b) || memcmp(&a, &b, sizeof(a)) == 0;
}

static void compare(const char *what, const lqc_kernels *kernels, const float *got, const float *expected,
                    size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (!same(got[i], expected[i])) {
      FAIL("%s, %s, %zu elements: element %zu is %a, not %a", what, lqc_isa_name(kernels->isa), count, i,
           (double)got[i], (double)expected[i]);
    }
  }
}

/* ---- Affine ------------------------------------------------------------------------------------------------------ */

static void check_affine(const lqc_kernels *kernels, uint64_t *seed) {
  guarded memory[5];
  const uint32_t channels = 1 + random_below(seed, 150);
  const size_t pixels = random_below(seed, 5), count = pixels * channels;
  const float *in = last_random(&memory[0], count, seed), *multiplier = last_random(&memory[1], channels, seed),
              *offset = last_random(&memory[2], channels, seed);
  float *out = last_random(&memory[3], count, seed), *expected = last_random(&memory[4], count, seed);
  const lqc_affine_f32 params = {.channels = channels,
                                 .multiplier = random_below(seed, 3) ? multiplier : NULL,
                                 .offset = random_below(seed, 3) ? offset : NULL,
                                 .low = random_below(seed, 2) ? 0.0f : -INFINITY,
                                 .high = random_below(seed, 2) ? 6.0f : INFINITY};
  for (size_t i = 0; i < count; ++i) {
    volatile float x = in[i]; /* each step rounds */
    x = params.multiplier ? params.multiplier[i % channels] * x : x;
    x = params.offset ? x + params.offset[i % channels] : x;
    x = x < params.low ? params.low : x;
    expected[i] = x > params.high ? params.high : x;
  }
  if (random_below(seed, 2)) {
    memcpy(out, in, count * sizeof(float));
    in = out;
  }
  kernels->affine_f32(out, in, pixels, &params);
  compare("affine", kernels, out, expected, count);
  for (int i = 0; i < 5; ++i) {
    guarded_free(&memory[i]);
  }
}

/* ---- Two operands ------------------------------------------------------------------------------------------------ */

static float combined(int kind, float a, float b) {
  volatile float product = a * b;
  switch (kind) {
  case 0:
    return a + b;
  case 1:
    return a - b;
  case 2:
    return product;
  case 3:
    return a > b ? a : b;
  case 4:
    return a < b ? a : b;
  default:
    return a < 0.0f ? product : a;
  }
}

static void check_combine(const lqc_kernels *kernels, uint64_t *seed) {
  static const char *const names[] = {"add", "subtract", "multiply", "maximum", "minimum", "prelu"};
  const lqc_combine_f32 functions[] = {kernels->add_f32,     kernels->subtract_f32, kernels->multiply_f32,
                                       kernels->maximum_f32, kernels->minimum_f32,  kernels->prelu_f32};
  guarded memory[4];
  const int kind = (int)random_below(seed, 6);
  const size_t count = random_below(seed, 300), a_step = random_below(seed, 4) != 0,
               b_step = random_below(seed, 4) != 0;
  const magnitudes size = random_magnitudes(seed);
  const float *a = last_of(&memory[0], a_step ? count : 1, size, seed),
              *b = last_of(&memory[1], b_step ? count : 1, size, seed);
  float *out = last_random(&memory[2], count, seed), *expected = last_random(&memory[3], count, seed);
  for (size_t i = 0; i < count; ++i) {
    expected[i] = combined(kind, a[i * a_step], b[i * b_step]);
  }
  const uint32_t place = random_below(seed, 3);
  if (place == 1 && a_step) {
    memcpy(out, a, count * sizeof(float));
    a = out;
  } else if (place == 2 && b_step) {
    memcpy(out, b, count * sizeof(float));
    b = out;
  }
  functions[kind](out, a, a_step, b, b_step, count);
  compare(names[kind], kernels, out, expected, count);
  for (int i = 0; i < 4; ++i) {
    guarded_free(&memory[i]);
  }
}

/* ---- Pools ------------------------------------------------------------------------------------------------------- */

static void check_pools(const lqc_kernels *kernels, uint64_t *seed) {
  guarded memory[3];
  const uint32_t rows = 1 + random_below(seed, 4), columns = 1 + random_below(seed, 4),
                 width = columns + random_below(seed, 3);
  const size_t count = 1 + random_below(seed, 150);
  const float *in = last_random(&memory[0], (((size_t)rows - 1) * width + columns) * count, seed);
  float *out = last_random(&memory[1], count, seed), *expected = last_random(&memory[2], count, seed);
  const lqc_pool_taps taps = {.input = (const int8_t *)in,
                              .row_stride = width * count * sizeof(float),
                              .column_stride = count * sizeof(float),
                              .rows = rows,
                              .columns = columns};
  for (size_t e = 0; e < count; ++e) {
    expected[e] = in[e];
    for (uint32_t tap = 0; tap < rows * columns; ++tap) {
      float x = in[((size_t)(tap / columns) * width + tap % columns) * count + e];
      expected[e] = x > expected[e] ? x : expected[e];
    }
  }
  kernels->max_f32(out, &taps, count);
  compare("max", kernels, out, expected, count);
  for (size_t e = 0; e < count; ++e) {
    volatile float sum = 0.0f;
    for (uint32_t tap = 0; tap < rows * columns; ++tap) {
      sum += in[((size_t)(tap / columns) * width + tap % columns) * count + e];
    }
    expected[e] = sum / (float)(rows * columns);
  }
  kernels->average_f32(out, &taps, count);
  compare("average", kernels, out, expected, count);
  for (int i = 0; i < 3; ++i) {
    guarded_free(&memory[i]);
  }
}

/* ---- Convolution ------------------------------------------------------------------------------------------------- */

/* Finite, and at times all so small that products and sums are subnormal. */
static float *last_operands(guarded *memory, size_t count, uint64_t *seed) {
  static const float scales[] = {1.0f, 1.0f, 1.0f, 0x1p-50f, 0x1p-64f, 0x1p-100f};
  float *values = last_random(memory, count, seed);
  const float scale = scales[random_below(seed, 6)];
  for (size_t i = 0; i < count; ++i) {
    values[i] = (values[i] - values[i] == 0.0f ? values[i] : 1.0f) * scale;
  }
  return values;
}

static float expected_sum(const lqc_conv_tile *t, size_t pixel, uint32_t channel, int depthwise) {
  volatile float sum = 0.0f, product;
  for (uint32_t i = 0; i < t->rows; ++i) {
    for (uint32_t j = 0; j < t->columns; ++j) {
      const float *x = t->input + i * t->row_stride + j * t->column_stride + pixel * t->pixel_stride;
      const float *w = t->weights + i * t->row_weights + j * t->column_weights + channel;
      for (uint32_t k = 0; k < t->depth; ++k) {
        product = x[depthwise ? channel : k] * w[k * t->weight_stride];
        sum += product;
      }
    }
  }
  float result = sum;
  result = t->bias ? result + t->bias[channel] : result;
  result = result < t->low ? t->low : result;
  return result > t->high ? t->high : result;
}

static void check_convolution(const lqc_kernels *kernels, uint64_t *seed) {
  guarded memory[5];
  const int depthwise = random_below(seed, 3) == 0;
  const uint32_t rows = 1 + random_below(seed, 3), columns = 1 + random_below(seed, 3),
                 channels = 1 + random_below(seed, 40), depth = depthwise ? 1 : 1 + random_below(seed, 9),
                 inputs = depthwise ? channels : depth, stride = 1 + random_below(seed, 2),
                 gap = depthwise ? 0 : random_below(seed, 3);
  const size_t pixels = 1 + random_below(seed, 11), width = columns + (pixels - 1) * stride,
               out_stride = channels + gap, taps = (size_t)rows * columns * depth,
               count = (pixels - 1) * out_stride + channels;
  lqc_conv_tile t = {.input = last_operands(&memory[0], rows * width * inputs, seed),
                     .row_stride = width * inputs,
                     .column_stride = inputs,
                     .pixel_stride = (size_t)stride * inputs,
                     .rows = rows,
                     .columns = columns,
                     .depth = depth,
                     .weights = last_operands(&memory[1], (taps - 1) * out_stride + channels, seed),
                     .row_weights = columns * depth * out_stride,
                     .column_weights = depth * out_stride,
                     .weight_stride = out_stride,
                     .pixels = pixels,
                     .channels = channels,
                     .bias = last_operands(&memory[2], channels, seed),
                     .low = random_below(seed, 2) ? 0.0f : -INFINITY,
                     .high = random_below(seed, 2) ? 6.0f : INFINITY,
                     .out_stride = out_stride};
  float *out = last_random(&memory[3], count, seed), *expected = last_random(&memory[4], count, seed);
  memcpy(out, expected, count * sizeof(float)); /* what lies between pixels stays */
  t.out = out;
  t.bias = random_below(seed, 2) ? t.bias : NULL;
  for (size_t p = 0; p < pixels; ++p) {
    for (uint32_t c = 0; c < channels; ++c) {
      expected[p * out_stride + c] = expected_sum(&t, p, c, depthwise);
    }
  }
  if (depthwise) {
    kernels->depthwise_f32(&t);
  } else {
    kernels->conv_f32(&t);
  }
  compare(depthwise ? "depthwise" : "convolution", kernels, out, expected, count);
  for (int i = 0; i < 5; ++i) {
    guarded_free(&memory[i]);
  }
}

/* ---- Quantize ---------------------------------------------------------------------------------------------------- */

/* Numbers near a tie, near the limits, and of all magnitudes: a product with the scale. */
static float quantized_input(float scale, uint64_t *seed) {
  float near = (float)((int)random_below(seed, 70000) - 35000) / (random_below(seed, 2) ? 2.0f : 256.0f);
  for (uint32_t i = random_below(seed, 3); i > 0; --i) {
    near = nextafterf(near, random_below(seed, 2) ? INFINITY : -INFINITY);
  }
  switch (random_below(seed, 4)) {
  case 0:
    return random_below(seed, 20) ? random_float(seed) * perhaps_tiny_scale(seed) : NAN;
  case 1:
    return nextafterf(random_below(seed, 2) ? 0.5f : -0.5f, (float)((int)random_below(seed, 3) - 1)) / scale;
  default:
    return near / scale; /* exact, or any number */
  }
}

static int32_t expected_of(float x, float scale, int32_t limit) {
  double v = (double)x * (double)scale;
  if (v != v) {
    return limit;
  }
  v = floor(v < -1e5 ? -1e5 : v > 1e5 ? 1e5 : v + 0.5);
  return v > limit ? limit : v < -limit ? -limit : (int32_t)v;
}

static void check_quantize(const lqc_kernels *kernels, uint64_t *seed) {
  guarded memory[4];
  const size_t count = 1 + random_below(seed, 150);
  float *in = last_random(&memory[0], count, seed), *scales = last_random(&memory[1], count, seed);
  memory[2] = guarded_new(count);
  memory[3] = guarded_new(count * sizeof(int16_t));
  int8_t *bytes = guarded_last(&memory[2], count);
  int16_t *halves = guarded_last(&memory[3], count * sizeof(int16_t));
  const uint32_t wide = 1 + random_below(seed, 2), most = random_below(seed, 2) ? 130 : 256; /* exponents of scales */
  for (size_t i = 0; i < count; ++i) {
    int exponent =
        random_below(seed, wide) == 0 ? (int)random_below(seed, 20) - 8 : (int)random_below(seed, most) - (int)most / 2;
    scales[i] = ldexpf(1.0f, exponent);
    in[i] = quantized_input(scales[i], seed);
  }
  kernels->quantize_i8(bytes, in, scales, count);
  kernels->quantize_i16(halves, in, scales, count);
  for (size_t i = 0; i < count; ++i) {
    int32_t byte = expected_of(in[i], scales[i], INT8_MAX), half = expected_of(in[i], scales[i], INT16_MAX);
    if (bytes[i] != byte || halves[i] != half) {
      FAIL("quantize, %s, element %zu of %zu: %a * %a is %d and %d, not %d and %d", lqc_isa_name(kernels->isa), i,
           count, (double)in[i], (double)scales[i], bytes[i], halves[i], byte, half);
    }
  }
  for (int i = 0; i < 4; ++i) {
    guarded_free(&memory[i]);
  }
}

int main(void) {
  lqc_kernels tables[LQC_ISA_COUNT];
  uint64_t seed = 13;
  for (size_t t = 0, count = tables_to_test(tables); t < count; ++t) {
    for (int i = 0; i < 500; ++i) {
      check_affine(&tables[t], &seed);
      check_combine(&tables[t], &seed);
      check_pools(&tables[t], &seed);
      check_convolution(&tables[t], &seed);
      check_quantize(&tables[t], &seed);
    }
  }
  return 0;
}
