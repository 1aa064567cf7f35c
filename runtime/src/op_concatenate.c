/* Concatenate: the channels of several tensors one after the other. One output pixel is one item of work. */
#include "op.h"

typedef struct part {
  uint32_t channels;
  bool widens; /* int8 to int16 */
} part;

typedef struct concatenate_state {
  size_t pixels;
  uint32_t part_count, channels;
  lqc_dtype dtype;
  size_t element_bytes; /* of the output; not of bits */
  part parts[LQC_MAX_INPUTS];
} concatenate_state;

/* Appends `channels` bits to a pixel that holds `used` bits, all others 0. */
static void append_bits(uint64_t *out, uint32_t used, const uint64_t *in, uint32_t channels) {
  uint32_t words = lqc_words(channels), room = lqc_words(used + channels) - used / 64, shift = used % 64;
  out += used / 64;
  for (uint32_t i = 0; i < words; ++i) {
    out[i] |= in[i] << shift;
    if (shift != 0 && i + 1 < room) {
      out[i + 1] |= in[i] >> (64 - shift);
    }
  }
}

static void join_bits(const lqc_node *node, const concatenate_state *s, size_t pixel) {
  uint32_t words = lqc_words(s->channels), used = 0;
  uint64_t *out = (uint64_t *)node->output + pixel * words;
  memset(out, 0, words * sizeof(uint64_t));
  for (uint32_t i = 0; i < s->part_count; ++i) {
    uint32_t channels = s->parts[i].channels;
    append_bits(out, used, (const uint64_t *)node->inputs[i] + pixel * lqc_words(channels), channels);
    used += channels;
  }
}

static void join_elements(const lqc_node *node, const concatenate_state *s, size_t pixel) {
  uint8_t *out = (uint8_t *)node->output + pixel * s->channels * s->element_bytes;
  for (uint32_t i = 0; i < s->part_count; ++i) {
    uint32_t channels = s->parts[i].channels;
    if (s->parts[i].widens) {
      const int8_t *in = (const int8_t *)node->inputs[i] + pixel * channels;
      int16_t *wide = (int16_t *)(void *)out;
      for (uint32_t c = 0; c < channels; ++c) {
        wide[c] = in[c];
      }
    } else {
      size_t bytes = channels * s->element_bytes;
      memcpy(out, (const uint8_t *)node->inputs[i] + pixel * bytes, bytes);
    }
    out += channels * s->element_bytes;
  }
}

static void join_pixels(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const concatenate_state *s = node->state;
  (void)thread;
  for (size_t p = begin; p < end; ++p) {
    if (s->dtype == LQC_BIT) {
      join_bits(node, s, p);
    } else {
      join_elements(node, s, p);
    }
  }
}

static void run_concatenate(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, join_pixels, node, ((const concatenate_state *)node->state)->pixels);
}

static lqc_status check_fractions(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                  const lqc_tensor *output, uint32_t first) {
  for (uint32_t c = 0; c < input->channels; ++c) {
    int given = lqc_fraction_of(input, c), wanted = lqc_fraction_of(output, first + c);
    if (given != wanted) {
      return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                      "op '%s' (Concatenate): channel %u of '%s' has %d fraction_bits, channel %u of '%s' %d; accepted "
                      "are the same",
                      op->name, c, input->info.name, given, first + c, output->info.name, wanted);
    }
  }
  return LQC_OK;
}

lqc_status lqc_prepare_Concatenate(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *inputs,
                                   const lqc_tensor *output, lqc_node *node) {
  lqc_dtype dtype = output->info.dtype;
  unsigned integers = LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16);
  unsigned accepted = dtype == LQC_INT16 ? integers : LQC_MASK(dtype);
  const uint32_t one = 1;
  uint32_t channels = 0;
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", integers | LQC_MASK(LQC_FLOAT32) | LQC_MASK(LQC_BIT)));
  concatenate_state state = {.pixels = (size_t)output->height * output->width,
                             .part_count = op->input_count,
                             .channels = output->channels,
                             .dtype = dtype,
                             .element_bytes = lqc_array_bytes(dtype, &one, 1)};
  LQC_TRY(lqc_spend_work(prepare, op, output->channels));
  for (uint32_t i = 0; i < op->input_count; ++i) {
    const lqc_tensor *input = &inputs[i];
    LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", accepted));
    if (input->height != output->height || input->width != output->width ||
        input->channels > output->channels - channels) {
      return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                      "op '%s' (Concatenate): '%s' is [%u, %u, %u], %u channels behind the start of '%s' [%u, %u, %u]; "
                      "accepted is what fits",
                      op->name, input->info.name, input->height, input->width, input->channels, channels,
                      output->info.name, output->height, output->width, output->channels);
    }
    LQC_TRY(check_fractions(prepare, op, input, output, channels));
    state.parts[i] = (part){input->channels, input->info.dtype != dtype};
    channels += input->channels;
  }
  if (channels != output->channels) {
    return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                    "op '%s' (Concatenate) makes %u channels of %u; accepted is as many", op->name, output->channels,
                    channels);
  }
  node->kernel = dtype == LQC_BIT ? "concatenate_bits" : "concatenate";
  node->run = run_concatenate;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
