#include "model.h"

#include <string.h>

#include "checked.h"

#define LQC_MODEL_TAG 0x4c5143316d6f646cULL
#define IDENTIFIER "LCB1"
#define CONSTANT_ALIGNMENT 16u

_Static_assert(LQC_MAX_RANK == 3, "height, width, channels");
_Static_assert(CONSTANT_ALIGNMENT == LQC_FILE_ALIGNMENT, "constants are read in place");

const char *lqc_dtype_name(lqc_dtype dtype) {
  static const char *const names[] = {"bit", "int8", "int16", "int32", "float32", "int64"};
  return (unsigned)dtype < LQC_DTYPE_COUNT ? names[dtype] : "unknown";
}

size_t lqc_array_bytes(lqc_dtype dtype, const uint32_t *shape, uint32_t rank) {
  static const size_t element_bytes[] = {8, 1, 2, 4, 4, 8};
  size_t bytes = element_bytes[dtype];
  for (uint32_t i = 0; i < rank; ++i) {
    size_t n = dtype == LQC_BIT && i + 1 == rank ? lqc_words(shape[i]) : shape[i];
    if (!lqc_multiply_size(bytes, n, &bytes) || bytes > PTRDIFF_MAX) {
      return 0;
    }
  }
  return bytes;
}

/* Bytes of a constant: unlike those of a tensor, its bits have no gaps. */
static size_t constant_bytes(lqc_dtype dtype, const uint32_t *shape, uint32_t rank) {
  size_t bits = 1;
  if (dtype != LQC_BIT) {
    return lqc_array_bytes(dtype, shape, rank);
  }
  for (uint32_t i = 0; i < rank; ++i) {
    if (!lqc_multiply_size(bits, shape[i], &bits) || bits > PTRDIFF_MAX) {
      return 0;
    }
  }
  return (bits + 63) / 64 * 8;
}

/* Reads a dtype and a shape of at most max_rank axes, and the bytes that `bytes_of` says they take. */
static lqc_status read_array(const lqc_table *t, lqc_field dtype_field, lqc_field shape_field, uint32_t max_rank,
                             size_t (*bytes_of)(lqc_dtype dtype, const uint32_t *shape, uint32_t rank),
                             lqc_dtype *dtype, uint32_t *rank, uint32_t *shape, size_t *bytes) {
  uint8_t code = 0;
  lqc_vector dimensions;
  LQC_TRY(lqc_table_scalar(t, dtype_field, &code, 1));
  if (code >= LQC_DTYPE_COUNT) {
    return lqc_fail(t->error, LQC_ERROR_UNSUPPORTED, "%s %u has dtype %u; known are 0 to %d", t->type, t->index,
                    (unsigned)code, (int)LQC_DTYPE_COUNT - 1);
  }
  *dtype = (lqc_dtype)code;
  LQC_TRY(lqc_table_vector(t, shape_field, 4, true, &dimensions));
  if (dimensions.count == 0 || dimensions.count > max_rank) {
    return lqc_fail(t->error, LQC_ERROR_UNSUPPORTED, "%s %u has a shape of %u axes; accepted are 1 to %u", t->type,
                    t->index, dimensions.count, max_rank);
  }
  *rank = dimensions.count;
  for (uint32_t i = 0; i < dimensions.count; ++i) {
    shape[i] = lqc_vector_u32(&dimensions, i);
    if (shape[i] == 0 || shape[i] > LQC_MAX_DIMENSION) {
      return lqc_fail(t->error, LQC_ERROR_UNSUPPORTED, "axis %u of %s %u has %u elements; accepted are 1 to %u", i,
                      t->type, t->index, shape[i], LQC_MAX_DIMENSION);
    }
  }
  *bytes = bytes_of(*dtype, shape, *rank);
  if (*bytes == 0) {
    return lqc_fail(t->error, LQC_ERROR_UNSUPPORTED, "the shape of %s %u takes more bytes than can be addressed",
                    t->type, t->index);
  }
  return LQC_OK;
}

lqc_status lqc_read_tensor(const lqc_model_view *view, uint32_t index, lqc_tensor *tensor, lqc_error *error) {
  static const lqc_field name = {0, "name"}, dtype = {1, "dtype"}, shape = {2, "shape"},
                         fraction_bits = {3, "fraction_bits"}, offset = {4, "offset"};
  lqc_table t;
  lqc_vector fractions;
  *tensor = (lqc_tensor){.index = index};
  LQC_TRY(lqc_vector_table(view->buffer, &view->tensors, index, "Tensor", &t, error));
  LQC_TRY(lqc_table_string(&t, name, true, &tensor->info.name));
  LQC_TRY(read_array(&t, dtype, shape, LQC_MAX_RANK, lqc_array_bytes, &tensor->info.dtype, &tensor->info.rank,
                     tensor->info.shape, &tensor->info.bytes));
  if (tensor->info.dtype == LQC_INT64) {
    return lqc_fail(error, LQC_ERROR_UNSUPPORTED, "tensor '%s' is int64; only constants may be", tensor->info.name);
  }
  uint32_t rank = tensor->info.rank;
  tensor->height = rank == 3 ? tensor->info.shape[0] : 1;
  tensor->width = rank >= 2 ? tensor->info.shape[rank - 2] : 1;
  tensor->channels = tensor->info.shape[rank - 1];
  LQC_TRY(lqc_table_vector(&t, fraction_bits, 1, false, &fractions));
  bool integer = tensor->info.dtype != LQC_BIT && tensor->info.dtype != LQC_FLOAT32;
  if (fractions.count > 0 && (!integer || (fractions.count != 1 && fractions.count != tensor->channels))) {
    return lqc_fail(error, LQC_ERROR_MALFORMED,
                    "tensor '%s' (%s, %u channels) has %u fraction_bits; accepted are 0, for integers also 1 or one "
                    "per channel",
                    tensor->info.name, lqc_dtype_name(tensor->info.dtype), tensor->channels, fractions.count);
  }
  tensor->fraction_bits = (const int8_t *)fractions.data;
  tensor->fraction_count = fractions.count;
  LQC_TRY(lqc_table_scalar(&t, offset, &tensor->offset, 8));
  if (tensor->offset % LQC_ALIGNMENT != 0) {
    return lqc_fail(error, LQC_ERROR_MALFORMED, "tensor '%s' has offset %llu; accepted are multiples of %d",
                    tensor->info.name, (unsigned long long)tensor->offset, LQC_ALIGNMENT);
  }
  if (tensor->offset > view->arena_bytes || tensor->info.bytes > view->arena_bytes - tensor->offset) {
    return lqc_fail(error, LQC_ERROR_MALFORMED, "tensor '%s' takes bytes %llu to %llu of an arena of %llu bytes",
                    tensor->info.name, (unsigned long long)tensor->offset,
                    (unsigned long long)tensor->offset + tensor->info.bytes, (unsigned long long)view->arena_bytes);
  }
  return LQC_OK;
}

lqc_status lqc_read_constant(const lqc_model_view *view, uint32_t index, lqc_constant *constant, lqc_error *error) {
  static const lqc_field dtype = {0, "dtype"}, shape = {1, "shape"}, data = {2, "data"};
  lqc_table t;
  lqc_vector bytes;
  *constant = (lqc_constant){.index = index};
  LQC_TRY(lqc_vector_table(view->buffer, &view->constants, index, "Constant", &t, error));
  LQC_TRY(read_array(&t, dtype, shape, LQC_MAX_CONSTANT_RANK, constant_bytes, &constant->dtype, &constant->rank,
                     constant->shape, &constant->bytes));
  LQC_TRY(lqc_table_vector(&t, data, 1, true, &bytes));
  if (bytes.count != constant->bytes) {
    return lqc_fail(error, LQC_ERROR_MALFORMED, "Constant %u has %u bytes of data; its shape and dtype take %zu", index,
                    bytes.count, constant->bytes);
  }
  if (bytes.position % CONSTANT_ALIGNMENT != 0) {
    return lqc_fail(error, LQC_ERROR_MALFORMED, "the data of Constant %u start at byte %u, not a multiple of %u", index,
                    bytes.position, CONSTANT_ALIGNMENT);
  }
  constant->data = bytes.data;
  return LQC_OK;
}

/* Checks that the indices of a vector are below `limit`. */
static lqc_status check_indices(const lqc_vector *indices, uint32_t limit, const char *what, lqc_error *error) {
  for (uint32_t i = 0; i < indices->count; ++i) {
    uint32_t tensor = lqc_vector_u32(indices, i);
    if (tensor >= limit) {
      return lqc_fail(error, LQC_ERROR_MALFORMED, "%s %u of the model is tensor %u of %u", what, i, tensor, limit);
    }
    for (uint32_t j = 0; j < i; ++j) {
      if (lqc_vector_u32(indices, j) == tensor) {
        return lqc_fail(error, LQC_ERROR_MALFORMED, "%s %u of the model, tensor %u, is listed twice", what, i, tensor);
      }
    }
  }
  return LQC_OK;
}

static lqc_status read_items(const lqc_table *t, lqc_field field, bool required, lqc_vector *vector) {
  LQC_TRY(lqc_table_vector(t, field, 4, required, vector));
  if (vector->count > LQC_MAX_ITEMS) {
    return lqc_fail(t->error, LQC_ERROR_UNSUPPORTED, "field '%s' of the model has %u elements; at most %u are accepted",
                    field.name, vector->count, LQC_MAX_ITEMS);
  }
  if (required && vector->count == 0) {
    return lqc_fail(t->error, LQC_ERROR_MALFORMED, "field '%s' of the model is empty", field.name);
  }
  return LQC_OK;
}

static lqc_status read_model(lqc_model_view *view, lqc_error *error) {
  static const lqc_field version = {0, "version"}, producer = {1, "producer"}, name = {2, "name"},
                         tensors = {3, "tensors"}, constants = {4, "constants"}, ops = {5, "ops"},
                         inputs = {6, "inputs"}, outputs = {7, "outputs"}, arena_bytes = {8, "arena_bytes"};
  lqc_table t;
  uint32_t format = 0;
  const char *text;
  LQC_TRY(lqc_root_table(view->buffer, "Model", &t, error));
  LQC_TRY(lqc_table_scalar(&t, version, &format, 4));
  if (format != LQC_FORMAT_VERSION) {
    return lqc_fail(error, LQC_ERROR_VERSION, "the model file has format version %u; this library reads version %u",
                    format, LQC_FORMAT_VERSION);
  }
  LQC_TRY(lqc_table_string(&t, producer, false, &text));
  LQC_TRY(lqc_table_string(&t, name, false, &text));
  LQC_TRY(lqc_table_scalar(&t, arena_bytes, &view->arena_bytes, 8));
  LQC_TRY(read_items(&t, tensors, true, &view->tensors));
  LQC_TRY(read_items(&t, constants, false, &view->constants));
  LQC_TRY(read_items(&t, ops, true, &view->ops));
  LQC_TRY(read_items(&t, inputs, true, &view->inputs));
  LQC_TRY(read_items(&t, outputs, true, &view->outputs));
  LQC_TRY(check_indices(&view->inputs, view->tensors.count, "input", error));
  return check_indices(&view->outputs, view->tensors.count, "output", error);
}

lqc_status lqc_model_load(lqc_model *model, const void *data, size_t size, lqc_error *error) {
  if (model == NULL || data == NULL) {
    return lqc_fail(error, LQC_ERROR_NULL, "lqc_model_load: %s is NULL", model == NULL ? "model" : "data");
  }
  if ((uintptr_t)data % LQC_FILE_ALIGNMENT != 0) {
    return lqc_fail(error, LQC_ERROR_ALIGNMENT, "the bytes of a model file must be aligned to %d", LQC_FILE_ALIGNMENT);
  }
  if (size < 8 || memcmp((const uint8_t *)data + 4, IDENTIFIER, 4) != 0) {
    return lqc_fail(error, LQC_ERROR_NOT_A_MODEL,
                    "not a larq_clip model file: %zu bytes, without the identifier " IDENTIFIER " at byte 4", size);
  }
  if (size > INT32_MAX) {
    return lqc_fail(error, LQC_ERROR_UNSUPPORTED, "the model file has %zu bytes; at most 2147483647 are accepted",
                    size);
  }
  lqc_model_view view = {.tag = LQC_MODEL_TAG, .buffer = {data, (uint32_t)size}};
  LQC_TRY(read_model(&view, error));
  for (uint32_t i = 0; i < view.tensors.count; ++i) {
    lqc_tensor tensor;
    LQC_TRY(lqc_read_tensor(&view, i, &tensor, error));
  }
  for (uint32_t i = 0; i < view.constants.count; ++i) {
    lqc_constant constant;
    LQC_TRY(lqc_read_constant(&view, i, &constant, error));
  }
  for (uint32_t i = 0; i < view.ops.count; ++i) {
    lqc_op op;
    LQC_TRY(lqc_read_op(&view, i, &op, error));
  }
  memset(model, 0, sizeof(*model));
  memcpy(model, &view, sizeof(view));
  return lqc_succeed(error);
}

bool lqc_model_get_view(const lqc_model *model, lqc_model_view *view) {
  if (model == NULL) {
    return false;
  }
  memcpy(view, model, sizeof(*view));
  return view->tag == LQC_MODEL_TAG;
}

#define LQC_DEFINE_COUNT(what)                                        \
  size_t lqc_model_##what##_count(const lqc_model *model) {           \
    lqc_model_view view;                                              \
    return lqc_model_get_view(model, &view) ? view.what##s.count : 0; \
  }
LQC_DEFINE_COUNT(input)
LQC_DEFINE_COUNT(output)
LQC_DEFINE_COUNT(tensor)
LQC_DEFINE_COUNT(op)

size_t lqc_model_input_tensor(const lqc_model *model, size_t input) {
  lqc_model_view view;
  return lqc_model_get_view(model, &view) && input < view.inputs.count ? lqc_vector_u32(&view.inputs, (uint32_t)input)
                                                                       : SIZE_MAX;
}

size_t lqc_model_output_tensor(const lqc_model *model, size_t output) {
  lqc_model_view view;
  return lqc_model_get_view(model, &view) && output < view.outputs.count
             ? lqc_vector_u32(&view.outputs, (uint32_t)output)
             : SIZE_MAX;
}

lqc_status lqc_model_tensor_info(const lqc_model *model, size_t tensor, lqc_tensor_info *info) {
  lqc_model_view view;
  lqc_tensor found;
  if (!lqc_model_get_view(model, &view) || info == NULL) {
    return LQC_ERROR_NULL;
  }
  if (tensor >= view.tensors.count) {
    return LQC_ERROR_OPTION;
  }
  LQC_TRY(lqc_read_tensor(&view, (uint32_t)tensor, &found, NULL));
  *info = found.info;
  return LQC_OK;
}
