#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "fixed_point_testing.h"

#define CHANNELS 8u

static const fixed_case image_8 = {5, 4, CHANNELS, 0, 0};

static int32_t add_weights(built_model *m, uint32_t outputs, uint32_t kernel, uint32_t depth, uint64_t *seed) {
  const uint32_t shape[] = {outputs, kernel, kernel, depth};
  int32_t weights = add_constant(m, LQC_INT8, 4, shape, NULL);
  for (size_t i = 0; i < m->constants[weights].bytes; ++i) {
    m->constants[weights].data[i] = (uint8_t)random_u64(seed);
  }
  return weights;
}

static void add_norm(built_model *m, lqc_op *op, uint64_t *seed) {
  int32_t multiplier[CHANNELS];
  int64_t offset[CHANNELS];
  for (uint32_t c = 0; c < CHANNELS; ++c) {
    multiplier[c] = (int32_t)random_below(seed, 4001) - 2000;
    offset[c] = (int64_t)random_below(seed, 2000001) - 1000000;
  }
  add_affine_step(m, op, CHANNELS, multiplier, offset);
}

static uint32_t name_output(built_model *m, const lqc_op *op, uint32_t output, const char *name) {
  m->tensors[op->outputs[output]].name = name;
  return op->outputs[output];
}

static lqc_op add_stem(built_model *m, uint32_t pixels, uint64_t *seed) {
  static const int8_t shift[] = {14, 15, 16, 17, 14, 15, 16, 62};
  static const int64_t thresholds[] = {0, -1, 5, -5, 1000, -1000, INT64_MIN, INT64_MAX};
  const uint32_t eight = CHANNELS;
  lqc_op op = make_op(LQC_OP_INT8_CONV_2D, "stem", pixels, 0);
  op.window = (lqc_window){3, 3, 1, 1, 1, 1, 1, 1};
  op.weights = add_weights(m, CHANNELS, 3, 3, seed);
  op.bias = add_constant(m, LQC_INT32, 1, &eight, NULL);
  ((int32_t *)(void *)m->constants[op.bias].data)[3] = 77;
  add_norm(m, &op, seed);
  add_relu_step(&op);
  add_store(m, &op, &image_8, LQC_INT8, shift, NULL);
  add_store(m, &op, &image_8, LQC_BIT, NULL, thresholds);
  name_output(m, &op, 0, "stem");
  name_output(m, &op, 1, "stem_bits");
  add_op(m, op);
  return op;
}

static lqc_op add_binary(built_model *m, const lqc_op *stem, uint64_t *seed) {
  static const int8_t shift[] = {0, 1, 2, 3, 0, 1, 2, 3}, operand_shift[] = {4, 3, 2, 1, 0, 5, 6, 7};
  const uint32_t weights[] = {CHANNELS, 3, 3, CHANNELS}, eight = CHANNELS;
  lqc_op op = make_op(LQC_OP_BINARY_CONV_2D, "binary", stem->outputs[1], 0);
  op.inputs[op.input_count++] = stem->outputs[0];
  op.window = (lqc_window){3, 3, 1, 1, 1, 1, 1, 1};
  op.pad_value = 1;
  op.weights = add_random_bits(m, 4, weights, seed);
  op.clip_limit = 127;
  op.step_log2 = 1;
  op.epilogue = LQC_FIXED_POINT;
  add_norm(m, &op, seed);
  add_add_step(m, &op, CHANNELS, 1, shift, operand_shift);
  add_store(m, &op, &image_8, LQC_INT16, shift, NULL);
  add_store(m, &op, &image_8, LQC_BIT, NULL, NULL);
  op.fixed_point.stores[1].invert = add_random_bits(m, 1, &eight, seed);
  name_output(m, &op, 0, "binary");
  name_output(m, &op, 1, "binary_bits");
  add_op(m, op);
  return op;
}

static uint32_t add_depthwise(built_model *m, uint32_t stem, uint32_t binary, uint64_t *seed) {
  lqc_op op = make_op(LQC_OP_INT8_CONV_2D, "depthwise", stem, 0);
  op.inputs[op.input_count++] = binary;
  op.window = (lqc_window){3, 3, 1, 1, 1, 1, 1, 1};
  op.groups = CHANNELS;
  op.weights = add_weights(m, CHANNELS, 3, 1, seed);
  add_add_step(m, &op, CHANNELS, 1, NULL, NULL);
  add_store(m, &op, &image_8, LQC_INT16, NULL, NULL);
  add_op(m, op);
  return name_output(m, &op, 0, "depthwise");
}

static lqc_op joining(const char *name, uint32_t first, uint32_t second, uint32_t output) {
  lqc_op op = make_op(LQC_OP_CONCATENATE, name, first, output);
  op.inputs[op.input_count++] = second;
  return op;
}

void integer_network(built_model *m, uint64_t seed) {
  const fixed_case joined_case = {5, 4, 2 * CHANNELS, 0, 0}, scores_case = {1, 1, 10, 0, 0};
  model_start(m);
  uint32_t image = add_input(m, LQC_FLOAT32, 5, 4, 3), pixels = add_tensor(m, "pixels", LQC_INT8, 5, 4, 3);
  m->tensors[image].name = "image";
  m->tensors[pixels].fraction_count = 3;
  memcpy(m->tensors[pixels].fraction_bits, "\5\6\7", 3);
  add_op(m, make_op(LQC_OP_QUANTIZE, "quantize", image, pixels));
  lqc_op stem = add_stem(m, pixels, &seed), binary = add_binary(m, &stem, &seed);
  uint32_t depthwise = add_depthwise(m, stem.outputs[0], binary.outputs[0], &seed);
  uint32_t joined = add_tensor(m, "joined", LQC_INT16, 5, 4, 2 * CHANNELS);
  add_op(m, joining("join", stem.outputs[0], depthwise, joined));
  uint32_t bits = add_tensor(m, "joined_bits", LQC_BIT, 5, 4, 2 * CHANNELS);
  m->outputs[m->output_count++] = bits;
  add_op(m, joining("join_bits", stem.outputs[1], binary.outputs[1], bits));
  lqc_op op = make_op(LQC_OP_ELEMENTWISE, "relu", joined, 0);
  add_relu_step(&op);
  add_store(m, &op, &joined_case, LQC_FLOAT32, NULL, NULL);
  name_output(m, &op, 0, "relu");
  add_op(m, op);
  uint32_t mean = add_tensor(m, "mean", LQC_INT8, 1, 1, 2 * CHANNELS);
  m->tensors[mean].fraction_count = 1;
  m->tensors[mean].fraction_bits[0] = -4;
  op = make_op(LQC_OP_AVERAGE_POOL_2D, "mean", joined, mean);
  op.window.kernel_h = 5;
  op.window.kernel_w = 4;
  add_op(m, op);
  uint32_t flat = add_tensor(m, "flat", LQC_INT8, 0, 0, 2 * CHANNELS);
  m->tensors[flat].offset = m->tensors[mean].offset;
  m->tensors[flat].fraction_count = 1;
  m->tensors[flat].fraction_bits[0] = -4;
  add_op(m, make_op(LQC_OP_RESHAPE, "flatten", mean, flat));
  op = make_op(LQC_OP_INT8_CONV_2D, "dense", flat, 0);
  op.weights = add_weights(m, 10, 1, 2 * CHANNELS, &seed);
  add_store(m, &op, &scores_case, LQC_FLOAT32, NULL, NULL);
  name_output(m, &op, 0, "scores");
  add_op(m, op);
}
