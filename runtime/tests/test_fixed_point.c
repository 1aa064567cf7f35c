/* Elementwise, and the fixed point of all ops through it: random programs at the bounds of 32 and of 64 bits, and cases
 * worked out by hand. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "fixed_point_testing.h"

static const uint32_t channel_counts[] = {1, 3, 8, 31, 64, 65, 100};

static lqc_options some_threads(uint64_t *seed) {
  uint32_t threads = 1 + random_below(seed, 3);
  return (lqc_options){.threads = threads <= lqc_pool_max_threads() ? threads : 1};
}

/* Runs the model's only op, 0, and checks all its outputs. Returns whether it ran in lanes of 64 bits. */
static int run_and_check(const built_model *m, const fixed_case *c, lqc_isa isa, uint64_t *seed) {
  const lqc_op *op = &m->ops[0].op;
  lqc_options options = some_threads(seed);
  options.isa = isa;
  test_session s = open_session(m, &options);
  lqc_error error;
  lqc_op_info info;
  fill_inputs(m, &s, seed);
  EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
  for (size_t pixel = 0; pixel < (size_t)c->height * c->width; ++pixel) {
    for (uint32_t channel = 0; channel < c->channels; ++channel) {
      check_fixed_point(m, op, &s, pixel, channel, integer_at(m, &s, op->inputs[0], pixel * c->channels + channel));
    }
  }
  check_tails(m, op, &s);
  EXPECT(lqc_session_op_info(s.session, 0, &info) == LQC_OK, "op");
  int is_wide = strcmp(info.kernel, "elementwise_i64") == 0;
  EXPECT(is_wide || strcmp(info.kernel, "elementwise_i32") == 0, "%s", info.kernel);
  close_session(&s);
  return is_wide;
}

static void test_random(uint64_t *seed) {
  static const int64_t limits[] = {INT32_MAX / 2,    INT32_MAX,        (int64_t)INT32_MAX + 1,
                                   (int64_t)1 << 40, (int64_t)1 << 61, (int64_t)1 << 62};
  int wide = 0, runs = 0;
  for (int round = 0; round < 60; ++round) {
    for (size_t i = 0; i < sizeof(channel_counts) / sizeof(channel_counts[0]); ++i) {
      bool is_int8 = random_bit(seed);
      fixed_case c = {.height = 1 + random_below(seed, 3),
                      .width = 1 + random_below(seed, 4),
                      .channels = channel_counts[i],
                      .start = is_int8 ? 128 : 32768,
                      .limit = limits[random_below(seed, 6)]};
      built_model m;
      model_start(&m);
      lqc_op op = make_op(LQC_OP_ELEMENTWISE, "sum", 0, 0);
      op.inputs[0] = add_input(&m, is_int8 ? LQC_INT8 : LQC_INT16, c.height, c.width, c.channels);
      add_random_fixed_point(&m, &op, &c, seed);
      add_op(&m, op);
      for (int isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
        if (lqc_isa_available((lqc_isa)isa)) {
          wide += run_and_check(&m, &c, (lqc_isa)isa, seed);
          ++runs;
        }
      }
      model_end(&m);
    }
  }
  EXPECT(wide > runs / 8 && wide < runs * 7 / 8, "%d of %d programs ran in 64 bits", wide, runs);
}

/* One channel of int8, all 256 values of it; the last step and store decide the width. */
typedef struct edge {
  const char *what;
  int32_t multiplier;
  int64_t offset;
  int8_t shift; /* of the store */
  lqc_dtype dtype;
  int wide;
} edge;

static void run_edge(const built_model *m, const edge *e, lqc_isa isa, uint64_t *seed) {
  lqc_options options = some_threads(seed);
  options.isa = isa;
  test_session s = open_session(m, &options);
  lqc_error error;
  lqc_op_info info;
  for (int v = 0; v < 256; ++v) {
    ((int8_t *)lqc_session_input(s.session, 0))[v] = (int8_t)(v - 128);
  }
  EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s: %s", e->what, error.message);
  for (int v = 0; v < 256; ++v) {
    check_fixed_point(m, &m->ops[0].op, &s, (size_t)v, 0, v - 128);
  }
  lqc_session_op_info(s.session, 0, &info);
  EXPECT((strstr(info.kernel, "i64") != NULL) == e->wide, "%s ran on %s", e->what, info.kernel);
  close_session(&s);
}

static void test_edges(uint64_t *seed) {
  static const edge edges[] = {
      {"ties", 1, 0, 1, LQC_INT8, 0},
      {"ties of 4", 1, 0, 2, LQC_INT16, 0},
      {"to the left, saturating", 1, 0, -1, LQC_INT8, 0},
      {"far to the left", -1, 1, -62, LQC_INT16, 0},
      {"to the left in 64 bits", 1, (int64_t)1 << 40, -62, LQC_INT8, 1},
      {"largest of 32 bits", 0, INT32_MAX, 0, LQC_FLOAT32, 0},
      {"just above", 0, (int64_t)INT32_MAX + 1, 0, LQC_FLOAT32, 1},
      {"smallest of 32 bits", 0, -INT32_MAX, 31, LQC_INT8, 0},
      {"just below", 0, -(int64_t)INT32_MAX - 1, 31, LQC_INT8, 1},
      {"a product that does not fit", INT32_MAX, 0, 31, LQC_INT8, 1},
      {"a product that fits", 16777215, 127, 24, LQC_INT8, 0},
      {"a rounding that does not fit", 16777215, 127, 31, LQC_INT8, 1},
      {"a shift of 32", 1, 0, 32, LQC_INT8, 1},
      {"a shift of 62", 1, 0, 62, LQC_INT16, 1},
      {"2^62", 0, (int64_t)1 << 62, 62, LQC_INT8, 1},
      {"-2^62", 0, -((int64_t)1 << 62), 55, LQC_INT8, 1},
      {"half of 2^62", 0, (int64_t)1 << 61, 62, LQC_INT16, 1},
      {"float32 that rounds", 33554431, 1, 7, LQC_FLOAT32, 1},
      {"float32 that ties to even", 2, (1 << 24) + 1, 0, LQC_FLOAT32, 0},
      {"float32 of 62 bits", INT32_MAX, ((int64_t)1 << 62) - 128 * (int64_t)INT32_MAX, -62, LQC_FLOAT32, 1},
      {"smallest float32", 1, 0, 62, LQC_FLOAT32, 0},
      {"sign", 1, 0, 0, LQC_BIT, 0},
  };
  for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); ++i) {
    const edge *e = &edges[i];
    fixed_case c = {16, 16, 1, 128, 0};
    built_model m;
    model_start(&m);
    lqc_op op = make_op(LQC_OP_ELEMENTWISE, e->what, 0, 0);
    op.inputs[0] = add_input(&m, LQC_INT8, c.height, c.width, c.channels);
    add_affine_step(&m, &op, 1, &e->multiplier, &e->offset);
    add_store(&m, &op, &c, e->dtype, e->dtype == LQC_BIT ? NULL : &e->shift, NULL);
    add_op(&m, op);
    for (int isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
      if (lqc_isa_available((lqc_isa)isa)) {
        run_edge(&m, e, (lqc_isa)isa, seed);
      }
    }
    model_end(&m);
  }
}

/* Numbers worked out by hand, so that reference and library cannot share a mistake: a residual sum in other formats,
 * stored in 8 bits and binarized before the rounding; with a RELU first, x of -1 and -128 are 0. */
static void test_by_hand(int relu) {
  const int8_t x[] = {0, -1, 100, -128}, r[] = {-1, 1, 127, -128};
  /* 3 x + 10; then times 2, plus 4 r: */
  static const int expected_sums[2][4] = {{16, 18, 1128, -1260}, {16, 24, 1128, -492}};
  /* floor(sum / 16 + 1/2), clipped */
  static const int8_t expected[2][4] = {{1, 1, 71, -79}, {1, 2, 71, -31}};
  const int expected_minus[] = {0, 0, 0, 1}; /* sum > 15 is +1: not 16 / 16 > 15 */
  const int32_t multiplier = 3;
  const int64_t offset = 10, threshold = 15;
  const int8_t one = 1, two = 2, four = 4;
  fixed_case c = {1, 4, 1, 128, 0};
  built_model m;
  model_start(&m);
  lqc_op op = make_op(LQC_OP_ELEMENTWISE, "residual", 0, 0);
  op.inputs[0] = add_input(&m, LQC_INT8, 1, 4, 1);
  op.inputs[op.input_count++] = add_input(&m, LQC_INT8, 1, 4, 1);
  if (relu) {
    add_relu_step(&op);
  }
  add_affine_step(&m, &op, 1, &multiplier, &offset);
  add_add_step(&m, &op, 1, 1, &one, &two);
  add_store(&m, &op, &c, LQC_INT8, &four, NULL);
  add_store(&m, &op, &c, LQC_BIT, NULL, &threshold);
  add_store(&m, &op, &c, LQC_FLOAT32, NULL, NULL);
  add_op(&m, op);
  test_session s = open_session(&m, NULL);
  lqc_error error;
  memcpy(lqc_session_input(s.session, 0), x, 4);
  memcpy(lqc_session_input(s.session, 1), r, 4);
  EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
  for (int i = 0; i < 4; ++i) {
    float sum = ((const float *)lqc_session_output(s.session, 2))[i];
    EXPECT(sum == (float)expected_sums[relu][i], "sum %d is %g", i, (double)sum);
    EXPECT(((const int8_t *)lqc_session_output(s.session, 0))[i] == expected[relu][i], "stored %d", i);
    EXPECT(((const uint64_t *)lqc_session_output(s.session, 1))[i] == (uint64_t)expected_minus[i], "sign %d", i);
  }
  close_session(&s);
  model_end(&m);
}

int main(void) {
  uint64_t seed = 17;
  test_by_hand(0);
  test_by_hand(1);
  test_edges(&seed);
  test_random(&seed);
  return 0;
}
