/* Running each op of a model with every input and output in memory of its own, next to pages that may not be touched.
 */
#ifndef LQC_GUARDED_OPS_H
#define LQC_GUARDED_OPS_H

#include "model_builder.h"

/* Runs the ops of a model one by one with the kernels of every instruction set. Each tensor ends where a page ends,
 * then begins where one begins, and the page beside it may not be touched; an op's inputs cannot be written, and what
 * it prepared and its scratch memory end at such a page too. So a kernel that reads or writes one byte beyond a tensor
 * faults. The outputs must equal those of a session of scalar code with keep_tensors. The file must be accepted. */
void check_guarded_ops(const lqc_model *model, uint64_t seed);

#endif /* LQC_GUARDED_OPS_H */
