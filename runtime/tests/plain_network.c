#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "model_builder.h"

#define CHANNELS 8u

static const uint32_t eight[] = {CHANNELS};

static void add_convs(built_model *m, uint64_t *seed) {
  const uint32_t grouped[] = {3, 3, 4, CHANNELS}, depthwise[] = {3, 3, 1, CHANNELS};
  lqc_op op = make_op(LQC_OP_CONV_2D, "grouped", 0, 1);
  op.window = (lqc_window){3, 3, 1, 1, 1, 1, 1, 1};
  op.groups = 2;
  op.weights = add_random_floats(m, 4, grouped, seed);
  op.bias = add_random_floats(m, 1, eight, seed);
  op.activation = (lqc_activation){0.0f, 6.0f};
  add_op(m, op);
  op = make_op(LQC_OP_CONV_2D, "depthwise", 1, 2);
  op.window = (lqc_window){3, 3, 1, 1, 1, 1, 1, 1};
  op.groups = CHANNELS;
  op.weights = add_random_floats(m, 4, depthwise, seed);
  add_op(m, op);
}

static void add_gate(built_model *m, uint64_t *seed) {
  const uint32_t slope[] = {1, 1, CHANNELS};
  lqc_op op = make_op(LQC_OP_PRELU, "prelu", 2, 3);
  op.slope = add_random_floats(m, 3, slope, seed);
  add_op(m, op);
  op = make_op(LQC_OP_ARITHMETIC, "add", 3, 4);
  op.inputs[op.input_count++] = 0;
  add_op(m, op);
  op = make_op(LQC_OP_AVERAGE_POOL_2D, "mean", 4, 5);
  op.window.kernel_h = 6;
  op.window.kernel_w = 5;
  add_op(m, op);
  add_op(m, make_op(LQC_OP_FUNCTION, "gate", 5, 6));
  op = make_op(LQC_OP_ARITHMETIC, "scale", 4, 7);
  op.inputs[op.input_count++] = 6;
  op.arithmetic = LQC_MULTIPLY;
  add_op(m, op);
}

static void add_bits(built_model *m, uint64_t *seed) {
  const uint32_t levels[] = {3, CHANNELS};
  float thresholds[3 * CHANNELS];
  for (uint32_t i = 0; i < 3 * CHANNELS; ++i) {
    thresholds[i] = (float)(i / CHANNELS) - 1.0f;
  }
  lqc_op op = make_op(LQC_OP_SLICE, "region", 7, 8);
  op.begin_h = -1;
  op.begin_w = 2;
  op.value = 0.5f;
  add_op(m, op);
  op = make_op(LQC_OP_BITPACK, "planes", 8, 9);
  op.outputs[op.output_count++] = 10;
  op.thresholds = add_constant(m, LQC_FLOAT32, 2, levels, thresholds);
  op.invert = add_random_bits(m, 1, eight, seed);
  add_op(m, op);
  op = make_op(LQC_OP_CONCATENATE, "join", 9, 11);
  op.inputs[op.input_count++] = 10;
  add_op(m, op);
  op = make_op(LQC_OP_SLICE, "pad", 11, 12);
  op.begin_h = op.begin_w = -1;
  op.value = -1.0f;
  add_op(m, op);
}

void plain_network(built_model *m, uint64_t seed) {
  model_start(m);
  const char *const images[] = {"image", "grouped", "depthwise", "prelu", "sum"};
  for (int i = 0; i < 5; ++i) {
    add_tensor(m, images[i], LQC_FLOAT32, 6, 5, CHANNELS);
  }
  add_tensor(m, "mean", LQC_FLOAT32, 1, 1, CHANNELS);
  add_tensor(m, "gate", LQC_FLOAT32, 1, 1, CHANNELS);
  add_tensor(m, "scaled", LQC_FLOAT32, 6, 5, CHANNELS);
  add_tensor(m, "region", LQC_FLOAT32, 7, 4, CHANNELS);
  add_tensor(m, "plane_0", LQC_BIT, 7, 4, CHANNELS);
  add_tensor(m, "plane_1", LQC_BIT, 7, 4, CHANNELS);
  add_tensor(m, "joined", LQC_BIT, 7, 4, 2 * CHANNELS);
  add_tensor(m, "padded", LQC_BIT, 9, 6, 2 * CHANNELS);
  add_tensor(m, "stored", LQC_INT8, 6, 5, CHANNELS);
  add_tensor(m, "space", LQC_INT8, 12, 10, CHANNELS / 4);
  m->tensors[13].fraction_count = 1;
  m->tensors[13].fraction_bits[0] = 2;
  m->tensors[14].fraction_count = 1;
  m->tensors[14].fraction_bits[0] = 2;
  for (int i = 0; i < 2; ++i) {
    uint32_t row = add_tensor(m, i == 0 ? "row" : "clipped", LQC_FLOAT32, 1, 30, CHANNELS);
    m->tensors[row].rank = 2;
    m->tensors[row].shape[0] = 30;
    m->tensors[row].shape[1] = CHANNELS;
  }
  m->inputs[m->input_count++] = 0;
  m->outputs[m->output_count++] = 12;
  m->outputs[m->output_count++] = 14;
  m->outputs[m->output_count++] = 16;
  add_convs(m, &seed);
  add_gate(m, &seed);
  add_bits(m, &seed);
  add_op(m, make_op(LQC_OP_QUANTIZE, "quantize", 7, 13));
  lqc_op op = make_op(LQC_OP_DEPTH_TO_SPACE, "space", 13, 14);
  op.block_h = op.block_w = 2;
  add_op(m, op);
  add_op(m, make_op(LQC_OP_RESHAPE, "row", 7, 15));
  op = make_op(LQC_OP_AFFINE, "clip", 15, 16);
  op.offset = add_random_floats(m, 1, eight, &seed);
  op.activation = (lqc_activation){-1.0f, 1.0f};
  add_op(m, op);
}
