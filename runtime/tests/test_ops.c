/* The other ops against naive loops. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>

#include "model_builder.h"
#include "exponential.h"

static const float *floats_of(const built_model *m, int32_t constant) {
  return (const float *)(const void *)m->constants[constant].data;
}
static const uint64_t *words_of(const built_model *m, int32_t constant) {
  return (const uint64_t *)(const void *)m->constants[constant].data;
}

/* A model of one op from "x" to "y", run on input `data`; the output is copied. */
static void *run_one(built_model *m, const void *data, size_t out_bytes) {
  m->input_count = m->output_count = 1;
  m->inputs[0] = 0;
  m->outputs[0] = 1;
  size_t bytes = lqc_array_bytes((lqc_dtype)m->tensors[1].dtype, m->tensors[1].shape, m->tensors[1].rank);
  EXPECT(bytes == out_bytes, "%zu and %zu", bytes, out_bytes);
  return run_model(m, &data, 1);
}

static float *random_floats(size_t count, uint64_t *seed) {
  float *x = malloc(count * sizeof(float));
  for (size_t i = 0; i < count; ++i) {
    x[i] = ((float)random_below(seed, 65) - 32.0f) / 8.0f;
  }
  return x;
}

typedef struct image_case {
  uint32_t height, width, channels, out_height, out_width;
  lqc_window window;
} image_case;

/* Windows of which each sees a pixel: the pad is smaller than the kernel, and the output as large as fits. */
static image_case random_image(uint64_t *seed, uint32_t max_channels) {
  image_case c = {.height = 3 + random_below(seed, 5),
                  .width = 3 + random_below(seed, 5),
                  .channels = 1 + random_below(seed, max_channels)};
  lqc_window *w = &c.window;
  *w = (lqc_window){1 + random_below(seed, 3),
                    1 + random_below(seed, 3),
                    1 + random_below(seed, 2),
                    1 + random_below(seed, 2),
                    1,
                    1,
                    0,
                    0};
  w->pad_top = random_below(seed, w->kernel_h);
  w->pad_left = random_below(seed, w->kernel_w);
  c.out_height = (c.height + w->pad_top - 1) / w->stride_h + 1;
  c.out_width = (c.width + w->pad_left - 1) / w->stride_w + 1;
  return c;
}

/* Input element (channel) of a tap, or SIZE_MAX outside. */
static size_t tap_of(const image_case *c, uint32_t place, uint32_t tap) {
  const lqc_window *w = &c->window;
  int64_t y = (int64_t)(place / c->out_width) * w->stride_h - w->pad_top + (int64_t)(tap / w->kernel_w) * w->dilation_h;
  int64_t x =
      (int64_t)(place % c->out_width) * w->stride_w - w->pad_left + (int64_t)(tap % w->kernel_w) * w->dilation_w;
  return y < 0 || y >= c->height || x < 0 || x >= c->width ? SIZE_MAX : (size_t)(y * c->width + x);
}

static void test_float_pools(uint64_t *seed) {
  image_case c = random_image(seed, 20);
  uint32_t taps = c.window.kernel_h * c.window.kernel_w, places = c.out_height * c.out_width;
  float *x = random_floats((size_t)c.height * c.width * c.channels, seed);
  for (int average = 0; average < 2; ++average) {
    built_model m;
    model_start(&m);
    add_tensor(&m, "x", LQC_FLOAT32, c.height, c.width, c.channels);
    add_tensor(&m, "y", LQC_FLOAT32, c.out_height, c.out_width, c.channels);
    lqc_op op = make_op(average ? LQC_OP_AVERAGE_POOL_2D : LQC_OP_MAX_POOL_2D, "pool", 0, 1);
    op.window = c.window;
    add_op(&m, op);
    float *y = run_one(&m, x, (size_t)places * c.channels * 4);
    for (uint32_t i = 0; i < places * c.channels; ++i) {
      float largest = -INFINITY, sum = 0.0f;
      int count = 0;
      for (uint32_t t = 0; t < taps; ++t) {
        size_t pixel = tap_of(&c, i / c.channels, t);
        if (pixel != SIZE_MAX) {
          float value = x[pixel * c.channels + i % c.channels];
          largest = value > largest ? value : largest;
          sum += value; /* multiples of 1/8: exact */
          ++count;
        }
      }
      EXPECT(y[i] == (average ? sum / (float)count : largest), "average %d output %u: %g", average, i, (double)y[i]);
    }
    free(y);
  }
  free(x);
}

static void test_integer_pools(uint64_t *seed) {
  image_case c = random_image(seed, 140);
  uint32_t taps = c.window.kernel_h * c.window.kernel_w, places = c.out_height * c.out_width;
  for (int bits = 0; bits < 2; ++bits) {
    built_model m;
    model_start(&m);
    add_tensor(&m, "x", bits ? LQC_BIT : LQC_INT8, c.height, c.width, c.channels);
    add_tensor(&m, "y", bits ? LQC_BIT : LQC_INT8, c.out_height, c.out_width, c.channels);
    const uint32_t shape[] = {c.height, c.width, c.channels};
    int32_t image = bits ? add_random_bits(&m, 3, shape, seed) : add_constant(&m, LQC_INT8, 3, shape, NULL);
    int8_t *values = (int8_t *)m.constants[image].data;
    for (size_t i = 0; !bits && i < m.constants[image].bytes; ++i) {
      values[i] = (int8_t)(random_u64(seed) >> 56);
    }
    lqc_op op = make_op(bits ? LQC_OP_BIT_MAX_POOL_2D : LQC_OP_MAX_POOL_2D, "pool", 0, 1);
    op.window = c.window;
    op.invert = bits && random_bit(seed) ? add_random_bits(&m, 1, &c.channels, seed) : -1;
    add_op(&m, op);
    uint32_t words = lqc_words(c.channels);
    void *y = run_one(&m, m.constants[image].data, places * (bits ? words * 8 : c.channels));
    for (uint32_t place = 0; place < places; ++place) {
      for (uint32_t channel = 0; channel < c.channels; ++channel) {
        int expected = bits ? 1 : -128, got;
        for (uint32_t t = 0; t < taps; ++t) {
          size_t pixel = tap_of(&c, place, t);
          if (pixel == SIZE_MAX) {
            continue;
          }
          int value =
              bits ? bit_at(words_of(&m, image) + pixel * words, channel) : values[pixel * c.channels + channel];
          expected = bits ? expected & value : value > expected ? value : expected;
        }
        if (bits) {
          expected ^= op.invert >= 0 && bit_at(words_of(&m, op.invert), channel);
          got = bit_at((const uint64_t *)y + (size_t)place * words, channel);
        } else {
          got = ((const int8_t *)y)[(size_t)place * c.channels + channel];
        }
        EXPECT(got == expected, "bits %d pixel %u channel %u: %d", bits, place, channel, got);
      }
    }
    free(y);
    model_end(&m);
  }
}

static lqc_activation random_activation(uint64_t *seed) {
  static const lqc_activation kinds[] = {{-INFINITY, INFINITY}, {0, INFINITY}, {0, 6}, {-INFINITY, 1}, {-1, 1}};
  return kinds[random_below(seed, 5)];
}

static void test_conv(uint64_t *seed) {
  image_case c = random_image(seed, 20);
  c.width += random_bit(seed) ? random_below(seed, 20) : 0; /* more pixels than a kernel takes at once */
  c.out_width = (c.width + c.window.pad_left - 1) / c.window.stride_w + 1;
  uint32_t groups = random_bit(seed) ? 1 : random_bit(seed) ? c.channels : 2;
  c.channels += groups == 2 ? c.channels % 2 : 0;
  uint32_t outs = groups * (1 + random_below(seed, 100 / groups)), taps = c.window.kernel_h * c.window.kernel_w;
  outs = groups == c.channels && random_bit(seed) ? groups : outs; /* depthwise */
  uint32_t places = c.out_height * c.out_width;
  float *x = random_floats((size_t)c.height * c.width * c.channels, seed);
  built_model m;
  model_start(&m);
  add_tensor(&m, "x", LQC_FLOAT32, c.height, c.width, c.channels);
  add_tensor(&m, "y", LQC_FLOAT32, c.out_height, c.out_width, outs);
  uint32_t depth = c.channels / groups;
  const uint32_t shape[] = {c.window.kernel_h, c.window.kernel_w, depth, outs};
  lqc_op op = make_op(LQC_OP_CONV_2D, "conv", 0, 1);
  op.groups = groups;
  op.window = c.window;
  op.weights = add_random_floats(&m, 4, shape, seed);
  op.bias = random_bit(seed) ? add_random_floats(&m, 1, &outs, seed) : -1;
  op.activation = random_activation(seed);
  float *w = (float *)(void *)m.constants[op.weights].data;
  for (size_t i = 0; i < m.constants[op.weights].bytes / 4; ++i) {
    w[i] /= 3.0f; /* sums round: the order matters */
  }
  add_op(&m, op);
  float *y = run_one(&m, x, (size_t)places * outs * 4);
  for (uint32_t i = 0; i < places * outs; ++i) {
    volatile float sum = 0.0f;
    for (uint32_t t = 0; t < taps; ++t) {
      size_t pixel = tap_of(&c, i / outs, t);
      size_t first = i % outs / (outs / groups) * depth;
      for (uint32_t k = 0; pixel != SIZE_MAX && k < depth; ++k) {
        volatile float product = x[pixel * c.channels + first + k] * w[((size_t)t * depth + k) * outs + i % outs];
        sum = sum + product;
      }
    }
    float expected = op.bias >= 0 ? sum + floats_of(&m, op.bias)[i % outs] : sum;
    expected = fminf(fmaxf(expected, op.activation.low), op.activation.high);
    EXPECT(memcmp(&y[i], &expected, 4) == 0 || (y[i] == 0 && expected == 0), "output %u: %g instead of %g", i,
           (double)y[i], (double)expected);
  }
  free(y);
  free(x);
  model_end(&m);
}

static void test_affine(uint64_t *seed) {
  uint32_t channels = 1 + random_below(seed, 8), pixels = 6;
  float *x = random_floats(pixels * channels, seed);
  int8_t q[48];
  for (uint32_t i = 0; i < pixels * channels; ++i) {
    q[i] = (int8_t)(random_u64(seed) >> 56);
  }
  for (int is_int8 = 0; is_int8 < 2; ++is_int8) {
    built_model m;
    model_start(&m);
    add_tensor(&m, "x", is_int8 ? LQC_INT8 : LQC_FLOAT32, 2, 3, channels);
    add_tensor(&m, "y", LQC_FLOAT32, 2, 3, channels);
    if (is_int8) {
      m.tensors[0].fraction_count = random_bit(seed) ? 1 : random_bit(seed) ? channels : 0;
      for (uint32_t c = 0; c < channels; ++c) {
        m.tensors[0].fraction_bits[c] = (int8_t)((int)random_below(seed, 129) - 64);
      }
    }
    lqc_op op = make_op(LQC_OP_AFFINE, "affine", 0, 1);
    op.multiplier = random_bit(seed) ? add_random_floats(&m, 1, &channels, seed) : -1;
    op.offset = random_bit(seed) ? add_random_floats(&m, 1, &channels, seed) : -1;
    op.activation = random_activation(seed);
    add_op(&m, op);
    float *y = run_one(&m, is_int8 ? (const void *)q : x, pixels * channels * 4);
    for (uint32_t i = 0; i < pixels * channels; ++i) {
      uint32_t c = i % channels, fractions = m.tensors[0].fraction_count;
      int f = fractions ? m.tensors[0].fraction_bits[fractions == 1 ? 0 : c] : 0;
      volatile float value = is_int8 ? ldexpf((float)q[i], -f) : x[i];
      value = op.multiplier >= 0 ? floats_of(&m, op.multiplier)[c] * value : value;
      value = op.offset >= 0 ? value + floats_of(&m, op.offset)[c] : value;
      float expected = fminf(fmaxf(value, op.activation.low), op.activation.high);
      EXPECT(y[i] == expected, "int8 %d element %u: %g instead of %g", is_int8, i, (double)y[i], (double)expected);
    }
    free(y);
    model_end(&m);
  }
  free(x);
}

static void test_bitpack_and_unpack(uint64_t *seed) {
  uint32_t channels = 1 + random_below(seed, 140), pixels = 6, words = lqc_words(channels);
  float *x = random_floats(pixels * channels, seed);
  x[0] = -0.0f;
  built_model m;
  model_start(&m);
  add_tensor(&m, "x", LQC_FLOAT32, 2, 3, channels);
  add_tensor(&m, "y", LQC_FLOAT32, 2, 3, channels);
  add_tensor(&m, "bits", LQC_BIT, 2, 3, channels);
  lqc_op op = make_op(LQC_OP_BITPACK, "sign", 0, 2);
  op.thresholds = random_bit(seed) ? add_random_floats(&m, 1, &channels, seed) : -1;
  op.invert = random_bit(seed) ? add_random_bits(&m, 1, &channels, seed) : -1;
  if (op.thresholds >= 0) {
    ((float *)(void *)m.constants[op.thresholds].data)[channels / 2] = random_bit(seed) ? INFINITY : -INFINITY;
  }
  add_op(&m, op);
  add_op(&m, make_op(LQC_OP_UNPACK, "unpack", 2, 1));
  float *y = run_one(&m, x, pixels * channels * 4);
  for (uint32_t i = 0; i < pixels * channels; ++i) {
    uint32_t c = i % channels;
    int positive = x[i] >= (op.thresholds >= 0 ? floats_of(&m, op.thresholds)[c] : 0.0f);
    positive ^= op.invert >= 0 && bit_at(words_of(&m, op.invert), c);
    EXPECT(y[i] == (positive ? 1.0f : -1.0f), "channels %u (%u words) element %u: %g", channels, words, i,
           (double)y[i]);
  }
  free(y);
  free(x);
  model_end(&m);
}

/* 1 ulp of float32 against the C library in double: the shares themselves are right to about 1e-15, so only the last
 * rounding may fall on the other side. */
static void test_softmax(uint64_t *seed) {
  for (double x = 0; x > -710; x -= 0.0917) {
    double expected = x > -700 ? exp(x) : 0;
    EXPECT(fabs(lqc_exp(x) - expected) <= 4e-16 * expected, "exp(%g) is %g instead of %g", x, lqc_exp(x), expected);
  }
  EXPECT(lqc_exp(0) == 1, "exp(0)");
  for (int round = 0; round < 200; ++round) {
    uint32_t channels = 1 + random_below(seed, 20);
    float x[20], y[20], total = 0;
    double sum = 0, largest = -INFINITY;
    for (uint32_t c = 0; c < channels; ++c) {
      x[c] = ((float)random_below(seed, 20001) - 10000.0f) / (round % 2 ? 777.0f : 7.0f);
      largest = x[c] > largest ? x[c] : largest;
    }
    for (uint32_t c = 0; c < channels; ++c) {
      sum += exp(x[c] - largest);
    }
    lqc_softmax(y, x, channels);
    for (uint32_t c = 0; c < channels; ++c) {
      float expected = (float)(exp(x[c] - largest) / sum);
      EXPECT(y[c] == expected || y[c] == nextafterf(expected, y[c]), "channel %u: %.9g instead of %.9g", c,
             (double)y[c], (double)expected);
      total += y[c];
    }
    EXPECT(fabsf(total - 1) < 1e-5f, "sum %g", (double)total);
  }
}

static void test_reshape(uint64_t *seed) {
  for (int shared = 0; shared < 2; ++shared) {
    built_model m;
    model_start(&m);
    add_tensor(&m, "x", LQC_BIT, 2, 3, 128);
    add_tensor(&m, "y", LQC_BIT, 0, 0, 768);
    if (shared) {
      m.tensors[1].offset = m.tensors[0].offset;
    }
    const uint32_t shape[] = {2, 3, 128};
    int32_t image = add_random_bits(&m, 3, shape, seed);
    add_op(&m, make_op(LQC_OP_RESHAPE, "flatten", 0, 1));
    void *y = run_one(&m, m.constants[image].data, 96);
    EXPECT(memcmp(y, m.constants[image].data, 96) == 0, "shared %d", shared);
    free(y);
    model_end(&m);
  }
}

int main(void) {
  uint64_t seed = 5;
  for (int i = 0; i < 60; ++i) {
    test_float_pools(&seed);
    test_integer_pools(&seed);
    test_conv(&seed);
    test_affine(&seed);
    test_bitpack_and_unpack(&seed);
  }
  test_softmax(&seed);
  test_reshape(&seed);
  return 0;
}
