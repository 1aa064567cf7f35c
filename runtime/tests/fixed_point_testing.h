/* Random FixedPoints for the ops that have one, and their reference: wide integers, one element at a time. */
#ifndef LQC_FIXED_POINT_TESTING_H
#define LQC_FIXED_POINT_TESTING_H

#include "model_builder.h"

typedef struct fixed_case {
  uint32_t height, width, channels; /* of the outputs */
  int64_t start;                    /* |y| at most, before the first step */
  int64_t limit;                    /* |y| at most, after every step */
} fixed_case;

/* Adds operands (inputs of the model), steps, stores and outputs (of the model) to an op whose first input is set. */
void add_random_fixed_point(built_model *m, lqc_op *op, const fixed_case *c, uint64_t *seed);

/* The same step and store for hand-made cases. Constants are copied; NULL: none. */
void add_affine_step(built_model *m, lqc_op *op, uint32_t channels, const int32_t *multiplier, const int64_t *offset);
void add_add_step(built_model *m, lqc_op *op, uint32_t channels, uint32_t operand, const int8_t *shift,
                  const int8_t *operand_shift);
void add_relu_step(lqc_op *op);
/* Gives the op a new output tensor too. */
void add_store(built_model *m, lqc_op *op, const fixed_case *c, lqc_dtype dtype, const int8_t *shift,
               const int64_t *thresholds);

/* A new tensor that is an input of the model. */
uint32_t add_input(built_model *m, lqc_dtype dtype, uint32_t height, uint32_t width, uint32_t channels);

/* Random values, both ends of the range among them, into every input of the model. Floats are left alone. */
void fill_inputs(const built_model *m, test_session *s, uint64_t *seed);

/* Where an input of the model is. */
const void *input_of(const built_model *m, const test_session *s, uint32_t tensor);
int32_t integer_at(const built_model *m, const test_session *s, uint32_t tensor, size_t element);

/* Compares one element of all outputs of the op with the reference, from y before the first step. */
void check_fixed_point(const built_model *m, const lqc_op *op, const test_session *s, size_t pixel, uint32_t channel,
                       int64_t start);

/* Bits above the last channel of all bit outputs are 0. */
void check_tails(const built_model *m, const lqc_op *op, const test_session *s);

#endif /* LQC_FIXED_POINT_TESTING_H */
