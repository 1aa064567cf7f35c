/* The sample network with one mistake each. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>

#include "whole_models.h"

BREAK(version_2, m->version = 2)
BREAK(version_0, m->version = 0)
BREAK(no_ops, m->op_count = 0)
BREAK(no_inputs, m->input_count = 0)
BREAK(no_outputs, m->output_count = 0)
BREAK(input_index, m->inputs[0] = m->tensor_count)
BREAK(output_twice, m->outputs[1] = m->outputs[0])
BREAK(dtype, m->tensors[1].dtype = 6)
BREAK(dtype_int64, m->tensors[1].dtype = LQC_INT64)
BREAK(rank_2, m->tensors[1].rank = 2)
BREAK(rank_4, m->tensors[1].rank = 4; m->tensors[1].shape[3] = 1)
BREAK(dimension_0, m->tensors[1].shape[0] = 0)
BREAK(dimension_large, m->tensors[1].shape[0] = LQC_MAX_DIMENSION + 1)
BREAK(bytes_large, for (int i = 0; i < 3; ++i) m->tensors[1].shape[i] = LQC_MAX_DIMENSION)
BREAK(offset, m->tensors[1].offset += 32)
BREAK(arena_small, m->arena_bytes -= 64)
BREAK(offset_large, m->tensors[1].offset = UINT64_MAX - 63)
BREAK(arena_large, m->arena_bytes = UINT64_MAX)
BREAK(fractions_of_float, m->tensors[1].fraction_count = 1)
BREAK(fractions_3, m->tensors[7].fraction_count = 3)
BREAK(fraction_missing, m->tensors[7].fraction_count = 0)
BREAK(fraction_value, m->tensors[7].fraction_bits[0] = 0)
BREAK(constant_dtype, m->constants[0].dtype = 9)
BREAK(constant_bytes, m->constants[0].bytes -= 4)
BREAK(constant_alignment, m->constants[0].misalignment = 4)
BREAK(constant_rank, m->constants[0].rank = 5; m->constants[0].shape[4] = 1)
BREAK(op_type_0, OP(m, 0)->kind = LQC_OP_NONE)
BREAK(op_type_99, OP(m, 0)->kind = (lqc_op_kind)99)
BREAK(op_inputs, OP(m, 0)->input_count = 2)
BREAK(op_outputs, OP(m, 0)->output_count = 0)
BREAK(op_input_index, OP(m, 0)->inputs[0] = 99)
BREAK(op_output_index, OP(m, 0)->outputs[0] = 99)
BREAK(op_params, m->ops[0].no_params = 1)
BREAK(kernel_0, OP(m, 0)->window.kernel_h = 0)
BREAK(stride_0, OP(m, 4)->window.stride_w = 0)
BREAK(dilation_large, OP(m, 4)->window.dilation_w = 65536)
BREAK(weights_index, OP(m, 0)->weights = 99)
BREAK(weights_negative, OP(m, 0)->weights = -1)
BREAK(bias_index, OP(m, 0)->bias = -2)
BREAK(activation_order, OP(m, 0)->activation.high = -1.0f)
BREAK(activation_nan, OP(m, 2)->activation.low = NAN)
BREAK(activation_infinite, OP(m, 2)->activation.low = INFINITY)
BREAK(epilogue, OP(m, 4)->epilogue = (lqc_epilogue)4)
BREAK(pad_value, OP(m, 4)->pad_value = 2)
BREAK(step, OP(m, 4)->step_log2 = 15)
BREAK(step_low, OP(m, 4)->step_log2 = -7)
BREAK(clip_limit, OP(m, 4)->clip_limit = 0x80000000u)
BREAK(groups_0, OP(m, 4)->groups = 0)
BREAK(reads_early, OP(m, 3)->inputs[0] = 5)
BREAK(reads_own_output, OP(m, 3)->inputs[0] = 4)
BREAK(writes_input, OP(m, 0)->outputs[0] = 0)
BREAK(writes_twice, OP(m, 12)->outputs[0] = 11)
BREAK(unwritten, add_tensor(m, "lost", LQC_BIT, 1, 1, 1))
BREAK(overlap, m->tensors[3].offset = m->tensors[2].offset + 64)
BREAK(overlap_later, m->tensors[5].offset = m->tensors[4].offset)
BREAK(overlap_output, m->tensors[12].offset = m->tensors[11].offset)
BREAK(conv_dtype, m->tensors[1].dtype = LQC_INT32)
BREAK(conv_shape, m->constants[OP(m, 0)->weights].shape[0] = 1; m->constants[OP(m, 0)->weights].shape[1] = 9)
BREAK(conv_nan, ((float *)(void *)m->constants[OP(m, 0)->weights].data)[5] = (float)(0.0 / 0.0 * 1.0))
BREAK(multiplier_infinity, memcpy(m->constants[OP(m, 2)->multiplier].data, "\0\0\x80\x7f", 4))
BREAK(accumulator, OP(m, 4)->window.kernel_h = 4096; OP(m, 4)->window.kernel_w = 513)
BREAK(threshold_nan, memset(m->constants[OP(m, 3)->thresholds].data, 0xff, 4))
BREAK(weights_tail, m->constants[OP(m, 4)->weights].data[70 * 9 * 8 - 7] = 1)
BREAK(invert_tail, m->constants[OP(m, 4)->invert].data[15] = 0x80)
BREAK(groups_3, OP(m, 4)->groups = 3)
BREAK(thresholds_missing, OP(m, 4)->thresholds = -1)
BREAK(thresholds_dtype, OP(m, 4)->thresholds = OP(m, 4)->invert)
BREAK(multiplier_extra, OP(m, 4)->multiplier = OP(m, 9)->multiplier)
BREAK(multiplier_missing, OP(m, 9)->multiplier = -1)
BREAK(clip_0, OP(m, 6)->clip_limit = 0; OP(m, 6)->step_log2 = 0)
BREAK(clip_128, OP(m, 6)->clip_limit = 128)
BREAK(step_without_clip, OP(m, 4)->clip_limit = 0; OP(m, 4)->step_log2 = 1)
BREAK(affine_clip, OP(m, 9)->clip_limit = INT32_MAX)
BREAK(pool_outside, OP(m, 1)->window.pad_top = 3)
BREAK(pool_channels, m->tensors[2].shape[2] = 7)
BREAK(bitpool_outside, OP(m, 5)->window.stride_w = 3)
BREAK(softmax_channels, m->tensors[11].shape[0] = 9)
BREAK(affine_pixels, m->tensors[3].shape[0] = 2)
BREAK(reshape_bits, m->tensors[9].shape[0] = 255)
BREAK(reshape_dtype, m->tensors[9].dtype = LQC_INT8; m->tensors[9].shape[0] = 32)

static const wrong_model wrong_models[] = {
    {"version 2", version_2, LQC_ERROR_VERSION, "version 2"},
    {"version 0", version_0, LQC_ERROR_VERSION, "version 0"},
    {"no ops", no_ops, LQC_ERROR_MALFORMED, "ops"},
    {"no inputs", no_inputs, LQC_ERROR_MALFORMED, "inputs"},
    {"no outputs", no_outputs, LQC_ERROR_MALFORMED, "outputs"},
    {"input index", input_index, LQC_ERROR_MALFORMED, "input 0"},
    {"output twice", output_twice, LQC_ERROR_MALFORMED, "twice"},
    {"dtype", dtype, LQC_ERROR_UNSUPPORTED, "dtype 6"},
    {"int64 tensor", dtype_int64, LQC_ERROR_UNSUPPORTED, "'first' is int64"},
    {"rank 2", rank_2, LQC_ERROR_MALFORMED, "axis 3 of weights"},
    {"rank 4", rank_4, LQC_ERROR_UNSUPPORTED, "4 axes"},
    {"dimension 0", dimension_0, LQC_ERROR_UNSUPPORTED, "0 elements"},
    {"dimension too large", dimension_large, LQC_ERROR_UNSUPPORTED, "16777217"},
    {"bytes too large", bytes_large, LQC_ERROR_UNSUPPORTED, "bytes"},
    {"offset", offset, LQC_ERROR_MALFORMED, "multiples of 64"},
    {"small arena", arena_small, LQC_ERROR_MALFORMED, "'mean'"},
    {"large offset", offset_large, LQC_ERROR_MALFORMED, "'first'"},
    {"large arena", arena_large, LQC_ERROR_UNSUPPORTED, "memory"},
    {"fractions of float", fractions_of_float, LQC_ERROR_MALFORMED, "fraction_bits"},
    {"3 fractions", fractions_3, LQC_ERROR_MALFORMED, "fraction_bits"},
    {"fraction missing", fraction_missing, LQC_ERROR_MALFORMED, "no fraction_bits"},
    {"fraction value", fraction_value, LQC_ERROR_MALFORMED, "'clipped'"},
    {"constant dtype", constant_dtype, LQC_ERROR_UNSUPPORTED, "Constant 0"},
    {"constant bytes", constant_bytes, LQC_ERROR_MALFORMED, "860 bytes"},
    {"constant alignment", constant_alignment, LQC_ERROR_MALFORMED, "multiple of 16"},
    {"constant rank", constant_rank, LQC_ERROR_UNSUPPORTED, "5 axes"},
    {"op type 0", op_type_0, LQC_ERROR_UNSUPPORTED, "type 0"},
    {"op type 99", op_type_99, LQC_ERROR_UNSUPPORTED, "type 99"},
    {"two inputs", op_inputs, LQC_ERROR_UNSUPPORTED, "2 inputs"},
    {"no output", op_outputs, LQC_ERROR_UNSUPPORTED, "0 outputs"},
    {"op input index", op_input_index, LQC_ERROR_MALFORMED, "tensor 99"},
    {"op output index", op_output_index, LQC_ERROR_MALFORMED, "tensor 99"},
    {"no params", op_params, LQC_ERROR_MALFORMED, "params"},
    {"kernel 0", kernel_0, LQC_ERROR_UNSUPPORTED, "kernel_h is 0"},
    {"stride 0", stride_0, LQC_ERROR_UNSUPPORTED, "stride_w is 0"},
    {"large dilation", dilation_large, LQC_ERROR_UNSUPPORTED, "dilation_w is 65536"},
    {"weights index", weights_index, LQC_ERROR_MALFORMED, "weights is constant 99"},
    {"no weights", weights_negative, LQC_ERROR_MALFORMED, "weights"},
    {"bias index", bias_index, LQC_ERROR_MALFORMED, "bias is constant -2"},
    {"order of an activation", activation_order, LQC_ERROR_MALFORMED, "no finite number lies between"},
    {"NaN in an activation", activation_nan, LQC_ERROR_MALFORMED, "no finite number lies between"},
    {"infinite activation", activation_infinite, LQC_ERROR_MALFORMED, "no finite number lies between"},
    {"epilogue", epilogue, LQC_ERROR_UNSUPPORTED, "epilogue is 4"},
    {"pad value", pad_value, LQC_ERROR_UNSUPPORTED, "pad_value is 2"},
    {"step", step, LQC_ERROR_UNSUPPORTED, "step_log2 is 15"},
    {"low step", step_low, LQC_ERROR_UNSUPPORTED, "step_log2 is -7"},
    {"clip limit", clip_limit, LQC_ERROR_UNSUPPORTED, "clip_limit is 2147483648"},
    {"groups 0", groups_0, LQC_ERROR_UNSUPPORTED, "groups is 0"},
    {"reads early", reads_early, LQC_ERROR_MALFORMED, "'binary' before"},
    {"reads its output", reads_own_output, LQC_ERROR_MALFORMED, "'signs' before"},
    {"writes an input", writes_input, LQC_ERROR_MALFORMED, "model input"},
    {"writes twice", writes_twice, LQC_ERROR_MALFORMED, "'scores'"},
    {"never written", unwritten, LQC_ERROR_MALFORMED, "'lost'"},
    {"overlap", overlap, LQC_ERROR_MALFORMED, "'pooled' and 'norm'"},
    {"overlap with a later reader", overlap_later, LQC_ERROR_MALFORMED, "'signs' and 'binary'"},
    {"overlap with an output", overlap_output, LQC_ERROR_MALFORMED, "'scores'"},
    {"dtype of a convolution", conv_dtype, LQC_ERROR_UNSUPPORTED, "int32"},
    {"shape of weights", conv_shape, LQC_ERROR_MALFORMED, "axis 0 of weights"},
    {"NaN in weights", conv_nan, LQC_ERROR_MALFORMED, "NaN"},
    {"infinity in multiplier", multiplier_infinity, LQC_ERROR_MALFORMED, "infinity"},
    {"accumulator beyond float32", accumulator, LQC_ERROR_UNSUPPORTED, "accumulator beyond 16777216"},
    {"NaN in thresholds", threshold_nan, LQC_ERROR_MALFORMED, "NaN"},
    {"tail of weights", weights_tail, LQC_ERROR_MALFORMED, "weights (constant 6) has bits set above"},
    {"tail of invert", invert_tail, LQC_ERROR_MALFORMED, "invert"},
    {"3 groups", groups_3, LQC_ERROR_MALFORMED, "groups is 3"},
    {"no thresholds", thresholds_missing, LQC_ERROR_MALFORMED, "thresholds -1"},
    {"dtype of thresholds", thresholds_dtype, LQC_ERROR_MALFORMED, "wrong dtype bit"},
    {"multiplier with thresholds", multiplier_extra, LQC_ERROR_MALFORMED, "epilogue Threshold"},
    {"no multiplier", multiplier_missing, LQC_ERROR_MALFORMED, "epilogue Affine"},
    {"clip to 0", clip_0, LQC_ERROR_MALFORMED, "clip_limit is 0"},
    {"clip to 128", clip_128, LQC_ERROR_MALFORMED, "clip_limit is 128"},
    {"step without clip", step_without_clip, LQC_ERROR_MALFORMED, "step_log2 is 1"},
    {"affine clip", affine_clip, LQC_ERROR_UNSUPPORTED, "clip_limit"},
    {"pool outside", pool_outside, LQC_ERROR_MALFORMED, "row 0 lies outside"},
    {"pool channels", pool_channels, LQC_ERROR_MALFORMED, "7 channels of 8"},
    {"bit pool outside", bitpool_outside, LQC_ERROR_MALFORMED, "column 1 lies outside"},
    {"softmax channels", softmax_channels, LQC_ERROR_MALFORMED, "9 channels of 10"},
    {"affine pixels", affine_pixels, LQC_ERROR_MALFORMED, "pixels"},
    {"reshape bits", reshape_bits, LQC_ERROR_MALFORMED, "Reshape"},
    {"reshape dtype", reshape_dtype, LQC_ERROR_UNSUPPORTED, "int8"},
};

static void test_wrong_arguments(void) {
  built_model m;
  sample_network(&m, 7);
  built_file file = build_file(&m);
  lqc_model model;
  memset(&model, 0, sizeof(model));
  lqc_tensor_info info;
  lqc_error error;
  EXPECT(lqc_model_load(NULL, file.data, file.size, &error) == LQC_ERROR_NULL, "model");
  EXPECT(lqc_model_load(&model, NULL, file.size, NULL) == LQC_ERROR_NULL, "data");
  EXPECT(lqc_model_load(&model, file.data + 4, file.size - 4, &error) == LQC_ERROR_ALIGNMENT, "alignment");
  EXPECT(lqc_model_op_count(&model) == 0 && lqc_model_input_tensor(&model, 0) == SIZE_MAX, "not loaded");
  EXPECT(lqc_model_op_count(NULL) == 0, "NULL");
  EXPECT(lqc_model_load(&model, file.data, file.size, NULL) == LQC_OK, "error may be NULL");
  EXPECT(lqc_model_op_count(&model) == 13 && lqc_model_tensor_count(&model) == 14, "counts");
  EXPECT(lqc_model_input_count(&model) == 1 && lqc_model_output_count(&model) == 2, "counts");
  EXPECT(lqc_model_output_tensor(&model, 1) == 13 && lqc_model_output_tensor(&model, 2) == SIZE_MAX, "outputs");
  EXPECT(lqc_model_tensor_info(&model, 5, &info) == LQC_OK, "info");
  EXPECT(strcmp(info.name, "binary") == 0 && info.dtype == LQC_BIT && info.rank == 3 && info.shape[2] == 70, "info");
  EXPECT(info.bytes == 3 * 3 * 2 * 8, "%zu bytes", info.bytes);
  EXPECT(lqc_model_tensor_info(&model, 14, &info) != LQC_OK, "index");
  file.data[4] = 'X';
  EXPECT(lqc_model_load(&model, file.data, file.size, &error) == LQC_ERROR_NOT_A_MODEL, "identifier");
  for (int status = -1; status <= LQC_STATUS_COUNT; ++status) {
    EXPECT(lqc_status_message((lqc_status)status) != NULL, "message of %d", status);
  }
  free(file.data);
  model_end(&m);
}

/* Names from a file may hold anything; messages stay on one line, and what is too long is cut. */
static void test_names_in_messages(void) {
  built_model m;
  lqc_model model;
  lqc_error error;
  char name[600];
  memset(name, 'n', sizeof(name) - 1);
  name[sizeof(name) - 1] = '\0';
  name[1] = '\n';
  sample_network(&m, 7);
  m.ops[0].op.name = name;
  m.ops[0].op.groups = 1;
  m.ops[0].op.window.kernel_h = 0;
  built_file file = build_file(&m);
  EXPECT(lqc_model_load(&model, file.data, file.size, &error) == LQC_ERROR_UNSUPPORTED, "%s", error.message);
  EXPECT(strlen(error.message) == sizeof(error.message) - 1 && strstr(error.message, "n?n") != NULL, "%s",
         error.message);
  free(file.data);
  model_end(&m);
}

int main(void) {
  for (size_t i = 0; i < sizeof(wrong_models) / sizeof(wrong_models[0]); ++i) {
    check_wrong(&wrong_models[i], sample_network);
  }
  test_wrong_arguments();
  test_names_in_messages();
  return 0;
}
