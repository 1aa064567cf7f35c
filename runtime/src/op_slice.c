/* Slice: a region of an image, which may reach beyond it. One output row is one item of work. */
#include "op.h"

/* Output positions [first, end) that lie inside the input, and the input position of the first. */
typedef struct overlap {
  uint32_t first, end, source;
} overlap;

typedef struct slice_state {
  overlap rows, columns;
  uint32_t height, width, in_width; /* pixels */
  size_t in_pixel, out_pixel;       /* bytes */
  size_t first, end, source;        /* the bytes of a pixel that lie inside, and where they come from */
  const uint8_t *fill;              /* a pixel outside; NULL where none is */
} slice_state;

static void fill_pixels(const slice_state *s, uint8_t *out, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i, out += s->out_pixel) {
    memcpy(out, s->fill, s->out_pixel);
  }
}

static void copy_pixels(const slice_state *s, uint8_t *out, const uint8_t *in, uint32_t count) {
  if (s->out_pixel == s->in_pixel && s->end - s->first == s->out_pixel) {
    memcpy(out, in, count * s->out_pixel);
    return;
  }
  for (uint32_t i = 0; i < count; ++i, out += s->out_pixel, in += s->in_pixel) {
    if (s->first > 0 || s->end < s->out_pixel) {
      memcpy(out, s->fill, s->out_pixel);
    }
    memcpy(out + s->first, in + s->source, s->end - s->first);
  }
}

static void slice_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const lqc_node *node = context;
  const slice_state *s = node->state;
  uint8_t *out = (uint8_t *)node->output + begin * s->width * s->out_pixel;
  (void)thread;
  for (size_t y = begin; y < end; ++y, out += s->width * s->out_pixel) {
    if (y < s->rows.first || y >= s->rows.end) {
      fill_pixels(s, out, s->width);
      continue;
    }
    size_t row = s->rows.source + (y - s->rows.first);
    const uint8_t *in = (const uint8_t *)node->input + (row * s->in_width + s->columns.source) * s->in_pixel;
    fill_pixels(s, out, s->columns.first);
    copy_pixels(s, out + s->columns.first * s->out_pixel, in, s->columns.end - s->columns.first);
    fill_pixels(s, out + s->columns.end * s->out_pixel, s->width - s->columns.end);
  }
}

static void run_slice(const lqc_node *node, const lqc_runner *runner) {
  lqc_pool_run(runner->pool, slice_rows, node, ((const slice_state *)node->state)->height);
}

/* |begin| and the sizes are at most LQC_MAX_DIMENSION. Where nothing is inside, {0, 0, 0}. */
static overlap overlap_of(int32_t begin, uint32_t size, uint32_t out) {
  int64_t first = begin < 0 ? -(int64_t)begin : 0, end = (int64_t)size - begin;
  end = end < out ? end : out;
  return first < end ? (overlap){(uint32_t)first, (uint32_t)end, (uint32_t)(first + begin)} : (overlap){0, 0, 0};
}

static bool covers(const overlap *axis, uint32_t out) {
  return axis->first == 0 && axis->end == out;
}

static lqc_status fail_slice(const lqc_prepare *prepare, const lqc_op *op, const char *problem) {
  return lqc_fail(prepare->error, LQC_ERROR_MALFORMED, "op '%s' (Slice): %s", op->name, problem);
}

static lqc_status check_value(const lqc_prepare *prepare, const lqc_op *op, lqc_dtype dtype, bool fills) {
  float value = op->value;
  if (dtype == LQC_BIT && value != -1.0f && value != 1.0f && (fills || value != 0.0f)) {
    return fail_slice(prepare, op, "value of bits outside is not -1 or 1");
  }
  float limit = dtype == LQC_INT8 ? 128.0f : 32768.0f;
  if ((dtype == LQC_INT8 || dtype == LQC_INT16) &&
      !(value >= -limit && value < limit && (float)(int32_t)value == value)) {
    return fail_slice(prepare, op, "value is not an integer of the tensor's type");
  }
  return LQC_OK;
}

static lqc_status check_channels(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                 const lqc_tensor *output, const overlap *channels) {
  if (input->info.dtype == LQC_BIT) {
    int64_t end = (int64_t)op->begin_c + output->channels;
    bool whole_words = op->begin_c % 64 == 0 && (end == input->channels || output->channels % 64 == 0);
    if (op->begin_c < 0 || end > input->channels || !whole_words) {
      return lqc_fail(prepare->error, LQC_ERROR_MALFORMED,
                      "op '%s' (Slice) takes bits of channels %d to %lld of %u; accepted are whole words", op->name,
                      op->begin_c, (long long)end, input->channels);
    }
  }
  LQC_TRY(lqc_spend_work(prepare, op, input->fraction_count + output->fraction_count));
  bool by_channel = input->fraction_count > 1 || output->fraction_count > 1;
  uint32_t count = by_channel ? channels->end - channels->first : 1;
  for (uint32_t c = 0; c < count && channels->first < channels->end; ++c) {
    if (lqc_fraction_of(input, channels->source + c) != lqc_fraction_of(output, channels->first + c)) {
      return fail_slice(prepare, op, "a channel's fraction_bits change");
    }
  }
  return LQC_OK;
}

/* One pixel of `value`. */
static void fill_pixel(uint8_t *fill, const lqc_op *op, const lqc_tensor *output) {
  for (uint32_t c = 0; c < output->channels; ++c) {
    switch (output->info.dtype) {
    case LQC_BIT:
      if (c % 64 == 0) {
        memset(fill + c / 64 * sizeof(uint64_t), 0, sizeof(uint64_t));
      }
      ((uint64_t *)(void *)fill)[c / 64] |= (uint64_t)(op->value < 0.0f) << (c % 64);
      break;
    case LQC_INT8:
      ((int8_t *)fill)[c] = (int8_t)op->value;
      break;
    case LQC_INT16:
      ((int16_t *)(void *)fill)[c] = (int16_t)op->value;
      break;
    default:
      ((float *)(void *)fill)[c] = op->value;
      break;
    }
  }
}

lqc_status lqc_prepare_Slice(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input, const lqc_tensor *output,
                             lqc_node *node) {
  lqc_dtype dtype = input->info.dtype;
  overlap rows = overlap_of(op->begin_h, input->height, output->height);
  overlap columns = overlap_of(op->begin_w, input->width, output->width);
  overlap channels = overlap_of(op->begin_c, input->channels, output->channels);
  bool fills =
      !covers(&rows, output->height) || !covers(&columns, output->width) || !covers(&channels, output->channels);
  void *fill = NULL;
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input",
                           LQC_MASK(LQC_FLOAT32) | LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16) | LQC_MASK(LQC_BIT)));
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", LQC_MASK(dtype)));
  LQC_TRY(check_value(prepare, op, dtype, fills));
  LQC_TRY(check_channels(prepare, op, input, output, &channels));
  size_t in_pixel = lqc_array_bytes(dtype, &input->channels, 1),
         out_pixel = lqc_array_bytes(dtype, &output->channels, 1);
  if (fills) {
    LQC_TRY(lqc_bump_take(prepare->bump, 1, out_pixel, &fill, prepare->error));
    if (fill) {
      fill_pixel(fill, op, output);
    }
  }
  bool bits = dtype == LQC_BIT; /* all channels inside: `source` is a whole number of words */
  size_t element = bits ? 0 : in_pixel / input->channels;
  slice_state state = {.rows = rows,
                       .columns = columns,
                       .height = output->height,
                       .width = output->width,
                       .in_width = input->width,
                       .in_pixel = in_pixel,
                       .out_pixel = out_pixel,
                       .first = channels.first * element,
                       .end = bits ? out_pixel : channels.end * element,
                       .source = bits ? channels.source / 64 * sizeof(uint64_t) : channels.source * element,
                       .fill = fill};
  node->kernel = "slice";
  node->run = run_slice;
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
