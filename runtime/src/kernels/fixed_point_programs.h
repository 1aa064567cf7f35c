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

/* The program of a residual layer: a PAIR, perhaps between RELUs, of int8 or of a v that takes 16 bits. */
typedef struct lqc_pair_program {
  const lqc_lane_step *pair;
  const int8_t *input; /* NULL: none */
  size_t input_bytes;
  bool relu_before, relu;
  block_stores stores;
} lqc_pair_program;

/* v = (full - p) >> (step_log2 - 1) within +-limit, with `full` halved: whether all of that fits 16 bits. */
static inline bool has_narrow_sums(const lqc_lane_pixels *pixels) {
  return pixels->source == LQC_LANES_SUMS && pixels->limit > 0 && pixels->step_log2 > 0 && pixels->step_log2 < 16 &&
         pixels->full <= INT16_MAX;
}

static inline bool lqc_find_pair(const lqc_lane_program *program, const lqc_lane_pixels *pixels,
                                 lqc_pair_program *found) {
  const lqc_lane_step *steps = program->steps, *const end = steps + program->step_count;
  *found = (lqc_pair_program){.relu_before = steps < end && steps->kind == LQC_LANE_RELU};
  steps += found->relu_before;
  if (steps >= end || steps->kind != LQC_LANE_PAIR || !(has_narrow_sums(pixels) || pixels->source == LQC_LANES_INT8) ||
      !find_stores(program, pixels, &found->stores)) {
    return false;
  }
  found->pair = steps++;
  if (found->pair->operand > 0) {
    found->input = pixels->inputs[found->pair->operand];
    found->input_bytes = pixels->input_bytes[found->pair->operand];
  }
  found->relu = steps < end && steps->kind == LQC_LANE_RELU;
  return steps + found->relu == end;
}

#endif /* LQC_FIXED_POINT_PROGRAMS_H */
