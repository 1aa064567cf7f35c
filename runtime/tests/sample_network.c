#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "model_builder.h"

static void set_thresholds(built_model *m, int32_t constant, uint64_t *seed) {
  for (size_t i = 0; i < m->constants[constant].bytes; ++i) {
    ((int8_t *)m->constants[constant].data)[i] = (int8_t)((int)random_below(seed, 21) - 10);
  }
}

static void add_float_part(built_model *m, uint64_t *seed) {
  const uint32_t weights[] = {3, 3, 3, 8}, eight[] = {8};
  lqc_op op = make_op(LQC_OP_CONV_2D, "first", 0, 1);
  op.window = (lqc_window){3, 3, 1, 1, 1, 1, 1, 1};
  op.weights = add_random_floats(m, 4, weights, seed);
  op.bias = add_random_floats(m, 1, eight, seed);
  op.activation.low = 0.0f;
  add_op(m, op);
  op = make_op(LQC_OP_MAX_POOL_2D, "pool", 1, 2);
  op.window = (lqc_window){2, 2, 2, 2, 1, 1, 0, 0};
  add_op(m, op);
  op = make_op(LQC_OP_AFFINE, "norm", 2, 3);
  op.multiplier = add_random_floats(m, 1, eight, seed);
  op.offset = add_random_floats(m, 1, eight, seed);
  add_op(m, op);
  op = make_op(LQC_OP_BITPACK, "sign", 3, 4);
  op.thresholds = add_random_floats(m, 1, eight, seed);
  op.invert = add_random_bits(m, 1, eight, seed);
  add_op(m, op);
}

static void add_binary_part(built_model *m, uint64_t *seed) {
  const uint32_t binary[] = {70, 3, 3, 8}, seventy[] = {70}, grouped[] = {64, 2, 2, 35}, dense[] = {10, 1, 1, 256},
                 ten[] = {10};
  lqc_op op = make_op(LQC_OP_BINARY_CONV_2D, "binary", 4, 5);
  op.window = (lqc_window){3, 3, 1, 1, 1, 1, 1, 1};
  op.pad_value = 1;
  op.weights = add_random_bits(m, 4, binary, seed);
  op.clip_limit = 127;
  op.epilogue = LQC_THRESHOLD;
  op.thresholds = add_constant(m, LQC_INT8, 1, seventy, NULL);
  set_thresholds(m, op.thresholds, seed);
  op.invert = add_random_bits(m, 1, seventy, seed);
  add_op(m, op);
  op = make_op(LQC_OP_BIT_MAX_POOL_2D, "bitpool", 5, 6);
  op.window = (lqc_window){2, 2, 1, 1, 1, 1, 0, 0};
  op.invert = add_random_bits(m, 1, seventy, seed);
  add_op(m, op);
  op = make_op(LQC_OP_BINARY_CONV_2D, "grouped", 6, 7);
  op.window = (lqc_window){2, 2, 1, 1, 1, 1, 0, 0};
  op.groups = 2;
  op.weights = add_random_bits(m, 4, grouped, seed);
  op.epilogue = LQC_CLIP;
  op.clip_limit = 127;
  op.step_log2 = 1;
  add_op(m, op);
  add_op(m, make_op(LQC_OP_BITPACK, "signs8", 7, 8));
  add_op(m, make_op(LQC_OP_RESHAPE, "flatten", 8, 9));
  op = make_op(LQC_OP_BINARY_CONV_2D, "dense", 9, 10);
  op.weights = add_random_bits(m, 4, dense, seed);
  op.epilogue = LQC_AFFINE;
  op.multiplier = add_random_floats(m, 1, ten, seed);
  op.offset = add_random_floats(m, 1, ten, seed);
  add_op(m, op);
}

void sample_network(built_model *m, uint64_t seed) {
  model_start(m);
  m->inputs[m->input_count++] = add_tensor(m, "image", LQC_FLOAT32, 6, 5, 3);
  add_tensor(m, "first", LQC_FLOAT32, 6, 5, 8);
  add_tensor(m, "pooled", LQC_FLOAT32, 3, 3, 8);
  add_tensor(m, "norm", LQC_FLOAT32, 3, 3, 8);
  add_tensor(m, "signs", LQC_BIT, 3, 3, 8);
  add_tensor(m, "binary", LQC_BIT, 3, 3, 70);
  add_tensor(m, "bitpooled", LQC_BIT, 2, 2, 70);
  add_tensor(m, "clipped", LQC_INT8, 2, 2, 64);
  m->tensors[7].fraction_count = 1;
  m->tensors[7].fraction_bits[0] = -1;
  add_tensor(m, "bits8", LQC_BIT, 2, 2, 64);
  add_tensor(m, "flat", LQC_BIT, 0, 0, 256);
  m->tensors[9].offset = m->tensors[8].offset;
  add_tensor(m, "dense", LQC_FLOAT32, 0, 0, 10);
  m->outputs[m->output_count++] = add_tensor(m, "scores", LQC_FLOAT32, 0, 0, 10);
  uint32_t unpacked = add_tensor(m, "unpacked", LQC_FLOAT32, 3, 3, 8);
  uint32_t mean = add_tensor(m, "mean", LQC_FLOAT32, 1, 1, 8);
  m->outputs[m->output_count++] = mean;
  add_float_part(m, &seed);
  add_binary_part(m, &seed);
  add_op(m, make_op(LQC_OP_SOFTMAX, "softmax", 10, 11));
  add_op(m, make_op(LQC_OP_UNPACK, "unpack", 4, unpacked));
  lqc_op op = make_op(LQC_OP_AVERAGE_POOL_2D, "mean", unpacked, mean);
  op.window = (lqc_window){3, 3, 1, 1, 1, 1, 0, 0};
  add_op(m, op);
}
