/* DepthToSpace: channels become pixels. One output row is one item of work. */
#include "op.h"

typedef struct depth_to_space_state {
  uint32_t height;  /* of the output */
  uint32_t columns; /* of the input */
  uint32_t block_h;
  size_t block_bytes; /* of block_w output pixels, which are neighbours in the input too */
} depth_to_space_state;

static void space_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const depth_to_space_state *s = node->state;
  uint8_t *out = (uint8_t *)node->output + begin * s->columns * s->block_bytes;
  (void)thread;
  for (size_t y = begin; y < end; ++y) {
    size_t row = y / s->block_h, part = y % s->block_h;
    const uint8_t *in = (const uint8_t *)node->input + (row * s->columns * s->block_h + part) * s->block_bytes;
    for (uint32_t x = 0; x < s->columns; ++x, in += s->block_h * s->block_bytes, out += s->block_bytes) {
      memcpy(out, in, s->block_bytes);
    }
  }
}

static void run_depth_to_space(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, space_rows, node, ((const depth_to_space_state *)node->state)->height);
}

lqc_status lqc_prepare_DepthToSpace(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                    const lqc_tensor *output, lqc_node *node) {
  lqc_dtype dtype = input->info.dtype;
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input",
                           LQC_MASK(LQC_FLOAT32) | LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16) | LQC_MASK(LQC_BIT)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(dtype)));
  /* The blocks and the axes are at most 2^24, so only the product of three may be too large for 64 bits. */
  uint64_t pixels = (uint64_t)op->block_h * op->block_w;
  bool fits = pixels <= input->channels && pixels * output->channels == input->channels &&
              (uint64_t)input->height * op->block_h == output->height &&
              (uint64_t)input->width * op->block_w == output->width;
  if (!fits || (dtype == LQC_BIT && output->channels % 64 != 0)) {
    return lqc_fail(
        prepare->error, LQC_ERROR_MALFORMED,
        "op '%s' (DepthToSpace) makes %s [%u, %u, %u] of [%u, %u, %u] in blocks of %u x %u; accepted are as "
        "many elements, and of bits multiples of 64 channels",
        op->name, lqc_dtype_name(dtype), output->height, output->width, output->channels, input->height, input->width,
        input->channels, op->block_h, op->block_w);
  }
  LQC_TRY(lqc_expect_same_fractions(prepare, op, input, output));
  depth_to_space_state state = {.height = output->height,
                                .columns = input->width,
                                .block_h = op->block_h,
                                .block_bytes = op->block_w * lqc_array_bytes(dtype, &output->channels, 1)};
  node->kernel = "depth_to_space";
  node->run = run_depth_to_space;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
