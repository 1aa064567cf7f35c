/* Checking the file's memory plan. */
#ifndef LQC_PLAN_H
#define LQC_PLAN_H

#include "model.h"

/* Every tensor is a model input or written by one op, before it is read; and tensors that hold a value at the same time
 * do not share memory, save where the format allows it: a Reshape's output where its input is, and the output of an op
 * that works pixel by pixel over an input of the same type and shape that nothing reads any more. */
lqc_status lqc_check_plan(const lqc_model_view *view, lqc_error *error);

#endif /* LQC_PLAN_H */
