/* What a model file holds, decoded one table at a time. Each call checks what it reads, so that it is safe on any
 * bytes; lqc_model_load() calls all of them once. */
#ifndef LQC_MODEL_H
#define LQC_MODEL_H

#include "flatbuffer.h"

#define LQC_FORMAT_VERSION 1u
/* Bounds that keep all later arithmetic small: no model comes near, and a hostile file is refused early. */
#define LQC_MAX_ITEMS 2048u          /* tensors, constants and ops, each */
#define LQC_MAX_DIMENSION (1u << 24) /* of any axis */
#define LQC_MAX_WINDOW 65535u        /* kernel, stride, dilation and padding */
#define LQC_MAX_CONSTANT_RANK 4u
#define LQC_MAX_INPUTS 16u /* of an op */
#define LQC_MAX_OUTPUTS 4u /* of an op */
#define LQC_MAX_STEPS 32u  /* of a FixedPoint */
#define LQC_MAX_PLANES 3u  /* of a Bitpack */

typedef struct lqc_model_view {
  uint64_t tag; /* LQC_MODEL_TAG once loaded */
  lqc_buffer buffer;
  lqc_vector tensors, constants, ops, inputs, outputs;
  uint64_t arena_bytes;
} lqc_model_view;

_Static_assert(sizeof(lqc_model_view) <= sizeof(lqc_model), "lqc_model must hold a view");

typedef struct lqc_tensor {
  lqc_tensor_info info;
  uint32_t index;
  uint32_t height, width, channels; /* [channels] is [1, 1, channels], [length, channels] is [1, length, channels] */
  uint64_t offset;
  const int8_t *fraction_bits;
  uint32_t fraction_count; /* 0, 1 or channels */
} lqc_tensor;

typedef struct lqc_constant {
  uint32_t index;
  lqc_dtype dtype;
  uint32_t rank;
  uint32_t shape[LQC_MAX_CONSTANT_RANK];
  const void *data;
  size_t bytes;
} lqc_constant;

typedef struct lqc_window {
  uint32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
} lqc_window;

/* Members of OpParams, in the schema's order. X(NAME, name) */
#define LQC_OP_LIST(X)              \
  X(BINARY_CONV_2D, BinaryConv2D)   \
  X(BIT_MAX_POOL_2D, BitMaxPool2D)  \
  X(BITPACK, Bitpack)               \
  X(UNPACK, Unpack)                 \
  X(CONV_2D, Conv2D)                \
  X(MAX_POOL_2D, MaxPool2D)         \
  X(AVERAGE_POOL_2D, AveragePool2D) \
  X(AFFINE, Affine)                 \
  X(SOFTMAX, Softmax)               \
  X(RESHAPE, Reshape)               \
  X(INT8_CONV_2D, Int8Conv2D)       \
  X(ELEMENTWISE, Elementwise)       \
  X(QUANTIZE, Quantize)             \
  X(CONCATENATE, Concatenate)       \
  X(ARITHMETIC, Arithmetic)         \
  X(PRELU, PReLU)                   \
  X(FUNCTION, Function)             \
  X(SLICE, Slice)                   \
  X(DEPTH_TO_SPACE, DepthToSpace)

typedef enum lqc_op_kind {
  LQC_OP_NONE = 0,
#define LQC_OP_ENUM(NAME, name) LQC_OP_##NAME,
  LQC_OP_LIST(LQC_OP_ENUM)
#undef LQC_OP_ENUM
      LQC_OP_KIND_COUNT
} lqc_op_kind;

typedef enum lqc_epilogue { LQC_THRESHOLD = 0, LQC_CLIP, LQC_AFFINE, LQC_FIXED_POINT, LQC_EPILOGUE_COUNT } lqc_epilogue;
typedef enum lqc_arithmetic {
  LQC_ADD = 0,
  LQC_SUBTRACT,
  LQC_MULTIPLY,
  LQC_MAXIMUM,
  LQC_MINIMUM,
  LQC_ARITHMETIC_COUNT
} lqc_arithmetic;
typedef enum lqc_function { LQC_SIGMOID = 0, LQC_TANH, LQC_FUNCTION_COUNT } lqc_function;

/* low <= high, neither NaN; infinities where an end does not limit. */
typedef struct lqc_activation {
  float low, high;
} lqc_activation;

#define LQC_NO_CONSTANT (-1)

typedef enum lqc_step_kind { LQC_STEP_RELU = 0, LQC_STEP_AFFINE, LQC_STEP_ADD, LQC_STEP_COUNT } lqc_step_kind;

/* Only constants that belong to the kind are set, an Affine's multiplier always; an Add's operand is an input from 1
 * on. */
typedef struct lqc_step {
  lqc_step_kind kind;
  uint32_t operand;
  int32_t multiplier, offset, shift, operand_shift;
} lqc_step;

typedef struct lqc_store {
  int32_t shift, thresholds, invert;
} lqc_store;

/* FixedPoint of the schema; no stores: the op has none. */
typedef struct lqc_fixed_point {
  uint32_t step_count, store_count; /* as many stores as the op has outputs */
  lqc_step steps[LQC_MAX_STEPS];
  lqc_store stores[LQC_MAX_OUTPUTS];
} lqc_fixed_point;

/* One op with the fields of every kind; a kind's own fields are set, the others hold "none". Constant indices are
 * below the number of constants or LQC_NO_CONSTANT, tensor indices below the number of tensors. */
typedef struct lqc_op {
  const char *name;
  lqc_op_kind kind;
  uint32_t index;
  uint32_t input_count, output_count; /* 1 or more; what the kind accepts */
  uint32_t inputs[LQC_MAX_INPUTS], outputs[LQC_MAX_OUTPUTS];
  lqc_window window;
  uint32_t groups;
  int8_t pad_value;
  int8_t step_log2;
  uint32_t clip_limit;
  lqc_epilogue epilogue;
  lqc_activation activation;
  lqc_arithmetic arithmetic;
  lqc_function function;
  int32_t begin_h, begin_w, begin_c; /* within +-LQC_MAX_DIMENSION */
  float value;                       /* finite */
  uint32_t block_h, block_w;         /* 1 to LQC_MAX_DIMENSION */
  int32_t weights, thresholds, invert, multiplier, offset, bias, slope;
  lqc_fixed_point fixed_point;
} lqc_op;

/* Copies the view out of a loaded model; false for NULL or one that was not loaded. A copy, because lqc_model is
 * declared as another type. */
bool lqc_model_get_view(const lqc_model *model, lqc_model_view *view);

/* index is below the vector's count. */
lqc_status lqc_read_tensor(const lqc_model_view *view, uint32_t index, lqc_tensor *tensor, lqc_error *error);
lqc_status lqc_read_constant(const lqc_model_view *view, uint32_t index, lqc_constant *constant, lqc_error *error);
lqc_status lqc_read_op(const lqc_model_view *view, uint32_t index, lqc_op *op, lqc_error *error);

const char *lqc_op_kind_name(lqc_op_kind kind);
const char *lqc_dtype_name(lqc_dtype dtype);

/* Bytes of a tensor, the last axis of bits in words; 0 where they are more than this machine can address. */
size_t lqc_array_bytes(lqc_dtype dtype, const uint32_t *shape, uint32_t rank);

/* 64-bit words of one pixel of `channels` bits. */
static inline uint32_t lqc_words(uint32_t channels) {
  return (channels + 63u) / 64u;
}

#endif /* LQC_MODEL_H */
