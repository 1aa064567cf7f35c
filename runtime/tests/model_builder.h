/* Model files made in C, so that the tests of the runtime need no Python: any model, right or wrong. */
#ifndef LQC_MODEL_BUILDER_H
#define LQC_MODEL_BUILDER_H

#include "kernels_testing.h"
#include "model.h"
#include "pool.h"

#define BUILDER_ITEMS 64

/* What a file is to hold. Fields may be changed before build_file() to make a wrong model. */
typedef struct built_model {
  uint32_t version;
  uint64_t arena_bytes;
  uint32_t tensor_count, constant_count, op_count, input_count, output_count;
  struct {
    const char *name;
    uint8_t dtype;
    uint32_t rank, shape[4];
    uint64_t offset;
    uint32_t fraction_count;
    int8_t fraction_bits[512];
  } tensors[BUILDER_ITEMS];
  struct {
    uint8_t dtype;
    uint32_t rank, shape[5];
    uint8_t *data; /* owned */
    size_t bytes, misalignment;
  } constants[BUILDER_ITEMS];
  struct {
    lqc_op op;
    int no_params;
  } ops[BUILDER_ITEMS];
  uint32_t inputs[BUILDER_ITEMS], outputs[BUILDER_ITEMS];
} built_model;

typedef struct built_file {
  uint8_t *data; /* from aligned_alloc */
  size_t size;
} built_file;

void model_start(built_model *m);
/* Each returns the new item's index. A tensor gets a place of its own. height 0: rank 1. */
uint32_t add_tensor(built_model *m, const char *name, lqc_dtype dtype, uint32_t height, uint32_t width,
                    uint32_t channels);
/* `data` NULL: zeros. */
int32_t add_constant(built_model *m, lqc_dtype dtype, uint32_t rank, const uint32_t *shape, const void *data);
/* Random words with tail bits 0, the last axis in words of its own, as kernels have it; a file holds bits without gaps.
 */
int32_t add_random_bits(built_model *m, uint32_t rank, const uint32_t *shape, uint64_t *seed);
/* Random multiples of 1/8 in [-4, 4]. */
int32_t add_random_floats(built_model *m, uint32_t rank, const uint32_t *shape, uint64_t *seed);
/* An op with "none" in all fields and a 1x1 window. */
lqc_op make_op(lqc_op_kind kind, const char *name, uint32_t input, uint32_t output);
uint32_t add_op(built_model *m, lqc_op op);
void model_end(built_model *m);

built_file build_file(const built_model *m);

/* The same bytes in memory of exactly that size, aligned to 16. */
uint8_t *exact_copy(const uint8_t *data, size_t size);

/* A network with every kind of op, which the tests of whole files break in many ways (sample_network.c):
 *
 *   op  0 first    Conv2D         "image" float 6x5x3 -> "first" 6x5x8, relu
 *       1 pool     MaxPool2D      -> "pooled" 3x3x8
 *       2 norm     Affine         -> "norm"
 *       3 sign     Bitpack        -> "signs"
 *       4 binary   BinaryConv2D   -> "binary" bits 3x3x70, threshold, padded with +1
 *       5 bitpool  BitMaxPool2D   -> "bitpooled" 2x2x70
 *       6 grouped  BinaryConv2D   -> "clipped" int8 2x2x64, 2 groups, zero padding
 *       7 signs8   Bitpack        -> "bits8"
 *       8 flatten  Reshape        -> "flat" bits 256, in the place of "bits8"
 *       9 dense    BinaryConv2D   -> "dense" float 10, affine
 *      10 softmax  Softmax        -> "scores", an output
 *      11 unpack   Unpack         "signs" -> "unpacked"
 *      12 mean     AveragePool2D  -> "mean" 1x1x8, an output */
void sample_network(built_model *m, uint64_t seed);

/* The same for ops of fixed point (integer_network.c):
 *
 *   op 0 quantize   Quantize       "image" float 5x4x3 -> "pixels" int8
 *      1 stem       Int8Conv2D     -> "stem" int8 5x4x8 and "stem_bits"; bias, Affine, Relu
 *      2 binary     BinaryConv2D   "stem_bits", "stem" -> "binary" int16 and "binary_bits"; Affine, Add
 *      3 depthwise  Int8Conv2D     "stem", "binary" -> "depthwise" int16; 8 groups, Add
 *      4 join       Concatenate    "stem", "depthwise" -> "joined" int16 5x4x16
 *      5 join_bits  Concatenate    "stem_bits", "binary_bits" -> "joined_bits"
 *      6 relu       Elementwise    "joined" -> "relu" float
 *      7 mean       AveragePool2D  "joined" -> "mean" int8 1x1x16
 *      8 flatten    Reshape        -> "flat" int8 16
 *      9 dense      Int8Conv2D     -> "scores" float 10 */
void integer_network(built_model *m, uint64_t seed);

/* The same for ops between the layers of plain models (plain_network.c):
 *
 *   op  0 grouped    Conv2D        "image" float 6x5x8 -> "grouped", 2 groups, relu6
 *       1 depthwise  Conv2D        -> "depthwise", 8 groups
 *       2 prelu      PReLU         -> "prelu"
 *       3 add        Arithmetic    "prelu", "image" -> "sum"
 *       4 mean       AveragePool2D -> "mean" 1x1x8
 *       5 gate       Function      -> "gate", sigmoid
 *       6 scale      Arithmetic    "sum", "gate" -> "scaled", product
 *       7 region     Slice         -> "region" 7x4x8, beyond the edges
 *       8 planes     Bitpack       -> "plane_0" and "plane_1" bits 7x4x8
 *       9 join       Concatenate   -> "joined" bits 7x4x16
 *      10 pad        Slice         -> "padded" bits 9x6x16, an output
 *      11 quantize   Quantize      "scaled" -> "stored" int8 6x5x8
 *      12 space      DepthToSpace  -> "space" int8 12x10x2, an output
 *      13 row        Reshape       "scaled" -> "row" float 30x8, two axes
 *      14 clip       Affine        -> "clipped" 30x8, an output */
void plain_network(built_model *m, uint64_t seed);

/* Loads and makes a session; fails the test where that is not possible. */
typedef struct test_session {
  built_file file;
  lqc_model model;
  void *memory;
  lqc_session *session;
} test_session;

test_session open_session(const built_model *m, const lqc_options *options);
void close_session(test_session *s);

/* A copy of a tensor of a model that was run, with two threads where there are, on `inputs`, one for each; all
 * instruction sets must agree on it. */
void *run_model(const built_model *m, const void *const *inputs, uint32_t tensor);

#define EXPECT(condition, ...)                       \
  do {                                               \
    if (!(condition)) {                              \
      fprintf(stderr, "not true: %s\n", #condition); \
      FAIL(__VA_ARGS__);                             \
    }                                                \
  } while (0)

static inline int random_bit(uint64_t *seed) {
  return (int)(random_u64(seed) >> 63);
}

static inline int bit_at(const uint64_t *words, uint32_t c) {
  return (int)(words[c / 64] >> (c % 64) & 1);
}

#endif /* LQC_MODEL_BUILDER_H */
