#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "fixed_point_testing.h"

#include <math.h>

/* Where there are no 128 bits, the sanitizer watches that 64 suffice. */
#if defined(__SIZEOF_INT128__)
__extension__ typedef __int128 wide;
#else
typedef int64_t wide;
#endif

/* ---- Describing ----------------------------------------------------------------------------------------------- */

uint32_t add_input(built_model *m, lqc_dtype dtype, uint32_t height, uint32_t width, uint32_t channels) {
  uint32_t tensor = add_tensor(m, "in", dtype, height, width, channels);
  m->inputs[m->input_count++] = tensor;
  return tensor;
}

static int32_t optional(built_model *m, lqc_dtype dtype, uint32_t channels, const void *data) {
  return data ? add_constant(m, dtype, 1, &channels, data) : -1;
}

static lqc_step *next_step(lqc_op *op, lqc_step_kind kind) {
  lqc_step *step = &op->fixed_point.steps[op->fixed_point.step_count++];
  *step = (lqc_step){kind, 0, -1, -1, -1, -1};
  return step;
}

void add_relu_step(lqc_op *op) {
  next_step(op, LQC_STEP_RELU);
}

void add_affine_step(built_model *m, lqc_op *op, uint32_t channels, const int32_t *multiplier, const int64_t *offset) {
  lqc_step *step = next_step(op, LQC_STEP_AFFINE);
  step->multiplier = optional(m, LQC_INT32, channels, multiplier);
  step->offset = optional(m, LQC_INT64, channels, offset);
}

void add_add_step(built_model *m, lqc_op *op, uint32_t channels, uint32_t operand, const int8_t *shift,
                  const int8_t *operand_shift) {
  lqc_step *step = next_step(op, LQC_STEP_ADD);
  step->operand = operand;
  step->shift = optional(m, LQC_INT8, channels, shift);
  step->operand_shift = optional(m, LQC_INT8, channels, operand_shift);
}

void add_store(built_model *m, lqc_op *op, const fixed_case *c, lqc_dtype dtype, const int8_t *shift,
               const int64_t *thresholds) {
  lqc_store *store = &op->fixed_point.stores[op->fixed_point.store_count++];
  uint32_t output = op->fixed_point.store_count - 1;
  *store = (lqc_store){-1, -1, -1};
  store->shift = optional(m, LQC_INT8, c->channels, shift);
  store->thresholds = optional(m, LQC_INT64, c->channels, thresholds);
  op->outputs[output] = add_tensor(m, "out", dtype, c->height, c->width, c->channels);
  op->output_count = output + 1;
  m->outputs[m->output_count++] = op->outputs[output];
}

/* -limit .. limit, small magnitudes as likely as large ones. */
static int64_t random_integer(uint64_t *seed, int64_t limit) {
  int64_t magnitude = (int64_t)(random_u64(seed) >> 1) >> random_below(seed, 63);
  magnitude = magnitude <= limit ? magnitude : limit - (int64_t)(random_u64(seed) & 1 && limit > 0);
  return random_bit(seed) ? magnitude : -magnitude;
}

/* Bits of a number above 0. */
static int bits_of(int64_t n) {
  int bits = 0;
  for (; n > 0; n >>= 1) {
    ++bits;
  }
  return bits;
}

/* The largest shift s up to 62 with n * 2^s <= limit, by chance less. */
static int8_t random_shift(uint64_t *seed, int64_t n, int64_t limit) {
  int room = 0;
  while (room < 62 && n <= limit >> (room + 1)) {
    ++room;
  }
  return (int8_t)(room > 0 && random_bit(seed) ? random_below(seed, (uint32_t)room + 1) : (uint32_t)room);
}

#define MOST_CHANNELS 128

static int64_t add_random_step(built_model *m, lqc_op *op, const fixed_case *c, int64_t bound, uint64_t *seed) {
  uint32_t kind = random_below(seed, 5);
  if (kind == 0) {
    add_relu_step(op);
    return bound;
  }
  int64_t largest = 0;
  if (kind <= 2 || op->input_count == 1) {
    int32_t multiplier[MOST_CHANNELS];
    int64_t offset[MOST_CHANNELS];
    int64_t most = c->limit / 2 / bound, rest = c->limit - c->limit / 2;
    most = most < INT32_MAX ? most : INT32_MAX;
    if (most == 0) {
      return bound;
    }
    bool offsets = random_bit(seed);
    for (uint32_t i = 0; i < c->channels; ++i) {
      multiplier[i] = (int32_t)random_integer(seed, most);
      offset[i] = random_integer(seed, rest);
      int64_t reached = bound * llabs(multiplier[i]) + (offsets ? llabs(offset[i]) : 0);
      largest = reached > largest ? reached : largest;
    }
    add_affine_step(m, op, c->channels, multiplier, offsets ? offset : NULL);
    return largest > 0 ? largest : 1;
  }
  int8_t shift[MOST_CHANNELS], operand_shift[MOST_CHANNELS];
  if (bound > c->limit / 2) {
    return bound;
  }
  for (uint32_t i = 0; i < c->channels; ++i) {
    shift[i] = random_shift(seed, bound, c->limit / 2);
    operand_shift[i] = random_shift(seed, 32768, c->limit / 2);
    int64_t reached = bound * ((int64_t)1 << shift[i]) + 32768 * ((int64_t)1 << operand_shift[i]);
    largest = reached > largest ? reached : largest;
  }
  bool shifts = random_bit(seed), operand_shifts = random_bit(seed);
  add_add_step(m, op, c->channels, 1 + random_below(seed, op->input_count - 1), shifts ? shift : NULL,
               operand_shifts ? operand_shift : NULL);
  return largest;
}

static void add_random_store(built_model *m, lqc_op *op, const fixed_case *c, int64_t bound, uint64_t *seed) {
  static const lqc_dtype dtypes[] = {LQC_INT8, LQC_INT16, LQC_FLOAT32, LQC_BIT};
  lqc_dtype dtype = dtypes[random_below(seed, 4)];
  int8_t shift[MOST_CHANNELS];
  int64_t thresholds[MOST_CHANNELS];
  bool rightwards = random_bit(seed); /* otherwise some to the left */
  for (uint32_t i = 0; i < c->channels; ++i) {
    int s = bits_of(bound) - (int)random_below(seed, 20) + 3;
    s = random_below(seed, 10) == 0 ? (int)random_below(seed, 125) - 62 : s;
    s = s > 62 ? 62 : s < -62 ? -62 : s;
    shift[i] = (int8_t)(rightwards && s < 0 ? 0 : s);
    thresholds[i] = random_below(seed, 5) ? random_integer(seed, bound) : (int64_t)random_u64(seed);
  }
  bool constants = random_below(seed, 4) != 0, bits = dtype == LQC_BIT;
  add_store(m, op, c, dtype, !bits && constants ? shift : NULL, bits && constants ? thresholds : NULL);
  if (bits && random_bit(seed)) {
    op->fixed_point.stores[op->output_count - 1].invert = add_random_bits(m, 1, &c->channels, seed);
  }
}

void add_random_fixed_point(built_model *m, lqc_op *op, const fixed_case *c, uint64_t *seed) {
  int64_t bound = c->start > 0 ? c->start : 1;
  uint32_t operands = random_below(seed, 4), steps = random_below(seed, 6), stores = 1 + random_below(seed, 4);
  for (uint32_t i = 0; i < operands; ++i) {
    op->inputs[op->input_count++] =
        add_input(m, random_bit(seed) ? LQC_INT8 : LQC_INT16, c->height, c->width, c->channels);
  }
  for (uint32_t i = 0; i < steps; ++i) {
    bound = add_random_step(m, op, c, bound, seed);
  }
  for (uint32_t i = 0; i < stores; ++i) {
    add_random_store(m, op, c, bound, seed);
  }
}

/* ---- Data ------------------------------------------------------------------------------------------------------ */

const void *input_of(const built_model *m, const test_session *s, uint32_t tensor) {
  for (uint32_t i = 0; i < m->input_count; ++i) {
    if (m->inputs[i] == tensor) {
      return lqc_session_input(s->session, i);
    }
  }
  FAIL("tensor %u is no input", tensor);
}

int32_t integer_at(const built_model *m, const test_session *s, uint32_t tensor, size_t element) {
  const void *data = input_of(m, s, tensor);
  return m->tensors[tensor].dtype == LQC_INT8 ? ((const int8_t *)data)[element] : ((const int16_t *)data)[element];
}

void fill_inputs(const built_model *m, test_session *s, uint64_t *seed) {
  for (uint32_t i = 0; i < m->input_count; ++i) {
    lqc_tensor_info info;
    void *data = lqc_session_input(s->session, i);
    EXPECT(lqc_model_tensor_info(&s->model, m->inputs[i], &info) == LQC_OK, "input %u", i);
    if (info.dtype == LQC_INT8) {
      for (size_t e = 0; e < info.bytes; ++e) {
        ((int8_t *)data)[e] = (int8_t)(random_below(seed, 6) ? random_u64(seed) : random_bit(seed) ? 127u : 128u);
      }
    } else if (info.dtype == LQC_INT16) {
      for (size_t e = 0; e < info.bytes / 2; ++e) {
        ((int16_t *)data)[e] = (int16_t)(random_below(seed, 6) ? random_u64(seed) : random_bit(seed) ? 32767u : 32768u);
      }
    } else if (info.dtype == LQC_BIT) {
      uint32_t channels = info.shape[info.rank - 1], words = lqc_words(channels);
      for (size_t e = 0; e < info.bytes / 8; ++e) {
        ((uint64_t *)data)[e] = random_u64(seed) & (e % words == words - 1 ? last_word_mask(channels) : ~(uint64_t)0);
      }
    }
  }
}

/* ---- Reference ------------------------------------------------------------------------------------------------- */

static const void *constant_data(const built_model *m, int32_t constant) {
  return m->constants[constant].data;
}

static int shift_at(const built_model *m, int32_t constant, uint32_t channel) {
  return constant < 0 ? 0 : ((const int8_t *)constant_data(m, constant))[channel];
}

static wide power(int exponent) {
  return (wide)1 << exponent;
}

/* floor(n / d), d > 0 */
static wide floor_divide(wide n, wide d) {
  wide q = n / d;
  return q * d > n ? q - 1 : q;
}

static wide do_step(const built_model *m, const lqc_op *op, const test_session *s, const lqc_step *step, size_t pixel,
                    uint32_t channel, wide y) {
  if (step->kind == LQC_STEP_RELU) {
    return y < 0 ? 0 : y;
  }
  if (step->kind == LQC_STEP_AFFINE) {
    wide offset = step->offset < 0 ? 0 : ((const int64_t *)constant_data(m, step->offset))[channel];
    return ((const int32_t *)constant_data(m, step->multiplier))[channel] * y + offset;
  }
  uint32_t tensor = op->inputs[step->operand];
  uint32_t channels = m->tensors[tensor].shape[m->tensors[tensor].rank - 1];
  wide x = integer_at(m, s, tensor, pixel * channels + channel);
  return y * power(shift_at(m, step->shift, channel)) + x * power(shift_at(m, step->operand_shift, channel));
}

/* clip(floor(y / 2^shift + 1/2), +-limit) */
static int32_t rounded(wide y, int shift, int32_t limit) {
  wide q = y > limit ? limit + 1 : y < -limit ? -limit - 1 : y; /* only a shift to the right brings those back */
  if (shift > 0) {
    q = floor_divide(y + power(shift - 1), power(shift));
  } else {
    q *= power(shift < -16 ? 16 : -shift); /* 2^16 is beyond both limits */
  }
  return q > limit ? limit : q < -limit ? -limit : (int32_t)q;
}

static void check_store(const built_model *m, const lqc_op *op, const test_session *s, uint32_t output, size_t pixel,
                        uint32_t channel, wide y) {
  const lqc_store *store = &op->fixed_point.stores[output];
  uint32_t tensor = op->outputs[output];
  uint32_t channels = m->tensors[tensor].shape[m->tensors[tensor].rank - 1];
  size_t element = pixel * channels + channel;
  int shift = shift_at(m, store->shift, channel);
  const void *data = NULL;
  for (uint32_t i = 0; i < m->output_count; ++i) {
    data = m->outputs[i] == tensor ? lqc_session_output(s->session, i) : data;
  }
  double got, expected;
  if (m->tensors[tensor].dtype == LQC_INT8) {
    got = ((const int8_t *)data)[element];
    expected = rounded(y, shift, 127);
  } else if (m->tensors[tensor].dtype == LQC_INT16) {
    got = ((const int16_t *)data)[element];
    expected = rounded(y, shift, 32767);
  } else if (m->tensors[tensor].dtype == LQC_FLOAT32) {
    got = (double)((const float *)data)[element];
    expected = (double)ldexpf((float)y, -shift); /* a power of two: the conversion's rounding is the only one */
  } else {
    int64_t threshold = store->thresholds < 0 ? -1 : ((const int64_t *)constant_data(m, store->thresholds))[channel];
    int plus = y > threshold;
    plus ^= store->invert >= 0 && bit_at(constant_data(m, store->invert), channel);
    got = bit_at((const uint64_t *)data + pixel * lqc_words(channels), channel);
    expected = !plus;
  }
  EXPECT(got == expected, "output %u (%s) of %u channels, pixel %zu, channel %u, y %.0f, shift %d: %.9g, not %.9g",
         output, lqc_dtype_name((lqc_dtype)m->tensors[tensor].dtype), channels, pixel, channel, (double)y, shift, got,
         expected);
}

void check_fixed_point(const built_model *m, const lqc_op *op, const test_session *s, size_t pixel, uint32_t channel,
                       int64_t start) {
  wide y = start;
  for (uint32_t i = 0; i < op->fixed_point.step_count; ++i) {
    y = do_step(m, op, s, &op->fixed_point.steps[i], pixel, channel, y);
  }
  for (uint32_t i = 0; i < op->output_count; ++i) {
    check_store(m, op, s, i, pixel, channel, y);
  }
}

void check_tails(const built_model *m, const lqc_op *op, const test_session *s) {
  for (uint32_t i = 0; i < op->output_count; ++i) {
    lqc_tensor_info info;
    lqc_model_tensor_info(&s->model, op->outputs[i], &info);
    uint32_t channels = info.shape[info.rank - 1], words = lqc_words(channels);
    for (uint32_t o = 0; info.dtype == LQC_BIT && o < m->output_count; ++o) {
      const uint64_t *data = lqc_session_output(s->session, o);
      for (size_t e = words - 1; m->outputs[o] == op->outputs[i] && e < info.bytes / 8; e += words) {
        EXPECT((data[e] & ~last_word_mask(channels)) == 0, "tail of output %u, word %zu", i, e);
      }
    }
  }
}
