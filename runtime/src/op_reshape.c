/* Reshape: the same bytes. Input and output may share their place, then nothing is done. */
#include <string.h>

#include "op.h"

typedef struct reshape_state {
  size_t bytes;
} reshape_state;

static void run_reshape(const lqc_node *node, const lqc_runner *runner) {
  (void)runner;
  if (node->input != node->output) {
    memcpy(node->output, node->input, ((const reshape_state *)node->state)->bytes);
  }
}

lqc_status lqc_prepare_Reshape(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                               const lqc_tensor *output, lqc_node *node) {
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(input->info.dtype)));
  LQC_TRY(lqc_expect_same_fractions(prepare, op, input, output));
  bool words_stay = input->info.dtype != LQC_BIT || input->channels == output->channels ||
                    (input->channels % 64 == 0 && output->channels % 64 == 0);
  if (input->info.bytes != output->info.bytes || !words_stay) {
    return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                    "op '%s' (Reshape) makes %s [%u, %u, %u] of [%u, %u, %u]; accepted are as many elements, and for "
                    "bits as many channels or multiples of 64",
                    op->name, lqc_dtype_name(output->info.dtype), output->height, output->width, output->channels,
                    input->height, input->width, input->channels);
  }
  reshape_state state = {output->info.bytes};
  node->kernel = "reshape";
  node->run = run_reshape;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
