/* Quantize, Concatenate, and pools, signs and shapes of integers, against naive loops. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>

#include "fixed_point_testing.h"
#include "guarded_ops.h"

static const uint32_t channel_counts[] = {1, 3, 8, 31, 64, 65, 100};

static uint32_t some_channels(uint64_t *seed) {
  return channel_counts[random_below(seed, 7)];
}

/* Adds the model's op, opens a session on some threads and fills its integer inputs. */
static test_session open_op(built_model *m, lqc_op op, uint64_t *seed) {
  uint32_t threads = 1 + random_below(seed, 3);
  lqc_options options = {.threads = threads <= lqc_pool_max_threads() ? threads : 1};
  add_op(m, op);
  test_session s = open_session(m, &options);
  check_guarded_ops(&s.model, 5);
  fill_inputs(m, &s, seed);
  return s;
}

static const void *run_op(test_session *s) {
  lqc_error error;
  EXPECT(lqc_session_run(s->session, &error) == LQC_OK, "%s", error.message);
  return lqc_session_output(s->session, 0);
}

static uint32_t add_output(built_model *m, lqc_op *op, lqc_dtype dtype, uint32_t height, uint32_t width,
                           uint32_t channels) {
  op->outputs[0] = add_tensor(m, "out", dtype, height, width, channels);
  m->outputs[m->output_count++] = op->outputs[0];
  return op->outputs[0];
}

static double value_at(lqc_dtype dtype, const void *data, size_t i) {
  return dtype == LQC_INT8    ? ((const int8_t *)data)[i]
         : dtype == LQC_INT16 ? ((const int16_t *)data)[i]
                              : (double)((const float *)data)[i];
}

/* Gives a tensor no, one, or one for each channel, fraction bits of lowest .. lowest + count - 1. */
static void set_fractions(built_model *m, uint32_t tensor, uint32_t channels, int lowest, uint32_t count,
                          uint64_t *seed) {
  m->tensors[tensor].fraction_count = random_below(seed, 4) ? channels : random_below(seed, 2);
  for (uint32_t c = 0; c < channels; ++c) {
    m->tensors[tensor].fraction_bits[c] = (int8_t)(lowest + (int)random_below(seed, count));
  }
}

static int fraction_at(const built_model *m, uint32_t tensor, uint32_t c) {
  uint32_t count = m->tensors[tensor].fraction_count;
  return count == 0 ? 0 : m->tensors[tensor].fraction_bits[count == 1 ? 0 : c];
}

/* ---- Quantize ---------------------------------------------------------------------------------------------------- */

static float float_of(uint32_t raw) {
  float x;
  memcpy(&x, &raw, sizeof(x));
  return x;
}

static void test_quantize(uint64_t *seed) {
  uint32_t channels = some_channels(seed), pixels = 12;
  lqc_dtype dtype = random_bit(seed) ? LQC_INT8 : LQC_INT16;
  int32_t limit = dtype == LQC_INT8 ? 127 : 32767;
  built_model m;
  model_start(&m);
  lqc_op op = make_op(LQC_OP_QUANTIZE, "quantize", 0, 0);
  op.inputs[0] = add_input(&m, LQC_FLOAT32, 3, 4, channels);
  uint32_t out = add_output(&m, &op, dtype, 3, 4, channels);
  int far = random_bit(seed);
  set_fractions(&m, out, channels, far ? -128 : -3, far ? 256 : 16, seed);
  test_session s = open_op(&m, op, seed);
  float *x = lqc_session_input(s.session, 0);
  for (uint32_t i = 0; i < pixels * channels; ++i) {
    int f = fraction_at(&m, out, i % channels);
    /* Ties and their neighbours, numbers near both ends, and any finite number at all. */
    float tie = (float)ldexp((double)random_below(seed, 2 * (uint32_t)limit + 8) - limit - 3.5, -f);
    tie = isfinite(tie) ? tie : 0.0f;
    uint32_t raw = (uint32_t)random_u64(seed);
    float any = float_of((raw & 0x7f800000u) == 0x7f800000u ? raw & 0xbfffffffu : raw);
    switch (random_below(seed, 5)) {
    case 0:
      x[i] = tie;
      break;
    case 1:
      x[i] = nextafterf(tie, -INFINITY);
      break;
    case 2:
      x[i] = nextafterf(tie, INFINITY);
      break;
    case 3:
      x[i] = random_bit(seed) ? float_of(raw & 0x80000001u) : 0.5f * tie;
      break;
    default:
      x[i] = any;
      break;
    }
    x[i] = isfinite(x[i]) ? x[i] : 0.0f;
  }
  const void *y = run_op(&s);
  for (uint32_t i = 0; i < pixels * channels; ++i) {
    double scaled = ldexp((double)x[i], fraction_at(&m, out, i % channels)), expected = floor(scaled);
    expected += scaled - expected >= 0.5; /* no sum that could round */
    expected = expected > limit ? limit : expected < -limit ? -limit : expected;
    EXPECT(value_at(dtype, y, i) == expected, "%a with %d fraction bits: %g, not %g", (double)x[i],
           fraction_at(&m, out, i % channels), value_at(dtype, y, i), expected);
  }
  close_session(&s);
  model_end(&m);
}

/* ---- Concatenate ------------------------------------------------------------------------------------------------- */

static void test_concatenate(uint64_t *seed) {
  static const lqc_dtype dtypes[] = {LQC_BIT, LQC_INT8, LQC_INT16, LQC_FLOAT32};
  lqc_dtype dtype = dtypes[random_below(seed, 4)];
  uint32_t count = 1 + random_below(seed, 4), channels = 0;
  int32_t fractions = (int32_t)random_below(seed, 9) - 4;
  built_model m;
  model_start(&m);
  lqc_op op = make_op(LQC_OP_CONCATENATE, "join", 0, 0);
  op.input_count = count;
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t own = random_below(seed, 3) ? some_channels(seed) : 64 * (1 + random_below(seed, 2));
    op.inputs[i] = add_input(&m, dtype == LQC_INT16 && random_bit(seed) ? LQC_INT8 : dtype, 2, 3, own);
    if (dtype == LQC_INT8 || dtype == LQC_INT16) {
      m.tensors[op.inputs[i]].fraction_count = 1;
      m.tensors[op.inputs[i]].fraction_bits[0] = (int8_t)(fractions + (int)i);
    }
    channels += own;
  }
  uint32_t out = add_output(&m, &op, dtype, 2, 3, channels);
  if (dtype == LQC_INT8 || dtype == LQC_INT16) {
    m.tensors[out].fraction_count = channels;
    for (uint32_t i = 0, c = 0; i < count; ++i) {
      for (uint32_t end = c + m.tensors[op.inputs[i]].shape[2]; c < end; ++c) {
        m.tensors[out].fraction_bits[c] = (int8_t)(fractions + (int)i);
      }
    }
  }
  test_session s = open_op(&m, op, seed);
  for (uint32_t i = 0; dtype == LQC_FLOAT32 && i < count; ++i) {
    float *x = lqc_session_input(s.session, i);
    for (uint32_t e = 0; e < 6 * m.tensors[op.inputs[i]].shape[2]; ++e) {
      x[e] = (float)random_below(seed, 1000);
    }
  }
  const void *y = run_op(&s);
  for (uint32_t pixel = 0; pixel < 6; ++pixel) {
    for (uint32_t i = 0, c = 0; i < count; ++i) {
      uint32_t own = m.tensors[op.inputs[i]].shape[2];
      const void *x = lqc_session_input(s.session, i);
      for (uint32_t k = 0; k < own; ++k, ++c) {
        if (dtype == LQC_BIT) {
          int given = bit_at((const uint64_t *)x + pixel * lqc_words(own), k);
          EXPECT(bit_at((const uint64_t *)y + pixel * lqc_words(channels), c) == given, "part %u of %u, %u channels", i,
                 count, own);
        } else {
          double given = value_at((lqc_dtype)m.tensors[op.inputs[i]].dtype, x, pixel * own + k);
          EXPECT(value_at(dtype, y, pixel * channels + c) == given, "part %u of %u, %u channels", i, count, own);
        }
      }
    }
  }
  check_tails(&m, &op, &s);
  close_session(&s);
  model_end(&m);
}

/* ---- Pools ------------------------------------------------------------------------------------------------------- */

/* floor(2^shift * sum / count + 1/2), clipped. |sum| <= 2^15 * count and count <= 2^16: shifts beyond +-31 saturate or
 * give 0 as those do, and nothing leaves 64 bits. */
static double exact_mean(int64_t sum, int64_t count, int shift, int32_t limit) {
  shift = shift > 31 ? 31 : shift < -31 ? -31 : shift;
  int64_t up = (int64_t)1 << (shift > 0 ? shift : 0), down = (int64_t)1 << (shift < 0 ? -shift : 0);
  int64_t numerator = 2 * sum * up + count * down, denominator = 2 * count * down;
  int64_t q = numerator / denominator;
  q -= q * denominator > numerator;
  return q > limit ? limit : q < -limit ? -limit : (double)q;
}

static void test_pools(uint64_t *seed) {
  uint32_t height = 2 + random_below(seed, 6), width = 2 + random_below(seed, 6), channels = some_channels(seed);
  lqc_window w = {1 + random_below(seed, 4),
                  1 + random_below(seed, 4),
                  1 + random_below(seed, 2),
                  1 + random_below(seed, 2),
                  1 + random_below(seed, 2),
                  1,
                  0,
                  0};
  w.pad_top = w.dilation_h == 1 ? random_below(seed, w.kernel_h) : 0;
  w.pad_left = random_below(seed, w.kernel_w);
  uint32_t out_height = (height + w.pad_top - 1) / w.stride_h + 1,
           out_width = (width + w.pad_left - 1) / w.stride_w + 1;
  bool average = random_bit(seed);
  lqc_dtype from = average && random_bit(seed) ? LQC_INT8 : LQC_INT16;
  lqc_dtype to = !average || random_bit(seed) ? LQC_INT16 : LQC_INT8;
  built_model m;
  model_start(&m);
  lqc_op op = make_op(average ? LQC_OP_AVERAGE_POOL_2D : LQC_OP_MAX_POOL_2D, "pool", 0, 0);
  op.window = w;
  op.inputs[0] = add_input(&m, from, height, width, channels);
  uint32_t out = add_output(&m, &op, to, out_height, out_width, channels);
  int far = random_bit(seed);
  set_fractions(&m, out, channels, far ? -128 : -2, far ? 256 : 6, seed);
  if (average) {
    set_fractions(&m, op.inputs[0], channels, far ? -128 : -2, far ? 256 : 6, seed);
  } else {
    m.tensors[op.inputs[0]].fraction_count = m.tensors[out].fraction_count;
    memcpy(m.tensors[op.inputs[0]].fraction_bits, m.tensors[out].fraction_bits, channels);
  }
  test_session s = open_op(&m, op, seed);
  const void *y = run_op(&s);
  for (uint32_t i = 0; i < out_height * out_width * channels; ++i) {
    uint32_t c = i % channels, row = i / channels / out_width, column = i / channels % out_width;
    int64_t sum = 0, count = 0, largest = INT64_MIN;
    for (uint32_t t = 0; t < w.kernel_h * w.kernel_w; ++t) {
      int64_t at_y = (int64_t)row * w.stride_h - w.pad_top + (int64_t)(t / w.kernel_w) * w.dilation_h;
      int64_t at_x = (int64_t)column * w.stride_w - w.pad_left + t % w.kernel_w;
      if (at_y < 0 || at_y >= height || at_x < 0 || at_x >= width) {
        continue;
      }
      int32_t value = integer_at(&m, &s, op.inputs[0], (size_t)(at_y * width + at_x) * channels + c);
      sum += value;
      ++count;
      largest = value > largest ? value : largest;
    }
    int shift = fraction_at(&m, out, c) - fraction_at(&m, op.inputs[0], c);
    double expected = average ? exact_mean(sum, count, shift, to == LQC_INT8 ? 127 : 32767) : (double)largest;
    EXPECT(value_at(to, y, i) == expected, "average %d, sum %lld of %lld, shift %d: %g, not %g", average,
           (long long)sum, (long long)count, shift, value_at(to, y, i), expected);
  }
  close_session(&s);
  model_end(&m);
}

/* The largest window, 65536 pixels: all of them at an end, or all but one 0. */
static void test_largest_average(void) {
  static const int16_t values[] = {INT16_MIN, INT16_MAX, -1, 1};
  for (int v = 0; v < 4; ++v) {
    for (int shift = -17; shift <= 127; shift += shift < 34 ? 1 : 31) {
      built_model m;
      model_start(&m);
      lqc_op op = make_op(LQC_OP_AVERAGE_POOL_2D, "mean", 0, 0);
      op.window.kernel_h = op.window.kernel_w = 256;
      op.inputs[0] = add_input(&m, LQC_INT16, 256, 256, 1);
      uint32_t out = add_output(&m, &op, LQC_INT16, 1, 1, 1);
      m.tensors[out].fraction_count = 1;
      m.tensors[out].fraction_bits[0] = (int8_t)shift;
      add_op(&m, op);
      test_session s = open_session(&m, NULL);
      int16_t *x = lqc_session_input(s.session, 0);
      for (int i = 0; i < 65536; ++i) {
        x[i] = v < 2 || i == 65535 ? values[v] : 0;
      }
      int16_t got = *(const int16_t *)run_op(&s);
      double expected = exact_mean((v < 2 ? 65536 : 1) * (int64_t)values[v], 65536, shift, 32767);
      EXPECT(got == expected, "%d, shift %d: %d, not %g", values[v], shift, got, expected);
      close_session(&s);
      model_end(&m);
    }
  }
}

/* ---- Signs and shapes -------------------------------------------------------------------------------------------- */

static void test_bitpack_int16(uint64_t *seed) {
  uint32_t channels = some_channels(seed);
  built_model m;
  model_start(&m);
  lqc_op op = make_op(LQC_OP_BITPACK, "sign", 0, 0);
  op.inputs[0] = add_input(&m, LQC_INT16, 2, 3, channels);
  add_output(&m, &op, LQC_BIT, 2, 3, channels);
  int16_t thresholds[128];
  for (uint32_t c = 0; c < channels; ++c) {
    thresholds[c] = (int16_t)(random_below(seed, 4) ? random_u64(seed) : random_bit(seed) ? 32767u : 32768u);
  }
  op.thresholds = random_bit(seed) ? add_constant(&m, LQC_INT16, 1, &channels, thresholds) : -1;
  op.invert = random_bit(seed) ? add_random_bits(&m, 1, &channels, seed) : -1;
  test_session s = open_op(&m, op, seed);
  const uint64_t *y = run_op(&s);
  for (uint32_t i = 0; i < 6 * channels; ++i) {
    uint32_t c = i % channels;
    int plus = integer_at(&m, &s, op.inputs[0], i) > (op.thresholds >= 0 ? thresholds[c] : -1);
    plus ^= op.invert >= 0 && bit_at((const uint64_t *)(const void *)m.constants[op.invert].data, c);
    EXPECT(bit_at(y + i / channels * lqc_words(channels), c) == !plus, "element %u of %u channels", i, channels);
  }
  check_tails(&m, &op, &s);
  close_session(&s);
  model_end(&m);
}

static void test_reshape_int16(uint64_t *seed) {
  built_model m;
  model_start(&m);
  lqc_op op = make_op(LQC_OP_RESHAPE, "flatten", 0, 0);
  op.inputs[0] = add_input(&m, LQC_INT16, 2, 3, 5);
  add_output(&m, &op, LQC_INT16, 0, 0, 30);
  test_session s = open_op(&m, op, seed);
  const int16_t *y = run_op(&s);
  EXPECT(memcmp(y, lqc_session_input(s.session, 0), 60) == 0, "elements");
  close_session(&s);
  model_end(&m);
}

int main(void) {
  uint64_t seed = 29;
  for (int i = 0; i < 150; ++i) {
    test_quantize(&seed);
    test_concatenate(&seed);
    test_pools(&seed);
    test_bitpack_int16(&seed);
  }
  test_reshape_int16(&seed);
  test_largest_average();
  return 0;
}
