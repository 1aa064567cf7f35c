/* The integer network: the same on every instruction set and with any number of threads, and with one mistake each. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "whole_models.h"

enum { QUANTIZE, STEM, BINARY, DEPTHWISE, JOIN, JOIN_BITS, RELU, MEAN, FLATTEN, DENSE };

#define STEP(m, i, s) (&OP(m, i)->fixed_point.steps[s])
#define STORE(m, i, s) (&OP(m, i)->fixed_point.stores[s])
#define CONSTANT(m, i) (&(m)->constants[i])
#define OUTPUT(m, i) (&(m)->tensors[OP(m, i)->outputs[0]])
/* A place at the end of the arena, where a tensor may grow. */
#define MOVE(m, tensor) ((tensor)->offset = (m)->arena_bytes, (m)->arena_bytes += 1024)
#define INT64_OF(m, i) ((int64_t *)(void *)CONSTANT(m, i)->data)

BREAK(no_stores, OP(m, STEM)->fixed_point.store_count = 0)
BREAK(stores_1_of_2, OP(m, STEM)->fixed_point.store_count = 1)
BREAK(stores_2_of_1, OP(m, DENSE)->fixed_point.store_count = 2)
BREAK(stores_5, OP(m, RELU)->fixed_point.store_count = 5)
BREAK(steps_33, OP(m, RELU)->fixed_point.step_count = 33)
BREAK(inputs_17, OP(m, RELU)->input_count = 17)
BREAK(inputs_0, OP(m, JOIN)->input_count = 0)
BREAK(outputs_5, OP(m, RELU)->output_count = 5)
BREAK(quantize_inputs, OP(m, QUANTIZE)->input_count = 2)
BREAK(mean_outputs, OP(m, MEAN)->output_count = 2)
BREAK(second_index, OP(m, BINARY)->inputs[1] = 99)
BREAK(output_index, OP(m, BINARY)->outputs[1] = 99)
BREAK(output_twice, OP(m, BINARY)->outputs[1] = OP(m, BINARY)->outputs[0])
BREAK(output_is_input, OP(m, BINARY)->outputs[1] = OP(m, BINARY)->inputs[1])
BREAK(second_unwritten, OP(m, STEM)->inputs[1] = OP(m, DENSE)->outputs[0]; OP(m, STEM)->input_count = 2)
BREAK(overlap_inputs, m->tensors[OP(m, BINARY)->outputs[0]].offset = m->tensors[OP(m, BINARY)->inputs[1]].offset)
BREAK(overlap_operand, m->outputs[2] = m->outputs[--m->output_count];
      OUTPUT(m, DEPTHWISE)->offset = OUTPUT(m, BINARY)->offset + 64)
BREAK(overlap_outputs, m->tensors[OP(m, STEM)->outputs[1]].offset = m->tensors[OP(m, STEM)->outputs[0]].offset)
BREAK(epilogue_missing, OP(m, BINARY)->epilogue = LQC_CLIP)
BREAK(epilogue_extra, OP(m, BINARY)->fixed_point.store_count = 0)
BREAK(threshold_extra, OP(m, BINARY)->thresholds = STORE(m, STEM, 1)->thresholds)
BREAK(many_outputs, OP(m, BINARY)->fixed_point.store_count = 0; OP(m, BINARY)->epilogue = LQC_CLIP)

BREAK(step_kind, STEP(m, RELU, 0)->kind = LQC_STEP_COUNT)
BREAK(relu_constant, STEP(m, STEM, 1)->shift = 0)
BREAK(affine_shift, STEP(m, STEM, 0)->shift = STORE(m, STEM, 0)->shift)
BREAK(affine_operand, STEP(m, BINARY, 0)->operand = 1)
BREAK(affine_bare, STEP(m, STEM, 0)->multiplier = -1)
BREAK(multiplier_index, STEP(m, STEM, 0)->multiplier = 99)
BREAK(offset_index, STEP(m, STEM, 0)->offset = -2)
BREAK(multiplier_dtype, STEP(m, STEM, 0)->multiplier = STEP(m, STEM, 0)->offset)
BREAK(offset_dtype, STEP(m, STEM, 0)->offset = STEP(m, STEM, 0)->multiplier)
BREAK(offset_short, CONSTANT(m, STEP(m, STEM, 0)->offset)->shape[0] = 7;
      CONSTANT(m, STEP(m, STEM, 0)->offset)->bytes = 56)
BREAK(offset_bytes, CONSTANT(m, STEP(m, STEM, 0)->offset)->bytes = 56)
BREAK(offset_alignment, CONSTANT(m, STEP(m, STEM, 0)->offset)->misalignment = 8)
BREAK(add_multiplier, STEP(m, BINARY, 1)->multiplier = STEP(m, STEM, 0)->multiplier)
BREAK(add_operand_0, STEP(m, BINARY, 1)->operand = 0)
BREAK(add_operand_2, STEP(m, BINARY, 1)->operand = 2)
BREAK(add_dtype, OP(m, BINARY)->inputs[1] = 0)
BREAK(add_shape, OP(m, DENSE)->inputs[1] = OP(m, MEAN)->outputs[0]; OP(m, DENSE)->input_count = 2)
BREAK(add_shift_negative, CONSTANT(m, STEP(m, BINARY, 1)->shift)->data[2] = (uint8_t)-1)
BREAK(add_shift_63, CONSTANT(m, STEP(m, BINARY, 1)->operand_shift)->data[2] = 63)
BREAK(add_shift_dtype, STEP(m, BINARY, 1)->shift = STEP(m, STEM, 0)->multiplier)

BREAK(overflow_offset, INT64_OF(m, STEP(m, STEM, 0)->offset)[5] = ((int64_t)1 << 62) - 1)
BREAK(overflow_int64, INT64_OF(m, STEP(m, STEM, 0)->offset)[7] = INT64_MIN)
BREAK(overflow_shift, CONSTANT(m, STEP(m, BINARY, 1)->shift)->data[6] = 62)
BREAK(overflow_operand, CONSTANT(m, STEP(m, BINARY, 1)->operand_shift)->data[1] = 56)
BREAK(overflow_bias, ((int32_t *)(void *)CONSTANT(m, OP(m, STEM)->bias)->data)[4] = INT32_MAX)

BREAK(store_dtype, OUTPUT(m, DENSE)->dtype = LQC_INT32)
BREAK(store_shape, m->tensors[OP(m, STEM)->outputs[1]].shape[2] = 7)
BREAK(store_thresholds, STORE(m, STEM, 0)->thresholds = STORE(m, STEM, 1)->thresholds)
BREAK(store_bit_shift, STORE(m, STEM, 1)->shift = STORE(m, STEM, 0)->shift)
BREAK(store_invert, STORE(m, DENSE, 0)->invert = STORE(m, BINARY, 1)->invert)
BREAK(store_shift_63, CONSTANT(m, STORE(m, STEM, 0)->shift)->data[0] = 63)
BREAK(store_shift_low, CONSTANT(m, STORE(m, STEM, 0)->shift)->data[0] = (uint8_t)-63)
BREAK(store_shift_index, STORE(m, STEM, 0)->shift = 99)
BREAK(store_shift_dtype, STORE(m, STEM, 0)->shift = STEP(m, STEM, 0)->multiplier)
BREAK(store_threshold_dtype, STORE(m, STEM, 1)->thresholds = STEP(m, STEM, 0)->multiplier)
BREAK(store_invert_tail, CONSTANT(m, STORE(m, BINARY, 1)->invert)->data[1] = 1)

BREAK(int8_input, OP(m, STEM)->inputs[0] = 0)
BREAK(int8_weights_index, OP(m, STEM)->weights = -1)
BREAK(int8_weights_dtype, OP(m, STEM)->weights = OP(m, BINARY)->weights)
BREAK(int8_weights_shape, OP(m, STEM)->weights = OP(m, DEPTHWISE)->weights)
BREAK(int8_bias_dtype, OP(m, STEM)->bias = STORE(m, STEM, 0)->shift)
BREAK(int8_groups_0, OP(m, STEM)->groups = 0)
BREAK(int8_groups_2, OP(m, STEM)->groups = 2)
BREAK(int8_stride_0, OP(m, STEM)->window.stride_h = 0)
BREAK(elementwise_input, OP(m, RELU)->inputs[0] = 0)
BREAK(elementwise_shape, OP(m, RELU)->inputs[0] = OP(m, STEM)->outputs[0])
BREAK(quantize_input, OP(m, QUANTIZE)->inputs[0] = OP(m, STEM)->outputs[0]; OP(m, QUANTIZE)->outputs[0] = 1)
BREAK(quantize_output, MOVE(m, &m->tensors[1]); m->tensors[1].dtype = LQC_FLOAT32; m->tensors[1].fraction_count = 0)
BREAK(quantize_shape, m->tensors[1].shape[0] = 4)
BREAK(join_dtype, OUTPUT(m, JOIN)->dtype = LQC_INT8)
BREAK(join_channels, MOVE(m, OUTPUT(m, JOIN)); OUTPUT(m, JOIN)->shape[2] = 17)
BREAK(join_fewer, OUTPUT(m, JOIN)->shape[2] = 15)
BREAK(join_pixels, OUTPUT(m, JOIN)->shape[0] = 4)
BREAK(join_fractions, OUTPUT(m, JOIN)->fraction_count = 1; OUTPUT(m, JOIN)->fraction_bits[0] = 3)
BREAK(join_mixed, OP(m, JOIN)->inputs[1] = OP(m, STEM)->outputs[1])
BREAK(mean_dtype, OUTPUT(m, MEAN)->dtype = LQC_FLOAT32; OUTPUT(m, MEAN)->fraction_count = 0)

static const wrong_model wrong_models[] = {
    {"no stores", no_stores, LQC_ERROR_MALFORMED, "0 stores and 2 outputs"},
    {"one store of two", stores_1_of_2, LQC_ERROR_MALFORMED, "1 stores and 2 outputs"},
    {"two stores of one", stores_2_of_1, LQC_ERROR_MALFORMED, "2 stores and 1 outputs"},
    {"5 stores", stores_5, LQC_ERROR_MALFORMED, "5 stores"},
    {"33 steps", steps_33, LQC_ERROR_UNSUPPORTED, "33 fixed-point steps"},
    {"17 inputs", inputs_17, LQC_ERROR_UNSUPPORTED, "17 inputs"},
    {"no inputs", inputs_0, LQC_ERROR_UNSUPPORTED, "0 inputs"},
    {"5 outputs", outputs_5, LQC_ERROR_UNSUPPORTED, "5 outputs"},
    {"inputs of Quantize", quantize_inputs, LQC_ERROR_UNSUPPORTED, "accepted is 1"},
    {"outputs of a pool", mean_outputs, LQC_ERROR_UNSUPPORTED, "accepted is 1"},
    {"index of an operand", second_index, LQC_ERROR_MALFORMED, "inputs names tensor 99"},
    {"index of an output", output_index, LQC_ERROR_MALFORMED, "outputs names tensor 99"},
    {"an output twice", output_twice, LQC_ERROR_MALFORMED, "it has written"},
    {"an output that is an input", output_is_input, LQC_ERROR_MALFORMED, "an earlier op has written"},
    {"operand not written yet", second_unwritten, LQC_ERROR_MALFORMED, "before anything has written it"},
    {"output over operand", overlap_inputs, LQC_ERROR_MALFORMED, "'stem' and 'binary'"},
    {"output over the last use of an operand", overlap_operand, LQC_ERROR_MALFORMED, "'binary' and 'depthwise'"},
    {"output over output", overlap_outputs, LQC_ERROR_MALFORMED, "'stem' and 'stem_bits'"},
    {"fixed_point of another epilogue", epilogue_missing, LQC_ERROR_MALFORMED, "the epilogue is another"},
    {"epilogue without fixed_point", epilogue_extra, LQC_ERROR_MALFORMED, "fixed_point"},
    {"thresholds beside fixed_point", threshold_extra, LQC_ERROR_MALFORMED, "epilogue FixedPoint takes no constant"},
    {"outputs of another epilogue", many_outputs, LQC_ERROR_UNSUPPORTED, "2 inputs and 2 outputs"},
    {"kind of step", step_kind, LQC_ERROR_UNSUPPORTED, "kind is 3"},
    {"constant of Relu", relu_constant, LQC_ERROR_MALFORMED, "step 1 has shift"},
    {"shift of Affine", affine_shift, LQC_ERROR_MALFORMED, "step 0 has shift"},
    {"operand of Affine", affine_operand, LQC_ERROR_MALFORMED, "operand 1 of 2 inputs"},
    {"no multiplier", affine_bare, LQC_ERROR_MALFORMED, "no multiplier"},
    {"index of multiplier", multiplier_index, LQC_ERROR_MALFORMED, "multiplier is constant 99"},
    {"index of offset", offset_index, LQC_ERROR_MALFORMED, "offset is constant -2"},
    {"dtype of multiplier", multiplier_dtype, LQC_ERROR_MALFORMED, "wrong dtype int64"},
    {"dtype of offset", offset_dtype, LQC_ERROR_MALFORMED, "wrong dtype int32"},
    {"short offset", offset_short, LQC_ERROR_MALFORMED, "7 elements instead of 8"},
    {"bytes of offset", offset_bytes, LQC_ERROR_MALFORMED, "56 bytes of data"},
    {"alignment of offset", offset_alignment, LQC_ERROR_MALFORMED, "not a multiple of 16"},
    {"multiplier of Add", add_multiplier, LQC_ERROR_MALFORMED, "step 1 has multiplier"},
    {"operand 0", add_operand_0, LQC_ERROR_MALFORMED, "operand 0 of 2 inputs"},
    {"operand 2 of 2", add_operand_2, LQC_ERROR_MALFORMED, "operand 2 of 2 inputs"},
    {"dtype of operand", add_dtype, LQC_ERROR_UNSUPPORTED, "'image' is float32"},
    {"shape of operand", add_shape, LQC_ERROR_MALFORMED, "'mean' is [1, 1, 16]"},
    {"negative shift", add_shift_negative, LQC_ERROR_MALFORMED, "shift[2]"},
    {"shift of 63", add_shift_63, LQC_ERROR_MALFORMED, "operand_shift[2]"},
    {"dtype of shift", add_shift_dtype, LQC_ERROR_MALFORMED, "wrong dtype int32"},
    {"overflow by offset", overflow_offset, LQC_ERROR_UNSUPPORTED, "step 0 may take channel 5"},
    {"overflow of 64 bits", overflow_int64, LQC_ERROR_UNSUPPORTED, "step 0 may take channel 7"},
    {"overflow by shift", overflow_shift, LQC_ERROR_UNSUPPORTED, "step 1 may take channel 6"},
    {"overflow by operand", overflow_operand, LQC_ERROR_UNSUPPORTED, "step 1 may take channel 1"},
    {"overflow by bias", overflow_bias, LQC_ERROR_UNSUPPORTED, "sums of channel 4"},
    {"dtype of output", store_dtype, LQC_ERROR_UNSUPPORTED, "'scores' is int32"},
    {"shape of output", store_shape, LQC_ERROR_MALFORMED, "'stem_bits' is [5, 4, 7]"},
    {"thresholds of int8", store_thresholds, LQC_ERROR_MALFORMED, "store of 'stem'"},
    {"shift of bits", store_bit_shift, LQC_ERROR_MALFORMED, "store of 'stem_bits'"},
    {"invert of float32", store_invert, LQC_ERROR_MALFORMED, "store of 'scores'"},
    {"store's shift of 63", store_shift_63, LQC_ERROR_MALFORMED, "shift[0]"},
    {"store's shift of -63", store_shift_low, LQC_ERROR_MALFORMED, "is -63; accepted are -62 to 62"},
    {"index of store's shift", store_shift_index, LQC_ERROR_MALFORMED, "shift is constant 99"},
    {"dtype of store's shift", store_shift_dtype, LQC_ERROR_MALFORMED, "wrong dtype int32"},
    {"dtype of store's thresholds", store_threshold_dtype, LQC_ERROR_MALFORMED, "wrong dtype int32"},
    {"tail of store's invert", store_invert_tail, LQC_ERROR_MALFORMED, "above the last one"},
    {"input of Int8Conv2D", int8_input, LQC_ERROR_UNSUPPORTED, "'image' is float32"},
    {"no weights", int8_weights_index, LQC_ERROR_MALFORMED, "weights is constant -1"},
    {"dtype of weights", int8_weights_dtype, LQC_ERROR_MALFORMED, "wrong dtype bit"},
    {"shape of weights", int8_weights_shape, LQC_ERROR_MALFORMED, "axis 3 of weights"},
    {"dtype of bias", int8_bias_dtype, LQC_ERROR_MALFORMED, "wrong dtype int8"},
    {"0 groups", int8_groups_0, LQC_ERROR_UNSUPPORTED, "groups is 0"},
    {"2 groups", int8_groups_2, LQC_ERROR_MALFORMED, "groups is 2"},
    {"stride 0", int8_stride_0, LQC_ERROR_UNSUPPORTED, "stride_h is 0"},
    {"input of Elementwise", elementwise_input, LQC_ERROR_UNSUPPORTED, "'image' is float32; accepted: int8, int16"},
    {"shape of Elementwise", elementwise_shape, LQC_ERROR_MALFORMED, "16 channels of 8"},
    {"order of Quantize", quantize_input, LQC_ERROR_MALFORMED, "before anything has written it"},
    {"output of Quantize", quantize_output, LQC_ERROR_UNSUPPORTED, "'pixels' is float32; accepted: int8, int16"},
    {"shape of Quantize", quantize_shape, LQC_ERROR_MALFORMED, "4 x 4 pixels of 5 x 4"},
    {"narrower Concatenate", join_dtype, LQC_ERROR_UNSUPPORTED, "'depthwise' is int16; accepted: int8"},
    {"channels of Concatenate", join_channels, LQC_ERROR_MALFORMED, "17 channels of 16"},
    {"too many channels", join_fewer, LQC_ERROR_MALFORMED, "accepted is what fits"},
    {"pixels of Concatenate", join_pixels, LQC_ERROR_MALFORMED, "accepted is what fits"},
    {"fractions of Concatenate", join_fractions, LQC_ERROR_MALFORMED, "has 0 fraction_bits"},
    {"bits beside integers", join_mixed, LQC_ERROR_UNSUPPORTED, "'stem_bits' is bit"},
    {"mean of integers as float", mean_dtype, LQC_ERROR_UNSUPPORTED, "'mean' is float32; accepted: int8, int16"},
};

int main(void) {
  check_same_everywhere(integer_network);
  check_plan(integer_network);
  for (size_t i = 0; i < sizeof(wrong_models) / sizeof(wrong_models[0]); ++i) {
    check_wrong(&wrong_models[i], integer_network);
  }
  return 0;
}
