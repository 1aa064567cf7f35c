/* How an op is prepared and run. One file an op: op_<name>.c. */
#ifndef LQC_OP_H
#define LQC_OP_H

#include <string.h>

#include "kernels.h"
#include "model.h"
#include "pool.h"
#include "window.h"

/* ---- Preparing ------------------------------------------------------------------------------------------------ */

/* Memory handed out front to back, aligned to LQC_ALIGNMENT. With base NULL it only counts and hands out NULL: the
 * same code finds the size and fills the memory, so the two cannot disagree. */
typedef struct lqc_bump {
  uint8_t *base;
  size_t used, bytes; /* bytes: of the memory at base, without scratch memory that is in use at its end */
} lqc_bump;

/* Fails with LQC_ERROR_UNSUPPORTED where the size does not fit this machine, with LQC_ERROR_ARENA_TOO_SMALL where it
 * does not fit the memory. */
lqc_status lqc_bump_take(lqc_bump *bump, size_t count, size_t element_bytes, void **memory, lqc_error *error);

typedef struct lqc_prepare {
  const lqc_model_view *view;
  const lqc_kernels *kernels;
  lqc_error *error;
  lqc_bump *bump;
  uint32_t threads;
  size_t thread_scratch; /* bytes, the largest that any op needs for each thread */
  size_t shared_scratch; /* bytes, the same for all threads together */
  size_t scratch;        /* bytes, the most that preparing an op takes for itself */
  uint64_t *work_left;   /* see lqc_spend_work() */
} lqc_prepare;

/* ---- Running -------------------------------------------------------------------------------------------------- */

typedef struct lqc_node lqc_node;

typedef struct lqc_runner {
  lqc_pool *pool;
  uint8_t *thread_scratch; /* thread t: thread_scratch + t * thread_scratch_bytes */
  size_t thread_scratch_bytes;
  void *shared_scratch;
} lqc_runner;

/* An output may lie exactly where an input does that reads_by_pixel() of plan.c names: then a thread must have read a
 * pixel of that input before it writes the same pixel of any output, and read no other pixel of it afterwards. */
typedef void (*lqc_run_op)(const lqc_node *node, const lqc_runner *runner);

/* A prepared op. */
struct lqc_node {
  const char *name;
  lqc_op_kind kind;
  const char *kernel;
  uint64_t binary_macs, int8_macs, float_macs;
  uint64_t nanoseconds;
  bool light; /* the calling thread does it alone */
  lqc_run_op run;
  const void *state;   /* the op's own, in session memory */
  const void *weights; /* what a run reads once, packed, [weights_bytes]; or NULL */
  size_t weights_bytes;
  const lqc_node *next;                 /* the next op that has weights; or NULL */
  void *const *inputs, *const *outputs; /* as many as the op has */
  void *input, *output;                 /* the first of each */
};

/* Checks an op's meaning, takes memory and fills it (unless bump->base is NULL), and sets the node's kernel, macs,
 * run and state. `input` and `output` are the first of op->input_count and op->output_count tensors. */
typedef lqc_status (*lqc_prepare_op)(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                     const lqc_tensor *output, lqc_node *node);

#define LQC_DECLARE_OP(NAME, name)                                                               \
  lqc_status lqc_prepare_##name(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input, \
                                const lqc_tensor *output, lqc_node *node);
LQC_OP_LIST(LQC_DECLARE_OP)
#undef LQC_DECLARE_OP

/* ---- Checks that several ops share ---------------------------------------------------------------------------- */

#define LQC_MASK(dtype) (1u << (dtype))

/* Takes `steps` from the work that preparing may do. Ops may share constants, and a window of a few bytes may have many
 * kinds of borders: without a bound, a small hostile file could keep init busy for hours. */
lqc_status lqc_spend_work(const lqc_prepare *prepare, const lqc_op *op, uint64_t steps);

/* tensor->info.dtype is in `mask`; `role` is "input" or "output". */
lqc_status lqc_expect_dtype(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *tensor, const char *role,
                            unsigned mask);

/* input and output have the same shape. */
lqc_status lqc_expect_same_shape(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                 const lqc_tensor *output);

/* input and output have the same channels. */
lqc_status lqc_expect_same_channels(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                    const lqc_tensor *output);

/* op->groups divides the channels of both. */
lqc_status lqc_expect_groups(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                             const lqc_tensor *output);

/* Fraction bits of channel c of an integer tensor. */
int lqc_fraction_of(const lqc_tensor *tensor, uint32_t c);

/* An integer input and its output have the same fraction bits, element by element. Reshape may change the channels:
 * there one format for all of them stays the same, and one by channel where either number of channels divides the
 * other. */
lqc_status lqc_expect_same_fractions(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                     const lqc_tensor *output);

/* Every window of a pool sees a pixel of the image. */
lqc_status lqc_expect_pool_window(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                  const lqc_tensor *output);

/* Reads constant `index` of `field` and checks dtype and shape. Float constants must not hold NaN, and unless
 * `infinities`, no infinity. Bits above the last one must be 0. With index LQC_NO_CONSTANT constant->data is NULL.
 */
lqc_status lqc_expect_constant(const lqc_prepare *prepare, const lqc_op *op, const char *field, int32_t index,
                               unsigned mask, const uint32_t *shape, uint32_t rank, bool infinities,
                               lqc_constant *constant);

/* Copies a constant of float32 [channels] to memory of a multiple of LQC_SUMS_MULTIPLE, zeros behind; for kernels
 * that read whole vectors. Keeps NULL. */
lqc_status lqc_pad_floats(lqc_prepare *prepare, const lqc_constant *constant, uint32_t channels, const float **padded);

/* Sees to it that each thread has that much scratch memory while the op runs. */
void lqc_need_thread_scratch(lqc_prepare *prepare, size_t bytes);

/* Memory for preparing this op, which preparing the next one overwrites; each call gives the same place, the end of the
 * session's memory. NULL while counting. Aligned to LQC_ALIGNMENT. It overlaps with nothing that was taken before; what
 * is taken afterwards overlaps only where the memory is too small, and then building the session fails in the end. */
lqc_status lqc_take_scratch(lqc_prepare *prepare, size_t bytes, void **memory);

/* Takes memory for `state` and copies it there. */
lqc_status lqc_keep_state(lqc_prepare *prepare, lqc_node *node, const void *state, size_t bytes);

/* Multiply-accumulates of a convolution with in_channels (of one group), saturated: a count for information. */
uint64_t lqc_count_macs(const lqc_window *window, const lqc_tensor *output, uint32_t in_channels);

/* The bits of the i-th float32, whatever type the memory was written as. */
static inline uint32_t lqc_float_bits(const void *floats, size_t i) {
  uint32_t bits;
  memcpy(&bits, (const uint8_t *)floats + i * sizeof(bits), sizeof(bits));
  return bits;
}

/* 2^exponent, a normal number: -126 <= exponent <= 127. */
static inline float lqc_power_of_two(int exponent) {
  union {
    uint32_t raw;
    float value;
  } number = {.raw = (uint32_t)(exponent + 127) << 23};
  return number.value;
}

/* A NaN stays one. */
static inline float lqc_activate(lqc_activation activation, float x) {
  x = x < activation.low ? activation.low : x;
  return x > activation.high ? activation.high : x;
}

#endif /* LQC_OP_H */
