/* Int8Conv2D, and BinaryConv2D with the epilogue FixedPoint, against naive convolutions. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>

#include "fixed_point_testing.h"
#include "guarded_ops.h"

typedef struct conv_case {
  fixed_case out;
  uint32_t height, width, in_channels, groups;
  lqc_window window;
} conv_case;

#define CASE_FORMAT "%ux%ux%u -> %ux%ux%u groups %u kernel %ux%u"
#define CASE_VALUES(c)                                                                                        \
  (c)->height, (c)->width, (c)->in_channels, (c)->out.height, (c)->out.width, (c)->out.channels, (c)->groups, \
      (c)->window.kernel_h, (c)->window.kernel_w

/* Input pixel of a tap, or SIZE_MAX outside. */
static size_t tap_of(const conv_case *c, size_t place, uint32_t tap) {
  const lqc_window *w = &c->window;
  int64_t y = (int64_t)(place / c->out.width) * w->stride_h - w->pad_top + (int64_t)(tap / w->kernel_w) * w->dilation_h;
  int64_t x =
      (int64_t)(place % c->out.width) * w->stride_w - w->pad_left + (int64_t)(tap % w->kernel_w) * w->dilation_w;
  return y < 0 || y >= c->height || x < 0 || x >= c->width ? SIZE_MAX : (size_t)(y * c->width + x);
}

static conv_case random_case(uint64_t *seed) {
  static const uint32_t channels[] = {1, 3, 8, 31, 64, 65, 100};
  conv_case c = {.height = 1 + random_below(seed, 7), .width = 1 + random_below(seed, 9), .groups = 1};
  c.in_channels = channels[random_below(seed, 7)];
  c.out.channels = channels[random_below(seed, 7)];
  switch (random_below(seed, 4)) {
  case 0: /* groups */
    c.groups = 2 + random_below(seed, 8);
    c.in_channels = c.groups * (1 + random_below(seed, 20));
    c.out.channels = c.groups * (1 + random_below(seed, random_below(seed, 2) ? 128 / c.groups : 8));
    break;
  case 1: /* depthwise */
    c.groups = c.in_channels;
    c.out.channels = c.in_channels * (c.in_channels <= 31 ? 1 + random_below(seed, 3) : 1);
    break;
  default:
    break;
  }
  c.window = (lqc_window){1 + random_below(seed, 4), 1 + random_below(seed, 4), 1 + random_below(seed, 2),
                          1 + random_below(seed, 3), 1 + random_below(seed, 2), 1 + random_below(seed, 2),
                          random_below(seed, 4),     random_below(seed, 4)};
  c.out.height = 1 + random_below(seed, 5); /* some windows lie outside */
  c.out.width = 1 + random_below(seed, 8);
  c.out.limit = random_bit(seed) ? INT32_MAX : (int64_t)1 << 62;
  return c;
}

static test_session run(const built_model *m, lqc_isa isa, uint64_t *seed) {
  uint32_t threads = 1 + random_below(seed, 3);
  lqc_options options = {.threads = threads <= lqc_pool_max_threads() ? threads : 1, .isa = isa};
  lqc_error error;
  test_session s = open_session(m, &options);
  fill_inputs(m, &s, seed);
  EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
  if (isa == LQC_ISA_SCALAR) {
    check_guarded_ops(&s.model, 5);
  }
  return s;
}

/* ---- int8 -------------------------------------------------------------------------------------------------------- */

static int64_t naive_int8(const conv_case *c, const built_model *m, const test_session *s, size_t place,
                          uint32_t channel) {
  const lqc_op *op = &m->ops[0].op;
  const int8_t *x = input_of(m, s, op->inputs[0]);
  const int8_t *w = (const int8_t *)m->constants[op->weights].data;
  uint32_t depth = c->in_channels / c->groups, taps = c->window.kernel_h * c->window.kernel_w;
  uint32_t first = channel / (c->out.channels / c->groups) * depth;
  int64_t sum = op->bias < 0 ? 0 : ((const int32_t *)(const void *)m->constants[op->bias].data)[channel];
  for (uint32_t t = 0; t < taps; ++t) {
    size_t pixel = tap_of(c, place, t);
    for (uint32_t k = 0; pixel != SIZE_MAX && k < depth; ++k) {
      sum += x[pixel * c->in_channels + first + k] * w[((size_t)channel * taps + t) * depth + k];
    }
  }
  return sum;
}

static void check_int8(const conv_case *c, const built_model *m, lqc_isa isa, uint64_t *seed) {
  const lqc_op *op = &m->ops[0].op;
  test_session s = run(m, isa, seed);
  for (size_t place = 0; place < (size_t)c->out.height * c->out.width; ++place) {
    for (uint32_t channel = 0; channel < c->out.channels; ++channel) {
      check_fixed_point(m, op, &s, place, channel, naive_int8(c, m, &s, place, channel));
    }
  }
  check_tails(m, op, &s);
  lqc_op_info info;
  EXPECT(lqc_session_op_info(s.session, 0, &info) == LQC_OK, "op");
  int depthwise = c->groups > 1 && c->groups == c->in_channels;
  const char *kernel = depthwise ? "int8_depthwise" : "int8_conv2d_";
  EXPECT(strncmp(info.kernel, kernel, strlen(kernel)) == 0, "%s: " CASE_FORMAT, info.kernel, CASE_VALUES(c));
  uint64_t taps = (uint64_t)c->window.kernel_h * c->window.kernel_w;
  uint64_t macs = (uint64_t)c->out.height * c->out.width * c->out.channels * taps * (c->in_channels / c->groups);
  EXPECT(info.int8_macs == macs && info.float_macs == 0, "%llu macs", (unsigned long long)info.int8_macs);
  close_session(&s);
}

static void test_int8(uint64_t *seed) {
  conv_case c = random_case(seed);
  uint32_t depth = c.in_channels / c.groups, taps = c.window.kernel_h * c.window.kernel_w;
  const uint32_t shape[] = {c.out.channels, c.window.kernel_h, c.window.kernel_w, depth};
  int32_t largest_bias = random_bit(seed) ? 1 << 20 : 200;
  built_model m;
  model_start(&m);
  lqc_op op = make_op(LQC_OP_INT8_CONV_2D, "conv", 0, 0);
  op.inputs[0] = add_input(&m, LQC_INT8, c.height, c.width, c.in_channels);
  op.window = c.window;
  op.groups = c.groups;
  op.weights = add_constant(&m, LQC_INT8, 4, shape, NULL);
  for (size_t i = 0; i < m.constants[op.weights].bytes; ++i) {
    m.constants[op.weights].data[i] = (uint8_t)random_u64(seed);
  }
  c.out.start = (int64_t)taps * depth * 128 * 128;
  if (random_bit(seed)) {
    op.bias = add_constant(&m, LQC_INT32, 1, &c.out.channels, NULL);
    for (uint32_t i = 0; i < c.out.channels; ++i) {
      ((int32_t *)(void *)m.constants[op.bias].data)[i] =
          (int32_t)random_below(seed, 2 * (uint32_t)largest_bias + 1) - largest_bias;
    }
    c.out.start += largest_bias;
  }
  add_random_fixed_point(&m, &op, &c.out, seed);
  add_op(&m, op);
  for (int isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
    if (lqc_isa_available((lqc_isa)isa)) {
      check_int8(&c, &m, (lqc_isa)isa, seed);
    }
  }
  model_end(&m);
}

/* Sums at both ends of 32 bits, where a bias takes them. Of the negative weight two products fit 16 bits, or, if it is
 * -128, do not. */
static void test_int8_extremes(int32_t negative) {
  const uint32_t shape[] = {2, 1, 1, 40}, two = 2;
  const int32_t bias[] = {INT32_MAX + 40 * negative * 128, -INT32_MAX + 40 * 127 * 128};
  fixed_case out = {1, 1, 2, 0, 0};
  built_model m;
  lqc_error error;
  model_start(&m);
  lqc_op op = make_op(LQC_OP_INT8_CONV_2D, "extremes", 0, 0);
  op.inputs[0] = add_input(&m, LQC_INT8, 1, 1, 40);
  op.weights = add_constant(&m, LQC_INT8, 4, shape, NULL);
  memset(m.constants[op.weights].data, negative, 40);
  memset(m.constants[op.weights].data + 40, 127, 40);
  op.bias = add_constant(&m, LQC_INT32, 1, &two, bias);
  add_store(&m, &op, &out, LQC_FLOAT32, NULL, NULL);
  add_store(&m, &op, &out, LQC_INT16, NULL, NULL);
  add_op(&m, op);
  for (int isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
    if (lqc_isa_available((lqc_isa)isa)) {
      lqc_options options = {.isa = (lqc_isa)isa};
      test_session s = open_session(&m, &options);
      memset(lqc_session_input(s.session, 0), -128, 40);
      EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
      check_fixed_point(&m, &op, &s, 0, 0, INT32_MAX);
      check_fixed_point(&m, &op, &s, 0, 1, -INT32_MAX);
      close_session(&s);
    }
  }
  model_end(&m);
}

/* ---- Binary ------------------------------------------------------------------------------------------------------ */

static int32_t sign_of(const uint64_t *words, uint32_t c) {
  return 1 - 2 * bit_at(words, c);
}

/* v of one output: the sum of signs, then the clip in floating point, where every number is exact. */
static int64_t naive_binary(const conv_case *c, const built_model *m, const test_session *s, size_t place,
                            uint32_t channel) {
  const lqc_op *op = &m->ops[0].op;
  const uint64_t *x = input_of(m, s, op->inputs[0]);
  const uint64_t *w = (const uint64_t *)(const void *)m->constants[op->weights].data;
  uint32_t depth = c->in_channels / c->groups, taps = c->window.kernel_h * c->window.kernel_w;
  uint32_t first = channel / (c->out.channels / c->groups) * depth;
  int64_t a = 0;
  for (uint32_t t = 0; t < taps; ++t) {
    size_t pixel = tap_of(c, place, t);
    const uint64_t *filter = w + ((size_t)channel * taps + t) * lqc_words(depth);
    for (uint32_t k = 0; k < depth; ++k) {
      int32_t value = pixel == SIZE_MAX ? op->pad_value : sign_of(x + pixel * lqc_words(c->in_channels), first + k);
      a += value * sign_of(filter, k);
    }
  }
  if (op->clip_limit == 0) {
    return a;
  }
  double v = floor(ldexp((double)a, -op->step_log2) + 0.5), limit = op->clip_limit;
  return (int64_t)(v > limit ? limit : v < -limit ? -limit : v);
}

static void check_binary(conv_case *c, const lqc_op *like, uint64_t *seed) {
  const uint32_t shape[] = {c->out.channels, c->window.kernel_h, c->window.kernel_w, c->in_channels / c->groups};
  built_model m;
  model_start(&m);
  lqc_op op = make_op(LQC_OP_BINARY_CONV_2D, "conv", 0, 0);
  op.inputs[0] = add_input(&m, LQC_BIT, c->height, c->width, c->in_channels);
  op.window = c->window;
  op.groups = c->groups;
  op.epilogue = LQC_FIXED_POINT;
  op.pad_value = like->pad_value;
  op.clip_limit = like->clip_limit;
  op.step_log2 = like->step_log2;
  op.weights = add_random_bits(&m, 4, shape, seed);
  c->out.start = (int64_t)shape[1] * shape[2] * shape[3] * (op.step_log2 < 0 ? 1 << -op.step_log2 : 1);
  if (op.clip_limit != 0 && c->out.start > op.clip_limit) {
    c->out.start = op.clip_limit;
  }
  add_random_fixed_point(&m, &op, &c->out, seed);
  add_op(&m, op);
  for (int isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
    if (!lqc_isa_available((lqc_isa)isa)) {
      continue;
    }
    test_session s = run(&m, (lqc_isa)isa, seed);
    for (size_t place = 0; place < (size_t)c->out.height * c->out.width; ++place) {
      for (uint32_t channel = 0; channel < c->out.channels; ++channel) {
        check_fixed_point(&m, &op, &s, place, channel, naive_binary(c, &m, &s, place, channel));
      }
    }
    check_tails(&m, &op, &s);
    close_session(&s);
  }
  model_end(&m);
}

static void test_binary(uint64_t *seed) {
  static const uint32_t limits[] = {0, 127, 7, INT32_MAX};
  conv_case c = random_case(seed);
  lqc_op like = {.pad_value = (int8_t)((int)random_below(seed, 3) - 1), .clip_limit = limits[random_below(seed, 4)]};
  if (like.clip_limit != 0) {
    like.step_log2 = (int8_t)((int)random_below(seed, 8) - 3);
  }
  check_binary(&c, &like, seed);
}

/* K above that of the 16-bit kernels, with all kinds of borders, with and without groups. */
static void test_binary_wide(uint64_t *seed) {
  for (uint32_t groups = 1; groups <= 2; ++groups) {
    conv_case c = {.out = {.height = 2, .width = 2, .channels = 3 * groups, .limit = (int64_t)1 << 62},
                   .height = 9,
                   .width = 8,
                   .in_channels = 516 * groups,
                   .groups = groups,
                   .window = {8, 8, 1, 1, 1, 1, 1, 0}};
    for (int8_t pad = -1; pad <= 1; ++pad) {
      lqc_op like = {.pad_value = pad, .clip_limit = pad ? 127 : 0, .step_log2 = pad ? 3 : 0};
      check_binary(&c, &like, seed);
    }
  }
}

int main(void) {
  uint64_t seed = 23;
  test_int8_extremes(-127);
  test_int8_extremes(-128);
  for (int i = 0; i < 150; ++i) {
    test_int8(&seed);
    test_binary(&seed);
  }
  test_binary_wide(&seed);
  return 0;
}
