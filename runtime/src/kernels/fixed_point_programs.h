/* Programs of fixed point that have loops of their own: what these look for, whatever the instruction set. Private to
 * kernels/. */
#ifndef LQC_FIXED_POINT_PROGRAMS_H
#define LQC_FIXED_POINT_PROGRAMS_H

#include <stdbool.h>
#include <string.h>

#include "kernels_isa.h"

/* Where a program stores to: at most one output of int8, without a shift to the left, and one of bits. */
typedef struct block_stores {
  const lqc_lane_store *integers, *signs; /* NULL: none */
  int8_t *integers_out;
  uint8_t *signs_out;
  size_t integers_bytes, signs_bytes; /* of a pixel */
} block_stores;

/* Whether it stores nothing else. */
static inline bool find_stores(const lqc_lane_program *program, const lqc_lane_pixels *pixels, block_stores *stores) {
  *stores = (block_stores){0};
  for (uint32_t i = 0; i < program->store_count; ++i) {
    const lqc_lane_store *store = &program->stores[i];
    if (store->dtype == LQC_INT8 && store->left == NULL && stores->integers == NULL) {
      stores->integers = store;
      stores->integers_out = pixels->outputs[i];
      stores->integers_bytes = pixels->output_bytes[i];
    } else if (store->dtype == LQC_BIT && stores->signs == NULL) {
      stores->signs = store;
      stores->signs_out = pixels->outputs[i];
      stores->signs_bytes = pixels->output_bytes[i];
    } else {
      return false;
    }
  }
  return true;
}

/* A program of at most these steps, in this order, and at most these stores. */
typedef struct lqc_usual_program {
  bool relu_before;
  const lqc_lane_step *pair, *affine, *add; /* NULL: none. A PAIR is instead of both others; the sum is of int8 */
  bool relu;
  const int8_t *input; /* of the sum or the PAIR; NULL: none */
  size_t input_bytes;
  block_stores stores;
} lqc_usual_program;

/* The step that is next, if it is of that kind. */
static inline const lqc_lane_step *lqc_take_step(const lqc_lane_program *program, uint32_t *next,
                                                 lqc_lane_step_kind kind) {
  return *next < program->step_count && program->steps[*next].kind == kind ? &program->steps[(*next)++] : NULL;
}

static inline bool lqc_find_usual(const lqc_lane_program *program, const lqc_lane_pixels *pixels,
                                  lqc_usual_program *found) {
  uint32_t next = 0;
  *found = (lqc_usual_program){.relu_before = lqc_take_step(program, &next, LQC_LANE_RELU) != NULL};
  found->pair = lqc_take_step(program, &next, LQC_LANE_PAIR);
  if (found->pair == NULL) {
    found->affine = lqc_take_step(program, &next, LQC_LANE_AFFINE);
    found->add = lqc_take_step(program, &next, LQC_LANE_ADD_INT8);
  }
  found->relu = lqc_take_step(program, &next, LQC_LANE_RELU) != NULL;
  const lqc_lane_step *adds = found->pair ? found->pair : found->add;
  if (adds && adds->operand > 0) {
    found->input = pixels->inputs[adds->operand];
    found->input_bytes = pixels->input_bytes[adds->operand];
  }
  return next == program->step_count && find_stores(program, pixels, &found->stores);
}

/* Sets pointers of block *b to what a usual program has from `channel` on; lanes_of(lanes, channel) gives NULL for
 * NULL. The type of lanes is the includer's. */
#define LQC_SET_LANES(b, program, channel)                                  \
  do {                                                                      \
    const lqc_lane_step *affine = (program)->affine, *add = (program)->add; \
    const block_stores *of = &(program)->stores;                            \
    if (affine) {                                                           \
      (b)->multiplier = lanes_of(affine->multiplier, channel);              \
      (b)->offset = lanes_of(affine->offset, channel);                      \
    }                                                                       \
    if (add) {                                                              \
      (b)->shift = lanes_of(add->shift, channel);                           \
      (b)->operand_shift = lanes_of(add->operand_shift, channel);           \
    }                                                                       \
    if (of->integers) {                                                     \
      (b)->half = lanes_of(of->integers->half, channel);                    \
      (b)->right = lanes_of(of->integers->right, channel);                  \
    }                                                                       \
    if (of->signs) {                                                        \
      (b)->thresholds = lanes_of(of->signs->thresholds, channel);           \
    }                                                                       \
  } while (0)

/* Whether y before the first step is v = (full - p) >> (step_log2 - 1) within +-limit, with `full` halved, all in 16
 * bits. */
static inline bool lqc_has_narrow_sums(const lqc_lane_pixels *pixels) {
  return pixels->source == LQC_LANES_SUMS && pixels->limit > 0 && pixels->step_log2 > 0 && pixels->step_log2 < 16 &&
         pixels->full <= INT16_MAX;
}

#endif /* LQC_FIXED_POINT_PROGRAMS_H */
