/* BinaryConv2D against a naive convolution of signs, on every instruction set and with several threads; and the
 * thresholds' limits, exhaustively. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>

#include "bconv2d.h"
#include "guarded_ops.h"

/* ---- Limits --------------------------------------------------------------------------------------------------- */

/* v of a, in floating point: every number here is exact. */
static double value_of(int32_t a, uint32_t clip_limit, int step_log2) {
  if (clip_limit == 0) {
    return a;
  }
  double v = floor(ldexp((double)a, -step_log2) + 0.5);
  return v > clip_limit ? clip_limit : v < -(double)clip_limit ? -(double)clip_limit : v;
}

static void check_limits(uint32_t k, uint32_t clip_limit, int step_log2, int32_t threshold) {
  uint32_t narrow = lqc_threshold_limit(threshold, k, clip_limit, step_log2, UINT16_MAX);
  uint32_t wide = lqc_threshold_limit(threshold, k, clip_limit, step_log2, UINT32_MAX);
  for (uint32_t missing = 0; missing <= k; missing += 1 + k / 3) {
    for (uint32_t p = 0; p <= k - missing; ++p) {
      int32_t a = (int32_t)(k - missing) - 2 * (int32_t)p;
      int expected = !(value_of(a, clip_limit, step_log2) > threshold);
      EXPECT((2 * p + missing >= narrow) == expected && (2 * p + missing >= wide) == expected,
             "K %u missing %u p %u clip %u step 2^%d threshold %d: limits %u and %u", k, missing, p, clip_limit,
             step_log2, threshold, narrow, wide);
    }
  }
}

static void test_limits(void) {
  static const uint32_t ks[] = {1, 2, 9, 64, 101}, clips[] = {0, 1, 7, 127, 32767, INT32_MAX};
  static const int32_t extremes[] = {INT32_MIN, INT32_MIN + 1, -32769, -32768, 32767, 32768, INT32_MAX - 1, INT32_MAX};
  for (size_t i = 0; i < sizeof(ks) / sizeof(ks[0]); ++i) {
    for (size_t j = 0; j < sizeof(clips) / sizeof(clips[0]); ++j) {
      for (int step = clips[j] ? -6 : 0; step <= (clips[j] ? 14 : 0); ++step) {
        for (int32_t threshold = -140; threshold <= 140; ++threshold) {
          check_limits(ks[i], clips[j], step, threshold);
        }
        for (size_t e = 0; e < sizeof(extremes) / sizeof(extremes[0]); ++e) {
          check_limits(ks[i], clips[j], step, extremes[e]);
        }
      }
    }
  }
  for (int32_t threshold = -32770; threshold <= 32770; threshold += 4681) { /* 2p fills 16 bits */
    check_limits(LQC_BCONV_MAX_K, 0, 0, threshold);
    check_limits(LQC_BCONV_MAX_K, 127, 8, threshold / 256);
  }
}

static void test_copy_bits(void) {
  uint64_t seed = 3;
  for (int round = 0; round < 2000; ++round) {
    uint32_t first = random_below(&seed, 200), count = 1 + random_below(&seed, 200);
    uint32_t words = lqc_words(first + count);
    uint64_t *in = malloc(words * 8), out[8]; /* exact: a read beyond is found by the sanitizer */
    for (uint32_t i = 0; i < words; ++i) {
      in[i] = random_u64(&seed);
    }
    lqc_copy_bits(out, in, first, count);
    for (uint32_t c = 0; c < lqc_words(count) * 64; ++c) {
      EXPECT(bit_at(out, c) == (c < count ? bit_at(in, first + c) : 0), "first %u count %u bit %u", first, count, c);
    }
    free(in);
  }
}

/* ---- Convolutions --------------------------------------------------------------------------------------------- */

typedef struct conv_case {
  uint32_t height, width, in_channels, out_channels, groups;
  lqc_window window;
  uint32_t out_height, out_width;
  int8_t pad_value;
  lqc_epilogue epilogue;
  uint32_t clip_limit;
  int8_t step_log2;
  lqc_dtype threshold_dtype;
  int inverts;
} conv_case;

#define CASE_FORMAT \
  "%ux%ux%u -> %ux%ux%u groups %u kernel %ux%u stride %u,%u dilation %u,%u pad %u,%u of %d epilogue %d clip %u 2^%d"
#define CASE_VALUES(c)                                                                                                \
  (c)->height, (c)->width, (c)->in_channels, (c)->out_height, (c)->out_width, (c)->out_channels, (c)->groups,         \
      (c)->window.kernel_h, (c)->window.kernel_w, (c)->window.stride_h, (c)->window.stride_w, (c)->window.dilation_h, \
      (c)->window.dilation_w, (c)->window.pad_top, (c)->window.pad_left, (c)->pad_value, (int)(c)->epilogue,          \
      (c)->clip_limit, (c)->step_log2

/* The model of a case: input "x", output "y". Its op is the last one added. */
static void describe(const conv_case *c, built_model *m, uint64_t *seed) {
  static const lqc_dtype outputs[] = {LQC_BIT, LQC_INT8, LQC_FLOAT32};
  const uint32_t shape[] = {c->out_channels, c->window.kernel_h, c->window.kernel_w, c->in_channels / c->groups};
  model_start(m);
  m->inputs[m->input_count++] = add_tensor(m, "x", LQC_BIT, c->height, c->width, c->in_channels);
  m->outputs[m->output_count++] =
      add_tensor(m, "y", outputs[c->epilogue], c->out_height, c->out_width, c->out_channels);
  if (c->epilogue == LQC_CLIP) {
    m->tensors[1].fraction_count = 1;
    m->tensors[1].fraction_bits[0] = (int8_t)-c->step_log2;
  }
  lqc_op op = make_op(LQC_OP_BINARY_CONV_2D, "conv", 0, 1);
  op.window = c->window;
  op.groups = c->groups;
  op.pad_value = c->pad_value;
  op.epilogue = c->epilogue;
  op.clip_limit = c->clip_limit;
  op.step_log2 = c->step_log2;
  op.weights = add_random_bits(m, 4, shape, seed);
  if (c->epilogue == LQC_THRESHOLD) {
    op.thresholds = add_constant(m, c->threshold_dtype, 1, &c->out_channels, NULL);
    for (uint32_t i = 0; i < c->out_channels; ++i) {
      int32_t value = (int32_t)random_below(seed, 41) - 20;
      uint8_t *place = m->constants[op.thresholds].data;
      if (c->threshold_dtype == LQC_INT8) {
        ((int8_t *)place)[i] = (int8_t)(random_below(seed, 8) ? value : random_bit(seed) ? 127 : -128);
      } else if (c->threshold_dtype == LQC_INT16) {
        ((int16_t *)(void *)place)[i] = (int16_t)value;
      } else {
        ((int32_t *)(void *)place)[i] = value;
      }
    }
    op.invert = c->inverts ? add_random_bits(m, 1, &c->out_channels, seed) : -1;
  } else if (c->epilogue == LQC_AFFINE) {
    op.multiplier = add_random_floats(m, 1, &c->out_channels, seed);
    op.offset = add_random_floats(m, 1, &c->out_channels, seed);
  }
  add_op(m, op);
}

static int32_t sign_of(const uint64_t *words, uint32_t c) {
  return 1 - 2 * bit_at(words, c);
}

/* The accumulator of one output, from the signs themselves. */
static int32_t naive(const conv_case *c, const built_model *m, const uint64_t *x, uint32_t row, uint32_t column,
                     uint32_t channel) {
  const lqc_window *w = &c->window;
  const uint64_t *weights = (const uint64_t *)(const void *)m->constants[m->ops[0].op.weights].data;
  uint32_t inputs = c->in_channels / c->groups, group = channel / (c->out_channels / c->groups);
  int32_t sum = 0;
  for (uint32_t i = 0; i < w->kernel_h; ++i) {
    for (uint32_t j = 0; j < w->kernel_w; ++j) {
      int64_t at_y = (int64_t)row * w->stride_h + (int64_t)i * w->dilation_h - w->pad_top;
      int64_t at_x = (int64_t)column * w->stride_w + (int64_t)j * w->dilation_w - w->pad_left;
      int inside = at_y >= 0 && at_y < c->height && at_x >= 0 && at_x < c->width;
      const uint64_t *filter = weights + (((size_t)channel * w->kernel_h + i) * w->kernel_w + j) * lqc_words(inputs);
      const uint64_t *pixel = inside ? x + (size_t)(at_y * c->width + at_x) * lqc_words(c->in_channels) : NULL;
      for (uint32_t k = 0; k < inputs; ++k) {
        sum += (inside ? sign_of(pixel, group * inputs + k) : c->pad_value) * sign_of(filter, k);
      }
    }
  }
  return sum;
}

static int32_t threshold_at(const built_model *m, uint32_t channel) {
  int32_t constant = m->ops[0].op.thresholds;
  const void *data = m->constants[constant].data;
  return m->constants[constant].dtype == LQC_INT8    ? ((const int8_t *)data)[channel]
         : m->constants[constant].dtype == LQC_INT16 ? ((const int16_t *)data)[channel]
                                                     : ((const int32_t *)data)[channel];
}

static void check_output(const conv_case *c, const built_model *m, const uint64_t *x, const void *y, const char *isa) {
  const lqc_op *op = &m->ops[0].op;
  for (uint32_t place = 0; place < c->out_height * c->out_width; ++place) {
    for (uint32_t channel = 0; channel < c->out_channels; ++channel) {
      int32_t a = naive(c, m, x, place / c->out_width, place % c->out_width, channel);
      double v = value_of(a, c->clip_limit, c->step_log2);
      int good;
      if (c->epilogue == LQC_THRESHOLD) {
        const uint64_t *words = (const uint64_t *)y + (size_t)place * lqc_words(c->out_channels);
        int inverted =
            op->invert >= 0 && bit_at((const uint64_t *)(const void *)m->constants[op->invert].data, channel);
        good = bit_at(words, channel) == (!(v > threshold_at(m, channel)) ^ inverted);
        if (c->out_channels % 64) {
          good = good && words[c->out_channels / 64] >> (c->out_channels % 64) == 0;
        }
      } else if (c->epilogue == LQC_CLIP) {
        good = ((const int8_t *)y)[(size_t)place * c->out_channels + channel] == v;
      } else {
        const float *multiplier = (const float *)(const void *)m->constants[op->multiplier].data;
        const float *offset = (const float *)(const void *)m->constants[op->offset].data;
        volatile float product = multiplier[channel] * (float)ldexp(v, c->step_log2);
        good = ((const float *)y)[(size_t)place * c->out_channels + channel] == product + offset[channel];
      }
      EXPECT(good, CASE_FORMAT ", %s: pixel %u channel %u, a = %d", CASE_VALUES(c), isa, place, channel, a);
    }
  }
}

static void check_case(const conv_case *c, uint64_t *seed) {
  built_model m;
  describe(c, &m, seed);
  const uint32_t shape[] = {c->height, c->width, c->in_channels};
  int32_t image = add_random_bits(&m, 3, shape, seed); /* a constant that no op uses */
  for (int isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
    if (!lqc_isa_available((lqc_isa)isa)) {
      continue;
    }
    lqc_options options = {.threads = 1 + random_below(seed, 3), .isa = (lqc_isa)isa};
    if (options.threads > lqc_pool_max_threads()) {
      options.threads = 1;
    }
    test_session s = open_session(&m, &options);
    lqc_error error;
    if (isa == LQC_ISA_SCALAR) {
      check_guarded_ops(&s.model, 5);
    }
    for (int run = 0; run < 2; ++run) {
      memcpy(lqc_session_input(s.session, 0), m.constants[image].data, m.constants[image].bytes);
      EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
      check_output(c, &m, (const uint64_t *)(const void *)m.constants[image].data, lqc_session_output(s.session, 0),
                   lqc_isa_name((lqc_isa)isa));
    }
    close_session(&s);
  }
  model_end(&m);
}

static conv_case random_case(uint64_t *seed) {
  static const uint32_t channels[] = {1, 3, 31, 64, 65, 100, 128, 192};
  static const lqc_dtype thresholds[] = {LQC_INT8, LQC_INT16, LQC_INT32};
  conv_case c = {.height = 1 + random_below(seed, 7), .width = 1 + random_below(seed, 7), .groups = 1};
  if (random_below(seed, 3) == 0) {
    c.groups = 2 + random_below(seed, 3);
    c.in_channels = c.groups * (random_bit(seed) ? 64 : 1 + random_below(seed, 70));
    c.out_channels = c.groups * (random_bit(seed) ? 64 : 1 + random_below(seed, 40));
  } else {
    c.in_channels = channels[random_below(seed, 8)];
    c.out_channels = channels[random_below(seed, 8)];
  }
  c.window = (lqc_window){1 + random_below(seed, 4), 1 + random_below(seed, 4), 1 + random_below(seed, 2),
                          1 + random_below(seed, 3), 1 + random_below(seed, 2), 1 + random_below(seed, 2),
                          random_below(seed, 4),     random_below(seed, 4)};
  c.out_height = 1 + random_below(seed, 6); /* some windows lie outside: regions without runs */
  c.out_width = 1 + random_below(seed, 6);
  c.pad_value = (int8_t)((int)random_below(seed, 3) - 1);
  c.epilogue = (lqc_epilogue)random_below(seed, 3);
  c.threshold_dtype = thresholds[random_below(seed, 3)];
  c.inverts = random_bit(seed);
  if (c.epilogue == LQC_CLIP || random_bit(seed)) {
    c.clip_limit = random_bit(seed) ? 127 : 7;
    c.step_log2 = (int8_t)((int)random_below(seed, 6) - 2);
  }
  return c;
}

/* Accumulators and thresholds at both ends, +-K, on both sides of the largest K of the 16-bit kernels. The middle pixel
 * is inside, the others are padding. */
static void test_largest_k(uint64_t *seed) {
  for (uint32_t k = LQC_BCONV_MAX_K; k <= LQC_BCONV_MAX_K + 1; ++k) {
    for (int turn = 0; turn < 9; ++turn) {
      conv_case c = {.height = 1,
                     .width = 1,
                     .in_channels = k,
                     .out_channels = 4,
                     .groups = 1,
                     .window = {1, 1, 1, 1, 1, 1, 1, 1},
                     .out_height = 3,
                     .out_width = 3,
                     .pad_value = (int8_t)(turn / 3 - 1),
                     .epilogue = (lqc_epilogue)(turn % 3),
                     .clip_limit = turn % 3 == LQC_CLIP ? 127 : 0,
                     .step_log2 = turn % 3 == LQC_CLIP ? 8 : 0,
                     .threshold_dtype = LQC_INT32};
      built_model m;
      lqc_error error;
      lqc_op_info info;
      describe(&c, &m, seed);
      size_t words = lqc_words(k);
      uint64_t *filters = (uint64_t *)(void *)m.constants[m.ops[0].op.weights].data;
      uint64_t *x = calloc(words, 8); /* +1 in all channels; filters 0 and 3 too, 1 and 2 hold -1 */
      memset(filters, 0, 4 * words * 8);
      for (uint32_t i = 0; i < k; ++i) {
        filters[words + i / 64] |= (uint64_t)1 << (i % 64);
        filters[2 * words + i / 64] |= (uint64_t)1 << (i % 64);
      }
      if (c.epilogue == LQC_THRESHOLD) { /* a > T: just, just, just not, just not */
        const int32_t n = (int32_t)k, thresholds[] = {n - 1, -n - 1, -n, n};
        memcpy(m.constants[m.ops[0].op.thresholds].data, thresholds, sizeof(thresholds));
      }
      for (int isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
        if (!lqc_isa_available((lqc_isa)isa)) {
          continue;
        }
        lqc_options options = {.threads = lqc_pool_max_threads() < 3 ? 1 : 3, .isa = (lqc_isa)isa};
        test_session s = open_session(&m, &options);
        memcpy(lqc_session_input(s.session, 0), x, words * 8);
        EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
        check_output(&c, &m, x, lqc_session_output(s.session, 0), lqc_isa_name((lqc_isa)isa));
        EXPECT(lqc_session_op_info(s.session, 0, &info) == LQC_OK, "op");
        EXPECT((strstr(info.kernel, "wide") != NULL) == (k > LQC_BCONV_MAX_K), "K %u runs on %s", k, info.kernel);
        close_session(&s);
      }
      free(x);
      model_end(&m);
    }
  }
}

int main(void) {
  uint64_t seed = 2;
  test_limits();
  test_copy_bits();
  for (int i = 0; i < 250; ++i) {
    conv_case c = random_case(&seed);
    check_case(&c, &seed);
  }
  test_largest_k(&seed);
  /* K = 33024, the wide kernel, with groups too; and K = 32704 just below it. */
  const uint32_t sizes[][3] = {{516, 1, 3}, {1032, 2, 4}, {511, 1, 3}};
  for (int i = 0; i < 9; ++i) {
    conv_case c = {.height = 9,
                   .width = 8,
                   .in_channels = sizes[i % 3][0],
                   .out_channels = sizes[i % 3][2],
                   .groups = sizes[i % 3][1],
                   .window = {8, 8, 1, 1, 1, 1, 1, 0},
                   .out_height = 2,
                   .out_width = 2,
                   .pad_value = (int8_t)(i / 3 - 1),
                   .epilogue = (lqc_epilogue)(i / 3),
                   .clip_limit = i / 3 == 1 ? 127 : 0,
                   .step_log2 = i / 3 == 1 ? 2 : 0,
                   .threshold_dtype = LQC_INT32};
    check_case(&c, &seed);
  }
  return 0;
}
