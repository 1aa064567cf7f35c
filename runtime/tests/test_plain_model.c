/* The network of ops between the layers of plain models: where it runs, and with one mistake each. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>

#include "whole_models.h"

#define DATA(m, constant) ((m)->constants[constant].data)

BREAK(groups_0, OP(m, 0)->groups = 0)
BREAK(groups_3, OP(m, 0)->groups = 3)
BREAK(groups_4, OP(m, 0)->groups = 4)
BREAK(groups_large, OP(m, 1)->groups = UINT32_MAX)
BREAK(slope_index, OP(m, 2)->slope = 99)
BREAK(slope_missing, OP(m, 2)->slope = -1)
BREAK(slope_shape, m->constants[OP(m, 2)->slope].shape[0] = 8; m->constants[OP(m, 2)->slope].shape[2] = 1)
BREAK(slope_rank, OP(m, 2)->slope = OP(m, 0)->bias)
BREAK(slope_nan, memset(DATA(m, OP(m, 2)->slope), 0xff, 4))
BREAK(slope_dtype, m->constants[OP(m, 2)->slope].dtype = LQC_INT32)
BREAK(prelu_shape, m->tensors[3].shape[0] = 5)
BREAK(arithmetic_kind, OP(m, 3)->arithmetic = LQC_ARITHMETIC_COUNT)
BREAK(arithmetic_one, OP(m, 3)->input_count = 1)
BREAK(arithmetic_three, OP(m, 3)->inputs[OP(m, 3)->input_count++] = 0)
BREAK(arithmetic_dtype, m->tensors[4].dtype = LQC_INT32)
BREAK(arithmetic_shape, OP(m, 6)->inputs[0] = 6)
BREAK(arithmetic_smaller, m->tensors[7].shape[0] = 1)
BREAK(arithmetic_pixels, m->tensors[0].shape[0] = 5; m->tensors[0].shape[1] = 6)
BREAK(function_kind, OP(m, 5)->function = LQC_FUNCTION_COUNT)
BREAK(function_shape, m->tensors[6].shape[2] = 7)
BREAK(slice_begin, OP(m, 7)->begin_h = -(1 << 24) - 1)
BREAK(slice_begin_high, OP(m, 7)->begin_c = INT32_MAX)
BREAK(slice_value, OP(m, 7)->value = INFINITY)
BREAK(slice_dtype, m->tensors[8].dtype = LQC_INT32)
BREAK(slice_bit, OP(m, 10)->value = 0.0f)
BREAK(slice_word, OP(m, 10)->begin_c = 1)
BREAK(slice_channels, m->tensors[12].shape[2] = 15)
BREAK(slice_negative, OP(m, 10)->begin_c = -64)
BREAK(planes_four, for (int i = 0; i < 2; ++i) OP(m, 8)->outputs[OP(m, 8)->output_count++] = 11)
BREAK(planes_none, OP(m, 8)->thresholds = -1)
BREAK(planes_rank, OP(m, 8)->thresholds = OP(m, 0)->bias)
BREAK(planes_order, ((float *)(void *)DATA(m, OP(m, 8)->thresholds))[20] = -2.0f)
BREAK(planes_nan, memset(DATA(m, OP(m, 8)->thresholds), 0xff, 4))
BREAK(planes_dtype, m->tensors[10].dtype = LQC_INT8)
BREAK(planes_shape, m->tensors[10].shape[0] = 6)
BREAK(planes_same, OP(m, 8)->outputs[1] = OP(m, 8)->outputs[0])
BREAK(block_0, OP(m, 12)->block_h = 0)
BREAK(block_large, OP(m, 12)->block_w = UINT32_MAX)
BREAK(block_4, OP(m, 12)->block_h = 4)
BREAK(block_shape, m->tensors[14].shape[2] = 1)
BREAK(block_dtype, m->tensors[14].dtype = LQC_BIT; m->tensors[14].fraction_count = 0; m->tensors[14].shape[0] = 1)
BREAK(block_fractions, m->tensors[14].fraction_bits[0] = 3)
BREAK(row_shape, m->tensors[16].shape[0] = 29)

static const wrong_model wrong_models[] = {
    {"0 groups", groups_0, LQC_ERROR_UNSUPPORTED, "groups is 0"},
    {"3 groups", groups_3, LQC_ERROR_MALFORMED, "groups is 3 with 8 input"},
    {"4 groups", groups_4, LQC_ERROR_MALFORMED, "axis 2 of weights"},
    {"many groups", groups_large, LQC_ERROR_UNSUPPORTED, "groups is 4294967295"},
    {"index of a slope", slope_index, LQC_ERROR_MALFORMED, "slope is constant 99"},
    {"no slope", slope_missing, LQC_ERROR_MALFORMED, "slope is constant -1"},
    {"shape of a slope", slope_shape, LQC_ERROR_MALFORMED, "axis 0 of slope"},
    {"rank of a slope", slope_rank, LQC_ERROR_MALFORMED, "1 axes instead of 3"},
    {"NaN in a slope", slope_nan, LQC_ERROR_MALFORMED, "NaN"},
    {"dtype of a slope", slope_dtype, LQC_ERROR_MALFORMED, "wrong dtype int32"},
    {"shape of PReLU", prelu_shape, LQC_ERROR_MALFORMED, "5 x 5 pixels of 6 x 5"},
    {"kind of Arithmetic", arithmetic_kind, LQC_ERROR_UNSUPPORTED, "kind is 5"},
    {"one operand", arithmetic_one, LQC_ERROR_MALFORMED, "1 inputs"},
    {"three operands", arithmetic_three, LQC_ERROR_UNSUPPORTED, "3 inputs"},
    {"dtype of Arithmetic", arithmetic_dtype, LQC_ERROR_UNSUPPORTED, "'sum' is int32"},
    {"shape of an operand", arithmetic_shape, LQC_ERROR_MALFORMED, "makes [6, 5, 8] of [1, 1, 8] and [1, 1, 8]"},
    {"shape of a product", arithmetic_smaller, LQC_ERROR_MALFORMED, "(Arithmetic) makes [1, 5, 8]"},
    {"pixels of an operand", arithmetic_pixels, LQC_ERROR_MALFORMED, "of [6, 5, 8] and [5, 6, 8]"},
    {"kind of Function", function_kind, LQC_ERROR_UNSUPPORTED, "kind is 2"},
    {"shape of Function", function_shape, LQC_ERROR_MALFORMED, "7 channels of 8"},
    {"low begin", slice_begin, LQC_ERROR_UNSUPPORTED, "begin_h is -16777217"},
    {"high begin", slice_begin_high, LQC_ERROR_UNSUPPORTED, "begin_c is 2147483647"},
    {"value of Slice", slice_value, LQC_ERROR_MALFORMED, "value is not a finite number"},
    {"dtype of Slice", slice_dtype, LQC_ERROR_UNSUPPORTED, "'region' is int32"},
    {"value of bits", slice_bit, LQC_ERROR_MALFORMED, "not -1 or 1"},
    {"bits from channel 1", slice_word, LQC_ERROR_MALFORMED, "channels 1 to 17 of 16"},
    {"bits to channel 15", slice_channels, LQC_ERROR_MALFORMED, "channels 0 to 15 of 16"},
    {"bits before channel 0", slice_negative, LQC_ERROR_MALFORMED, "channels -64 to -48"},
    {"four planes", planes_four, LQC_ERROR_UNSUPPORTED, "4 outputs; accepted are 1 to 3"},
    {"no levels", planes_none, LQC_ERROR_MALFORMED, "no thresholds"},
    {"rank of levels", planes_rank, LQC_ERROR_MALFORMED, "1 axes instead of 2"},
    {"order of levels", planes_order, LQC_ERROR_MALFORMED, "threshold 2 of channel 4 is below"},
    {"NaN in levels", planes_nan, LQC_ERROR_MALFORMED, "NaN"},
    {"dtype of a plane", planes_dtype, LQC_ERROR_UNSUPPORTED, "'plane_1' is int8"},
    {"shape of a plane", planes_shape, LQC_ERROR_MALFORMED, "6 x 4 pixels of 7 x 4"},
    {"a plane twice", planes_same, LQC_ERROR_MALFORMED, "it has written already"},
    {"block of 0", block_0, LQC_ERROR_UNSUPPORTED, "block_h is 0"},
    {"large block", block_large, LQC_ERROR_UNSUPPORTED, "block_w is 4294967295"},
    {"block of 4", block_4, LQC_ERROR_MALFORMED, "(DepthToSpace) makes int8 [12, 10, 2]"},
    {"shape of DepthToSpace", block_shape, LQC_ERROR_MALFORMED, "(DepthToSpace) makes int8 [12, 10, 1]"},
    {"dtype of DepthToSpace", block_dtype, LQC_ERROR_UNSUPPORTED, "'space' is bit; accepted: int8"},
    {"fractions of DepthToSpace", block_fractions, LQC_ERROR_MALFORMED, "the same fraction_bits"},
    {"shape of a row", row_shape, LQC_ERROR_MALFORMED, "1 x 29 pixels of 1 x 30"},
};

int main(void) {
  check_same_everywhere(plain_network);
  check_plan(plain_network);
  for (size_t i = 0; i < sizeof(wrong_models) / sizeof(wrong_models[0]); ++i) {
    check_wrong(&wrong_models[i], plain_network);
  }
  return 0;
}
