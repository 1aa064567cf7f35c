/* Plans in which ops write over their inputs: what may, gives the same results; what may not, is refused. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>

#include "fixed_point_testing.h"
#include "whole_models.h"

enum { HEIGHT = 5, WIDTH = 4 };

/* Ops and tensors of the network below. */
enum { RELU, NORM, QUANTIZE, SUM, DEPTHWISE, SIGN, BINARY, BACK, SCORES };

static uint32_t channels = 8;

static fixed_case image(void) {
  return (fixed_case){HEIGHT, WIDTH, channels, 0, 0};
}

static uint32_t new_image(built_model *m, const char *name, lqc_dtype dtype) {
  return add_tensor(m, name, dtype, HEIGHT, WIDTH, channels);
}

static void put_over(built_model *m, uint32_t output, uint32_t input) {
  m->tensors[output].offset = m->tensors[input].offset;
}

/* The last output of an op is of the model only where a test says so. */
static uint32_t inner_output(built_model *m, const lqc_op *op, const char *name) {
  --m->output_count;
  m->tensors[op->outputs[op->output_count - 1]].name = name;
  return op->outputs[op->output_count - 1];
}

static void add_float_ops(built_model *m, uint64_t *seed) {
  lqc_op op = make_op(LQC_OP_AFFINE, "relu", 0, new_image(m, "relu", LQC_FLOAT32));
  op.activation = (lqc_activation){0.0f, INFINITY};
  put_over(m, op.outputs[0], 0);
  add_op(m, op);
  op = make_op(LQC_OP_AFFINE, "norm", op.outputs[0], new_image(m, "norm", LQC_FLOAT32));
  op.multiplier = add_random_floats(m, 1, &channels, seed);
  op.offset = add_random_floats(m, 1, &channels, seed);
  put_over(m, op.outputs[0], 0);
  add_op(m, op);
  uint32_t pixels = new_image(m, "pixels", LQC_INT8);
  m->tensors[pixels].fraction_count = 1;
  m->tensors[pixels].fraction_bits[0] = 3;
  add_op(m, make_op(LQC_OP_QUANTIZE, "quantize", op.outputs[0], pixels));
}

/* 2 x + y, and then a convolution of the pixels, its output over an operand. */
static void add_int8_ops(built_model *m, uint32_t pixels, uint64_t *seed) {
  const uint32_t weights[] = {channels, 3, 3, 1};
  const fixed_case c = image();
  int8_t one[128];
  memset(one, 1, sizeof(one));
  uint32_t other = add_input(m, LQC_INT8, HEIGHT, WIDTH, channels);
  m->tensors[other].name = "other";
  lqc_op op = make_op(LQC_OP_ELEMENTWISE, "sum", pixels, 0);
  op.inputs[op.input_count++] = other;
  add_add_step(m, &op, channels, 1, one, NULL);
  add_store(m, &op, &c, LQC_INT8, NULL, NULL);
  uint32_t sum = inner_output(m, &op, "sum");
  put_over(m, sum, other);
  add_op(m, op);
  op = make_op(LQC_OP_INT8_CONV_2D, "depthwise", pixels, 0);
  op.inputs[op.input_count++] = sum;
  op.window = (lqc_window){3, 3, 1, 1, 1, 1, 1, 1};
  op.groups = channels;
  op.weights = add_constant(m, LQC_INT8, 4, weights, NULL);
  for (size_t i = 0; i < m->constants[op.weights].bytes; ++i) {
    m->constants[op.weights].data[i] = (uint8_t)random_u64(seed);
  }
  add_add_step(m, &op, channels, 1, NULL, one);
  add_store(m, &op, &c, LQC_INT8, one, NULL);
  put_over(m, inner_output(m, &op, "depthwise"), sum);
  add_op(m, op);
}

/* A binary convolution with bits and integers as outputs, the latter over its operand. */
static void add_binary_ops(built_model *m, uint32_t shortcut, uint64_t *seed) {
  const uint32_t weights[] = {channels, 3, 3, channels};
  const fixed_case c = image();
  uint32_t bits = new_image(m, "signs", LQC_BIT);
  add_op(m, make_op(LQC_OP_BITPACK, "signs", shortcut, bits));
  lqc_op op = make_op(LQC_OP_BINARY_CONV_2D, "binary", bits, 0);
  op.inputs[op.input_count++] = shortcut;
  op.window = (lqc_window){3, 3, 1, 1, 1, 1, 1, 1};
  op.weights = add_random_bits(m, 4, weights, seed);
  op.epilogue = LQC_FIXED_POINT;
  add_add_step(m, &op, channels, 1, NULL, NULL);
  add_store(m, &op, &c, LQC_BIT, NULL, NULL);
  m->tensors[op.outputs[0]].name = "bits";
  add_store(m, &op, &c, LQC_INT8, NULL, NULL);
  uint32_t integers = inner_output(m, &op, "binary");
  put_over(m, integers, shortcut);
  add_op(m, op);
  op = make_op(LQC_OP_ELEMENTWISE, "back", integers, 0);
  add_relu_step(&op);
  add_store(m, &op, &c, LQC_FLOAT32, NULL, NULL);
  inner_output(m, &op, "back");
  add_op(m, op);
  uint32_t scores = new_image(m, "scores", LQC_FLOAT32);
  put_over(m, scores, op.outputs[0]);
  m->outputs[m->output_count++] = scores;
  add_op(m, make_op(LQC_OP_SOFTMAX, "softmax", op.outputs[0], scores));
}

/*   "image" -> relu -> norm, both over it -> "pixels" int8
 *   "pixels", "other" -> "sum", over "other"
 *   "pixels", "sum"   -> "depthwise", over "sum" -> "signs"
 *   "signs", "depthwise" -> "bits", an output, and "binary", over "depthwise"
 *   "binary" -> "back" float -> "scores", over it, an output */
static void in_place_network(built_model *m, uint64_t seed) {
  model_start(m);
  m->tensors[add_input(m, LQC_FLOAT32, HEIGHT, WIDTH, channels)].name = "image";
  add_float_ops(m, &seed);
  uint32_t pixels = m->ops[QUANTIZE].op.outputs[0];
  add_int8_ops(m, pixels, &seed);
  add_binary_ops(m, m->ops[DEPTHWISE].op.outputs[0], &seed);
}

/* ---- What may be in place ---------------------------------------------------------------------------------------- */

static void fill(const built_model *m, test_session *s) {
  uint64_t seed = 11;
  float *x = lqc_session_input(s->session, 0);
  fill_inputs(m, s, &seed);
  for (uint32_t i = 0; i < HEIGHT * WIDTH * channels; ++i) {
    x[i] = (float)(int)(random_below(&seed, 2001) - 1000) / 64.0f;
  }
}

static void test_same_results(void) {
  static const uint32_t numbers[] = {1, 3, 8, 31, 32, 63, 64, 70};
  for (size_t n = 0; n < sizeof(numbers) / sizeof(numbers[0]); ++n) {
    built_model m;
    lqc_error error;
    channels = numbers[n];
    in_place_network(&m, channels);
    const lqc_options apart = {.isa = LQC_ISA_SCALAR, .keep_tensors = 1};
    test_session reference = open_session(&m, &apart);
    fill(&m, &reference);
    EXPECT(lqc_session_run(reference.session, &error) == LQC_OK, "%s", error.message);
    for (int isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
      for (uint32_t threads = 1; threads <= 4 && threads <= lqc_pool_max_threads(); ++threads) {
        if (!lqc_isa_available((lqc_isa)isa)) {
          continue;
        }
        const lqc_options options = {.threads = threads, .isa = (lqc_isa)isa};
        test_session s = open_session(&m, &options);
        fill(&m, &s);
        EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
        for (size_t i = 0; i < m.output_count; ++i) {
          lqc_tensor_info info;
          lqc_model_tensor_info(&s.model, lqc_model_output_tensor(&s.model, i), &info);
          EXPECT(memcmp(lqc_session_output(s.session, i), lqc_session_output(reference.session, i), info.bytes) == 0,
                 "'%s' of %u channels on %s with %u threads", info.name, channels, lqc_isa_name((lqc_isa)isa), threads);
        }
        close_session(&s);
      }
    }
    close_session(&reference);
    model_end(&m);
  }
  channels = 8;
}

/* ---- What may not ------------------------------------------------------------------------------------------------ */

#define INPUT(m, op, i) OP(m, op)->inputs[i]
#define OUTPUT(m, op, i) OP(m, op)->outputs[i]

BREAK(needed_later, OP(m, QUANTIZE)->inputs[0] = OUTPUT(m, RELU, 0))
BREAK(needed_as_output, m->outputs[m->output_count++] = OUTPUT(m, NORM, 0); put_over(m, OUTPUT(m, SCORES, 0), 0))
BREAK(input_is_output, m->outputs[m->output_count++] = OUTPUT(m, RELU, 0))
BREAK(two_outputs, lqc_op *op = OP(m, SUM); const fixed_case c = image(); add_store(m, op, &c, LQC_INT8, NULL, NULL);
      put_over(m, op->outputs[1], op->inputs[1]))
/* Without the operand's place to go to, the output takes that of the image, which is read around each pixel. */
BREAK(over_the_image, m->ops[DEPTHWISE + 1].op.inputs[0] = OUTPUT(m, DEPTHWISE, 0);
      put_over(m, OUTPUT(m, DEPTHWISE, 0), INPUT(m, DEPTHWISE, 0));
      put_over(m, OUTPUT(m, BINARY, 1), OUTPUT(m, SUM, 0)))
BREAK(image_is_operand, OP(m, DEPTHWISE)->inputs[1] = INPUT(m, DEPTHWISE, 0);
      put_over(m, OUTPUT(m, DEPTHWISE, 0), INPUT(m, DEPTHWISE, 0));
      put_over(m, OUTPUT(m, BINARY, 1), OUTPUT(m, SUM, 0)))
/* 8 channels of int8 and of bits both take 8 bytes a pixel. */
BREAK(other_type, put_over(m, OUTPUT(m, BINARY, 0), INPUT(m, BINARY, 1));
      m->tensors[OUTPUT(m, BINARY, 1)].offset = m->arena_bytes; m->arena_bytes += 1024)
BREAK(other_op, put_over(m, OUTPUT(m, SIGN, 0), INPUT(m, SIGN, 0)))
BREAK(narrower, put_over(m, OUTPUT(m, QUANTIZE, 0), INPUT(m, QUANTIZE, 0)))
BREAK(other_shape, m->tensors[OUTPUT(m, SCORES, 0)].shape[0] = WIDTH;
      m->tensors[OUTPUT(m, SCORES, 0)].shape[1] = HEIGHT)
BREAK(one_pixel_behind, m->tensors[OUTPUT(m, SUM, 0)].offset += 64; m->arena_bytes += 64)
BREAK(over_another_tensor, put_over(m, OUTPUT(m, BACK, 0), INPUT(m, BACK, 0)); put_over(m, OUTPUT(m, SCORES, 0), 0))

/* An op of another kind with a 1x1 window, and its output over its input. */
static void one_pixel_window(built_model *m, lqc_op_kind kind) {
  lqc_op *op = OP(m, NORM);
  op->kind = kind;
  op->multiplier = op->offset = -1;
}
BREAK(max_pool, one_pixel_window(m, LQC_OP_MAX_POOL_2D))
BREAK(average_pool, one_pixel_window(m, LQC_OP_AVERAGE_POOL_2D))
BREAK(join, one_pixel_window(m, LQC_OP_CONCATENATE))

static const wrong_model wrong_models[] = {
    {"an input that is read later", needed_later, LQC_ERROR_MALFORMED, "'relu' and 'norm'"},
    {"an input that is an output", input_is_output, LQC_ERROR_MALFORMED, "'relu' and 'norm'"},
    {"a tensor that is an output", needed_as_output, LQC_ERROR_MALFORMED, "'norm' and 'scores'"},
    {"two outputs", two_outputs, LQC_ERROR_MALFORMED, "'sum' and 'out'"},
    {"the image of a convolution", over_the_image, LQC_ERROR_MALFORMED, "'pixels' and 'depthwise'"},
    {"the image of a convolution, also its operand", image_is_operand, LQC_ERROR_MALFORMED, "'pixels' and 'depthwise'"},
    {"bits over integers", other_type, LQC_ERROR_MALFORMED, "'depthwise' and 'bits'"},
    {"an op that packs", other_op, LQC_ERROR_MALFORMED, "'depthwise' and 'signs'"},
    {"smaller elements", narrower, LQC_ERROR_MALFORMED, "'norm' and 'pixels'"},
    {"another shape", other_shape, LQC_ERROR_MALFORMED, "'back' and 'scores'"},
    {"another place", one_pixel_behind, LQC_ERROR_MALFORMED, "share memory"},
    {"wider elements", over_another_tensor, LQC_ERROR_MALFORMED, "'binary' and 'back'"},
    {"a pool of maxima", max_pool, LQC_ERROR_MALFORMED, "'relu' and 'norm'"},
    {"a pool of means", average_pool, LQC_ERROR_MALFORMED, "'relu' and 'norm'"},
    {"a concatenation", join, LQC_ERROR_MALFORMED, "'relu' and 'norm'"},
};

int main(void) {
  test_same_results();
  for (size_t i = 0; i < sizeof(wrong_models) / sizeof(wrong_models[0]); ++i) {
    check_wrong(&wrong_models[i], in_place_network);
  }
  return 0;
}
