/* The ops between the layers of plain models against naive loops. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>

#include "exponential.h"
#include "model_builder.h"

typedef struct shape {
  uint32_t height, width, channels;
} shape;

static size_t count_of(shape s) {
  return (size_t)s.height * s.width * s.channels;
}

/* An element of an image whose axes of 1 are repeated. */
static size_t repeated(shape s, uint32_t y, uint32_t x, uint32_t c) {
  return ((s.height == 1 ? 0 : y) * (size_t)s.width + (s.width == 1 ? 0 : x)) * s.channels + (s.channels == 1 ? 0 : c);
}

static shape random_shape(uint64_t *seed, uint32_t channels) {
  return (shape){1 + random_below(seed, 5), 1 + random_below(seed, 5), 1 + random_below(seed, channels)};
}

static shape with_ones(shape s, uint64_t *seed) {
  return (shape){random_bit(seed) ? 1 : s.height, random_bit(seed) ? 1 : s.width, random_bit(seed) ? 1 : s.channels};
}

static uint32_t longer(uint32_t a, uint32_t b) {
  return a > b ? a : b;
}

static float *random_numbers(size_t count, uint64_t *seed) {
  float *x = malloc(count * sizeof(float));
  for (size_t i = 0; i < count; ++i) {
    x[i] = ((float)random_below(seed, 65) - 32.0f) / 3.0f;
  }
  return x;
}

static void add_image(built_model *m, const char *name, lqc_dtype dtype, shape s) {
  add_tensor(m, name, dtype, s.height, s.width, s.channels);
}

static float combined(lqc_arithmetic kind, float a, float b) {
  switch (kind) {
  case LQC_ADD:
    return a + b;
  case LQC_SUBTRACT:
    return a - b;
  case LQC_MULTIPLY:
    return a * b;
  case LQC_MAXIMUM:
    return fmaxf(a, b);
  default:
    return fminf(a, b);
  }
}

static void test_arithmetic(uint64_t *seed) {
  shape whole = random_shape(seed, 40), a = with_ones(whole, seed), b = with_ones(whole, seed);
  if (random_bit(seed)) {
    a = b = whole;
  }
  shape y = {longer(a.height, b.height), longer(a.width, b.width), longer(a.channels, b.channels)};
  for (int kind = 0; kind < LQC_ARITHMETIC_COUNT; ++kind) {
    built_model m;
    model_start(&m);
    add_image(&m, "a", LQC_FLOAT32, a);
    add_image(&m, "b", LQC_FLOAT32, b);
    add_image(&m, "y", LQC_FLOAT32, y);
    m.inputs[m.input_count++] = 0;
    m.inputs[m.input_count++] = 1;
    m.outputs[m.output_count++] = 2;
    lqc_op op = make_op(LQC_OP_ARITHMETIC, "arithmetic", 0, 2);
    op.inputs[op.input_count++] = 1;
    op.arithmetic = (lqc_arithmetic)kind;
    add_op(&m, op);
    float *of_a = random_numbers(count_of(a), seed), *of_b = random_numbers(count_of(b), seed);
    float *found = run_model(&m, (const void *const[]){of_a, of_b}, 2);
    for (size_t i = 0; i < count_of(y); ++i) {
      uint32_t c = (uint32_t)i % y.channels, pixel = (uint32_t)i / y.channels;
      size_t ia = repeated(a, pixel / y.width, pixel % y.width, c);
      size_t ib = repeated(b, pixel / y.width, pixel % y.width, c);
      float expected = combined(op.arithmetic, of_a[ia], of_b[ib]);
      EXPECT(found[i] == expected, "kind %d element %zu: %g instead of %g", kind, i, (double)found[i],
             (double)expected);
    }
    free(found);
    free(of_a);
    free(of_b);
    model_end(&m);
  }
}

static void test_prelu(uint64_t *seed) {
  shape image = random_shape(seed, 40), slope = random_bit(seed) ? image : with_ones(image, seed);
  const uint32_t axes[] = {slope.height, slope.width, slope.channels};
  built_model m;
  model_start(&m);
  add_image(&m, "x", LQC_FLOAT32, image);
  add_image(&m, "y", LQC_FLOAT32, image);
  m.inputs[m.input_count++] = 0;
  m.outputs[m.output_count++] = 1;
  lqc_op op = make_op(LQC_OP_PRELU, "prelu", 0, 1);
  op.slope = add_random_floats(&m, 3, axes, seed);
  add_op(&m, op);
  const float *slopes = (const float *)(const void *)m.constants[op.slope].data;
  float *x = random_numbers(count_of(image), seed);
  x[0] = -0.0f;
  float *y = run_model(&m, (const void *const[]){x}, 1);
  for (size_t i = 0; i < count_of(image); ++i) {
    uint32_t c = (uint32_t)i % image.channels, pixel = (uint32_t)i / image.channels;
    float expected = x[i] >= 0 ? x[i] : x[i] * slopes[repeated(slope, pixel / image.width, pixel % image.width, c)];
    EXPECT(y[i] == expected, "element %zu: %g instead of %g", i, (double)y[i], (double)expected);
  }
  free(y);
  free(x);
  model_end(&m);
}

static int is_close(float found, double expected) {
  float rounded = (float)expected;
  return found == rounded || found == nextafterf(rounded, found);
}

/* 1 ulp of float32 against the C library in double, as for softmax. */
static void test_functions(uint64_t *seed) {
  for (int i = 0; i < 20000; ++i) {
    float x = ldexpf((float)random_below(seed, 1u << 24) / (float)(1u << 23) - 1.0f, (int)random_below(seed, 40) - 30);
    double sigmoid = 1.0 / (1.0 + exp(-(double)x));
    EXPECT(is_close(lqc_sigmoid(x), sigmoid), "sigmoid(%g) is %.9g instead of %.9g", (double)x, (double)lqc_sigmoid(x),
           sigmoid);
    EXPECT(is_close(lqc_tanh(x), tanh((double)x)), "tanh(%g) is %.9g instead of %.9g", (double)x, (double)lqc_tanh(x),
           tanh((double)x));
  }
  EXPECT(lqc_sigmoid(0) == 0.5f && lqc_sigmoid(-1e9f) == 0 && lqc_sigmoid(1e9f) == 1, "ends of sigmoid");
  EXPECT(lqc_tanh(0) == 0 && lqc_tanh(-1e9f) == -1 && lqc_tanh(1e9f) == 1, "ends of tanh");
  for (int kind = 0; kind < LQC_FUNCTION_COUNT; ++kind) {
    built_model m;
    model_start(&m);
    add_image(&m, "x", LQC_FLOAT32, (shape){2, 3, 5});
    add_image(&m, "y", LQC_FLOAT32, (shape){2, 3, 5});
    m.inputs[m.input_count++] = 0;
    m.outputs[m.output_count++] = 1;
    lqc_op op = make_op(LQC_OP_FUNCTION, "function", 0, 1);
    op.function = (lqc_function)kind;
    add_op(&m, op);
    float *x = random_numbers(30, seed), *y = run_model(&m, (const void *const[]){x}, 1);
    for (int i = 0; i < 30; ++i) {
      EXPECT(y[i] == (kind == LQC_TANH ? lqc_tanh(x[i]) : lqc_sigmoid(x[i])), "kind %d element %d", kind, i);
    }
    free(y);
    free(x);
    model_end(&m);
  }
}

/* One element of any type as a number. */
static float element_at(const void *data, lqc_dtype dtype, shape s, size_t i) {
  const uint64_t *words = data;
  switch (dtype) {
  case LQC_BIT:
    return bit_at(words + i / s.channels * lqc_words(s.channels), (uint32_t)i % s.channels) ? -1.0f : 1.0f;
  case LQC_INT8:
    return ((const int8_t *)data)[i];
  case LQC_INT16:
    return ((const int16_t *)data)[i];
  default:
    return ((const float *)data)[i];
  }
}

static const lqc_dtype moved[] = {LQC_FLOAT32, LQC_INT8, LQC_INT16, LQC_BIT};

/* A random image of any type; floats are finite. */
static int32_t add_random_image(built_model *m, lqc_dtype dtype, shape s, uint64_t *seed) {
  const uint32_t axes[] = {s.height, s.width, s.channels};
  if (dtype == LQC_BIT) {
    return add_random_bits(m, 3, axes, seed);
  }
  if (dtype == LQC_FLOAT32) {
    return add_random_floats(m, 3, axes, seed);
  }
  int32_t image = add_constant(m, dtype, 3, axes, NULL);
  for (size_t i = 0; i < m->constants[image].bytes; ++i) {
    m->constants[image].data[i] = (uint8_t)random_u64(seed);
  }
  return image;
}

/* Bits above the last channel are 0. */
static void check_tail(const void *data, shape s) {
  const uint64_t *words = data;
  for (size_t p = 0; s.channels % 64 != 0 && p < (size_t)s.height * s.width; ++p) {
    EXPECT(words[p * lqc_words(s.channels) + s.channels / 64] >> (s.channels % 64) == 0, "tail of pixel %zu", p);
  }
}

static void test_slice(lqc_dtype dtype, uint64_t *seed) {
  shape in = random_shape(seed, dtype == LQC_BIT ? 150 : 9), out = random_shape(seed, 9);
  built_model m;
  model_start(&m);
  lqc_op op = make_op(LQC_OP_SLICE, "slice", 0, 1);
  op.begin_h = (int32_t)random_below(seed, 9) - 4;
  op.begin_w = (int32_t)random_below(seed, 9) - 4;
  op.begin_c = (int32_t)random_below(seed, 9) - 4;
  op.value = dtype == LQC_BIT ? (random_bit(seed) ? -1.0f : 1.0f) : dtype == LQC_INT8 ? -128.0f : 77.0f;
  if (dtype == LQC_BIT) { /* whole words */
    op.begin_c = (int32_t)(random_below(seed, lqc_words(in.channels)) * 64);
    out.channels = in.channels - (uint32_t)op.begin_c;
    out.channels = out.channels > 64 && random_bit(seed) ? 64 : out.channels;
  }
  add_image(&m, "x", dtype, in);
  add_image(&m, "y", dtype, out);
  m.inputs[m.input_count++] = 0;
  m.outputs[m.output_count++] = 1;
  add_op(&m, op);
  const void *x = m.constants[add_random_image(&m, dtype, in, seed)].data;
  void *y = run_model(&m, &x, 1);
  for (size_t i = 0; i < count_of(out); ++i) {
    int64_t c = (int64_t)(i % out.channels) + op.begin_c, pixel = (int64_t)(i / out.channels);
    int64_t row = pixel / out.width + op.begin_h, column = pixel % out.width + op.begin_w;
    bool inside = c >= 0 && c < in.channels && row >= 0 && row < in.height && column >= 0 && column < in.width;
    size_t from = (size_t)((row * in.width + column) * in.channels + c);
    float expected = inside ? element_at(x, dtype, in, from) : op.value, found = element_at(y, dtype, out, i);
    EXPECT(found == expected, "%s begins %d %d %d element %zu: %g instead of %g", lqc_dtype_name(dtype), op.begin_h,
           op.begin_w, op.begin_c, i, (double)found, (double)expected);
  }
  if (dtype == LQC_BIT) {
    check_tail(y, out);
  }
  free(y);
  model_end(&m);
}

static void test_depth_to_space(lqc_dtype dtype, uint64_t *seed) {
  uint32_t block_h = 1 + random_below(seed, 3), block_w = 1 + random_below(seed, 3);
  shape out = random_shape(seed, 5);
  out.channels *= dtype == LQC_BIT ? 64 : 1;
  shape in = {out.height, out.width, out.channels * block_h * block_w};
  out.height *= block_h;
  out.width *= block_w;
  built_model m;
  model_start(&m);
  add_image(&m, "x", dtype, in);
  add_image(&m, "y", dtype, out);
  m.inputs[m.input_count++] = 0;
  m.outputs[m.output_count++] = 1;
  lqc_op op = make_op(LQC_OP_DEPTH_TO_SPACE, "space", 0, 1);
  op.block_h = block_h;
  op.block_w = block_w;
  add_op(&m, op);
  const void *x = m.constants[add_random_image(&m, dtype, in, seed)].data;
  void *y = run_model(&m, &x, 1);
  for (size_t i = 0; i < count_of(out); ++i) {
    uint32_t c = (uint32_t)i % out.channels, pixel = (uint32_t)i / out.channels;
    uint32_t row = pixel / out.width, column = pixel % out.width;
    uint32_t part = row % block_h * block_w + column % block_w;
    size_t from = ((size_t)row / block_h * in.width + column / block_w) * in.channels + part * out.channels + c;
    EXPECT(element_at(y, dtype, out, i) == element_at(x, dtype, in, from), "%s element %zu", lqc_dtype_name(dtype), i);
  }
  free(y);
  model_end(&m);
}

static int compare_floats(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

/* Levels between sorted thresholds, several of them equal, and their bits. */
static void test_planes(lqc_dtype dtype, uint64_t *seed) {
  shape s = random_shape(seed, 140);
  uint32_t planes = 2 + random_below(seed, 2), levels = 1u << planes;
  const uint32_t axes[] = {levels - 1, s.channels};
  built_model m;
  model_start(&m);
  add_image(&m, "x", dtype, s);
  m.inputs[m.input_count++] = 0;
  lqc_op op = make_op(LQC_OP_BITPACK, "planes", 0, 1);
  for (uint32_t j = 0; j < planes; ++j) {
    add_image(&m, "y", LQC_BIT, s);
    op.outputs[j] = m.outputs[m.output_count++] = 1 + j;
  }
  op.output_count = planes;
  op.thresholds = add_constant(&m, dtype, 2, axes, NULL);
  op.invert = random_bit(seed) ? add_random_bits(&m, 1, &s.channels, seed) : -1;
  uint8_t *data = m.constants[op.thresholds].data;
  float sorted[7];
  for (uint32_t c = 0; c < s.channels; ++c) {
    for (uint32_t i = 0; i + 1 < levels; ++i) {
      sorted[i] = (float)random_below(seed, 40) - 20.0f;
    }
    qsort(sorted, levels - 1, sizeof(float), compare_floats);
    for (uint32_t i = 0; i + 1 < levels; ++i) {
      size_t place = (size_t)i * s.channels + c;
      if (dtype == LQC_FLOAT32) {
        ((float *)(void *)data)[place] = sorted[i];
      } else if (dtype == LQC_INT16) {
        ((int16_t *)(void *)data)[place] = (int16_t)sorted[i];
      } else {
        ((int8_t *)data)[place] = (int8_t)sorted[i];
      }
    }
  }
  add_op(&m, op);
  int32_t image = add_random_image(&m, dtype, s, seed);
  uint8_t *x = m.constants[image].data;
  for (size_t i = 0; i < count_of(s); ++i) { /* near the thresholds */
    int value = (int)random_below(seed, 48) - 24;
    if (dtype == LQC_FLOAT32) {
      ((float *)(void *)x)[i] = (float)value;
    } else if (dtype == LQC_INT16) {
      ((int16_t *)(void *)x)[i] = (int16_t)value;
    } else {
      ((int8_t *)x)[i] = (int8_t)value;
    }
  }
  for (uint32_t j = 0; j < planes; ++j) {
    void *y = run_model(&m, (const void *const[]){x}, 1 + j);
    for (size_t i = 0; i < count_of(s); ++i) {
      uint32_t c = (uint32_t)(i % s.channels), level = 0;
      for (uint32_t t = 0; t + 1 < levels; ++t) {
        float threshold = element_at(data, dtype, (shape){1, levels - 1, s.channels}, (size_t)t * s.channels + c);
        float value = element_at(x, dtype, s, i);
        level += dtype == LQC_FLOAT32 ? value >= threshold : value > threshold;
      }
      bool inverted = op.invert >= 0 && bit_at((const uint64_t *)(const void *)m.constants[op.invert].data, c);
      float expected = (level >> j & 1) != inverted ? 1.0f : -1.0f;
      EXPECT(element_at(y, LQC_BIT, s, i) == expected, "%s plane %u of %u, element %zu, level %u",
             lqc_dtype_name(dtype), j, planes, i, level);
    }
    check_tail(y, s);
    free(y);
  }
  model_end(&m);
}

int main(void) {
  uint64_t seed = 3;
  for (int i = 0; i < 60; ++i) {
    test_arithmetic(&seed);
    test_prelu(&seed);
    test_slice(moved[i % 4], &seed);
    test_depth_to_space(moved[i % 4], &seed);
    test_planes(moved[i % 3], &seed);
  }
  for (int i = 0; i < 200; ++i) {
    test_slice(moved[i % 4], &seed);
  }
  test_functions(&seed);
  return 0;
}
