/* Fixed point: what several ops do with the exact integers of an output pixel (FixedPoint of the schema).
 *
 * Preparing follows the range of every channel's y through the steps, from the smallest and largest start and the
 * whole range of each operand's type, and refuses what could leave +-2^62. Where everything fits 32 bits, the program
 * runs in lanes of 32 bits, else of 64; the numbers are the same. */
#ifndef LQC_FIXED_POINT_H
#define LQC_FIXED_POINT_H

#include "op.h"

typedef struct lqc_range {
  int64_t low, high; /* low <= high */
} lqc_range;

/* Range of y of a channel before the first step: 32-bit integers. */
typedef lqc_range (*lqc_start_range)(const void *context, uint32_t channel);

/* Constants of a step as in the file; those it does not have hold data NULL. `operand` is the range of its type. */
typedef struct lqc_step_values {
  lqc_constant multiplier, offset, shift, operand_shift;
  lqc_range operand;
} lqc_step_values;

typedef struct lqc_store_values {
  lqc_constant shift, thresholds, invert;
} lqc_store_values;

typedef struct lqc_fixed_values {
  lqc_step_values steps[LQC_MAX_STEPS];
  lqc_store_values stores[LQC_MAX_OUTPUTS];
} lqc_fixed_values;

/* A prepared FixedPoint, part of an op's state. */
typedef struct lqc_fixed {
  lqc_lane_program program;
  bool wide;
  uint32_t input_count, output_count;
  size_t input_bytes[LQC_MAX_INPUTS], output_bytes[LQC_MAX_OUTPUTS]; /* of a pixel */
  size_t scratch_bytes; /* that lqc_run_fixed_point() needs, multiple of LQC_ALIGNMENT */
} lqc_fixed;

/* Checks op->fixed_point with all outputs, and the inputs from 1 on, and takes memory for its constants. */
lqc_status lqc_prepare_fixed_point(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *inputs,
                                   const lqc_tensor *outputs, lqc_start_range start, const void *context,
                                   lqc_fixed *fixed);

/* What is known of all numbers of a program. */
typedef struct lqc_fixed_bounds {
  bool narrow;                    /* those of the steps and stores fit lanes of 32 bits */
  bool rounds_far, rounds_narrow; /* of those that integer stores have rounded, as lqc_lane_program wants it */
} lqc_fixed_bounds;

/* Fails where a number may leave +-2^62. */
lqc_status lqc_check_ranges(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *outputs,
                            const lqc_fixed_values *values, lqc_start_range start, const void *context,
                            lqc_fixed_bounds *bounds);

/* Elements of a row of `channels` lanes. */
static inline size_t lqc_lane_count(uint32_t channels) {
  return ((size_t)channels + LQC_SUMS_MULTIPLE - 1) / LQC_SUMS_MULTIPLE * LQC_SUMS_MULTIPLE;
}

/* Steps and stores of some output pixels, whose values and places are given. scratch: fixed->scratch_bytes, aligned. */
void lqc_run_fixed_point(const lqc_fixed *fixed, const lqc_kernels *kernels, const lqc_node *node,
                         lqc_lane_pixels *pixels, void *scratch);

#endif /* LQC_FIXED_POINT_H */
