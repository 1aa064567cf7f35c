/* Fixed point in lanes of 64 bits, as behind int8 convolutions and in residual layers: one product, perhaps a sum with
 * an int8 input and RELUs, then int8 and bits, or float32 of up to 62 bits. Random numbers, every instruction set
 * against scalar. Values, inputs and outputs end at a guard page. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <stdbool.h>

#include "kernels_testing.h"

enum { PIXELS = 20, CHANNELS = 192, STEPS = 4, STORES = 2, VALUE_BITS = 22 };

typedef struct affine_case {
  lqc_lane_pixels pixels;
  lqc_lane_program program;
  lqc_lane_step steps[STEPS];
  lqc_lane_store stores[STORES];
  int64_t multiplier[CHANNELS], offset[CHANNELS], shift[CHANNELS], operand_shift[CHANNELS];
  int64_t half[CHANNELS], right[CHANNELS], thresholds[CHANNELS];
  uint64_t invert[CHANNELS / 64];
  float scale[CHANNELS];
  size_t input_bytes[2], output_bytes[STORES], places[PIXELS];
  const void *inputs[2];
  bool adds, is_far, is_wide; /* shifts above 32, and what they leave above 32 bits */
} affine_case;

/* -2^bits .. 2^bits, at times one of them */
static int64_t random_within(uint64_t *seed, uint32_t bits) {
  const int64_t most = (int64_t)1 << bits;
  const int64_t magnitude = random_below(seed, 6) ? (int64_t)(random_u64(seed) % ((uint64_t)most + 1)) : most;
  return random_below(seed, 2) ? magnitude : -magnitude;
}

/* |y| < 2^reached: what is shifted fits 32 bits, and so do shifts by more; or, if it is wide, by any. */
static void choose_channel(affine_case *c, uint32_t channel, uint64_t *seed) {
  const uint32_t bits = random_below(seed, 25);
  const uint32_t shift = c->adds ? random_below(seed, 8) : 0, operand_shift = c->adds ? random_below(seed, 48) : 0;
  const uint32_t of_y = VALUE_BITS + bits + 1 + shift, of_x = 7 + operand_shift;
  const uint32_t reached = c->adds ? (of_y > of_x ? of_y : of_x) + 1 : of_y, least = reached > 30 ? reached - 30 : 0;
  const uint32_t least_right = c->is_wide ? 0 : least;
  const uint32_t right = least_right + random_below(seed, (c->is_far ? 63 : 33) - least_right);
  c->multiplier[channel] = random_within(seed, bits);
  c->offset[channel] = random_within(seed, VALUE_BITS + bits - 1);
  c->shift[channel] = shift;
  c->operand_shift[channel] = operand_shift;
  c->right[channel] = right;
  c->half[channel] = right > 0 ? (int64_t)1 << (right - 1) : 0;
  c->thresholds[channel] = random_below(seed, 8) ? random_within(seed, reached) : (int64_t)random_u64(seed);
}

/* Anything up to 62 bits, or next to half way between two float32, which two roundings would round wrong. */
static void choose_float(affine_case *c, uint32_t channel, uint64_t *seed) {
  const int64_t between = (((int64_t)1 << 23) + random_below(seed, 1 << 23)) * 2 + 1;
  const bool is_near_tie = random_below(seed, 4) == 0;
  const int64_t tie = between * ((int64_t)1 << 36) + (int64_t)random_below(seed, 3) - 1;
  c->multiplier[channel] = is_near_tie ? 0 : c->multiplier[channel];
  c->offset[channel] = is_near_tie ? (random_below(seed, 2) ? tie : -tie) : random_within(seed, random_below(seed, 62));
  c->scale[channel] = 0x1p-62f * (float)((uint64_t)1 << random_below(seed, 63));
}

static void choose_steps(affine_case *c, uint64_t *seed) {
  uint32_t count = 0;
  if (random_below(seed, 3) == 0) {
    c->steps[count++] = (lqc_lane_step){.kind = LQC_LANE_RELU};
  }
  c->steps[count++] = (lqc_lane_step){.kind = LQC_LANE_AFFINE, .multiplier = c->multiplier, .offset = c->offset};
  if (c->adds) {
    c->steps[count++] =
        (lqc_lane_step){.kind = LQC_LANE_ADD_INT8, .operand = 1, .shift = c->shift, .operand_shift = c->operand_shift};
  }
  if (random_below(seed, 3) == 0) {
    c->steps[count++] = (lqc_lane_step){.kind = LQC_LANE_RELU};
  }
  c->program.step_count = count;
}

/* Sums of 32 bits, or popcounts and what makes a v of them. */
static void choose_values(affine_case *c, const guarded *memory, uint32_t row, uint64_t *seed) {
  lqc_lane_pixels *pixels = &c->pixels;
  const bool sums = random_below(seed, 2);
  const size_t size = sums ? sizeof(uint16_t) : sizeof(int32_t);
  pixels->source = sums ? LQC_LANES_SUMS : LQC_LANES_INT32;
  pixels->full = (int32_t)(random_below(seed, 4) ? random_below(seed, LQC_BCONV_MAX_K + 1) : LQC_BCONV_MAX_K);
  pixels->limit = random_below(seed, 3) ? 127 : 40000;
  pixels->step_log2 = (int32_t)random_below(seed, 6);
  pixels->value_bytes = row * size;
  uint8_t *values = guarded_last(memory, pixels->count * row * size);
  for (size_t i = 0; i < (size_t)pixels->count * row; ++i) {
    const uint32_t of_full = random_below(seed, 8) ? random_below(seed, (uint32_t)pixels->full + 1) : 0;
    int32_t value = sums ? (int32_t)of_full : (int32_t)random_within(seed, VALUE_BITS);
    value = i % row < c->program.channels ? value : (int32_t)random_u64(seed);
    memcpy(values + i * size, &value, size); /* little-endian */
  }
  pixels->values = values;
}

/* Thresholds of half of the channels are what a pixel has, or 1 below. Of sums of 32 bits, without another input. */
static void meet_thresholds(affine_case *c, uint64_t *seed) {
  const lqc_lane_step *last = &c->steps[c->program.step_count - 1];
  for (uint32_t channel = 0; channel < c->program.channels; ++channel) {
    const uint8_t *pixel =
        (const uint8_t *)c->pixels.values + random_below(seed, c->pixels.count) * c->pixels.value_bytes;
    if (random_below(seed, 2)) {
      int32_t value;
      memcpy(&value, pixel + channel * sizeof(value), sizeof(value));
      value = c->steps[0].kind == LQC_LANE_RELU && value < 0 ? 0 : value;
      const int64_t y = c->multiplier[channel] * value + c->offset[channel];
      c->thresholds[channel] = (last->kind == LQC_LANE_RELU && y < 0 ? 0 : y) - (int64_t)random_below(seed, 2);
    }
  }
}

static void new_case(affine_case *c, const guarded *values, const guarded *input, uint64_t *seed) {
  static const uint32_t channel_counts[] = {1, 15, 16, 31, 32, 33, 48, 64, 65, 100, 128, 192};
  const bool bits_first = random_below(seed, 2), is_float = random_below(seed, 4) == 0;
  const uint32_t channels = channel_counts[random_below(seed, 12)];
  const uint32_t stores = is_float ? 1 : 1 + random_below(seed, STORES);
  memset(c, 0, sizeof(*c));
  c->adds = !is_float && random_below(seed, 3) == 0;
  c->is_far = random_below(seed, 3) == 0;
  c->is_wide = random_below(seed, 4) == 0;
  for (uint32_t channel = 0; channel < channels; ++channel) {
    choose_channel(c, channel, seed);
    if (is_float) {
      choose_float(c, channel, seed);
    }
  }
  c->invert[0] = random_u64(seed);
  c->invert[1] = random_u64(seed);
  c->invert[2] = random_u64(seed);
  c->invert[(channels - 1) / 64] &= last_word_mask(channels);
  for (uint32_t i = 0; i < stores; ++i) {
    if (is_float) {
      c->stores[i] = (lqc_lane_store){.dtype = LQC_FLOAT32, .scale = c->scale};
      c->output_bytes[i] = channels * sizeof(float);
    } else if ((i == 0) == bits_first) {
      c->stores[i] = (lqc_lane_store){
          .dtype = LQC_BIT, .thresholds = c->thresholds, .invert = random_below(seed, 2) ? c->invert : NULL};
      c->output_bytes[i] = (channels + 63) / 64 * 8;
    } else {
      c->stores[i] = (lqc_lane_store){.dtype = LQC_INT8, .half = c->half, .right = c->right};
      c->output_bytes[i] = channels;
    }
  }
  c->program = (lqc_lane_program){
      .channels = channels, .store_count = stores, .steps = c->steps, .stores = c->stores, .rounds_far = !c->is_wide};
  c->program.rounds_narrow = c->program.rounds_far && !c->is_far;
  choose_steps(c, seed);
  c->pixels = (lqc_lane_pixels){.count = 1 + random_below(seed, PIXELS),
                                .places = random_below(seed, 2) ? c->places : NULL,
                                .inputs = c->inputs,
                                .input_bytes = c->input_bytes,
                                .output_bytes = c->output_bytes};
  c->pixels.first = random_below(seed, PIXELS + 1 - c->pixels.count);
  for (uint32_t p = 0; p < PIXELS; ++p) {
    c->places[p] = (p * 3 + c->pixels.first) % PIXELS;
  }
  choose_values(c, values, (uint32_t)padded_channels(channels), seed);
  if (c->pixels.source == LQC_LANES_INT32 && !c->adds && !is_float) {
    meet_thresholds(c, seed);
  }
  int8_t *x = guarded_last(input, (size_t)PIXELS * channels);
  for (size_t i = 0; i < (size_t)PIXELS * channels; ++i) {
    x[i] = (int8_t)(random_below(seed, 8) ? random_u64(seed) : 0x80);
  }
  c->inputs[1] = x;
  c->input_bytes[1] = channels;
}

static void run(affine_case *c, const lqc_kernels *kernels, const guarded *memory, void **places) {
  static int64_t scratch[CHANNELS];
  for (uint32_t i = 0; i < c->program.store_count; ++i) {
    places[i] = guarded_last(&memory[i], PIXELS * c->output_bytes[i]);
    memset(places[i], 0x5a, PIXELS * c->output_bytes[i]);
  }
  c->pixels.outputs = places;
  kernels->fixed_point_wide(&c->program, &c->pixels, scratch);
}

int main(void) {
  static affine_case c;
  const guarded values = guarded_new(PIXELS * CHANNELS * sizeof(int32_t)), input = guarded_new(PIXELS * CHANNELS);
  guarded expected[STORES], found[STORES];
  for (uint32_t i = 0; i < STORES; ++i) {
    expected[i] = guarded_new(PIXELS * CHANNELS * sizeof(float));
    found[i] = guarded_new(PIXELS * CHANNELS * sizeof(float));
  }
  lqc_kernels tables[LQC_ISA_COUNT];
  const size_t count = tables_to_test(tables);
  uint64_t seed = 23;
  for (int round = 0; round < 2000; ++round) {
    void *right[STORES], *got[STORES];
    new_case(&c, &values, &input, &seed);
    run(&c, &tables[0], expected, right);
    for (size_t t = 1; t < count; ++t) {
      run(&c, &tables[t], found, got);
      for (uint32_t i = 0; i < c.program.store_count; ++i) {
        for (size_t byte = 0; byte < PIXELS * c.output_bytes[i]; ++byte) {
          if (((uint8_t *)right[i])[byte] != ((uint8_t *)got[i])[byte]) {
            FAIL("%s: %u channels, %u pixels, source %d, %u steps, the first %d, store %u of dtype %d: byte %zu is %d, "
                 "scalar has %d",
                 lqc_isa_name(tables[t].isa), c.program.channels, c.pixels.count, (int)c.pixels.source,
                 c.program.step_count, (int)c.steps[0].kind, i, (int)c.stores[i].dtype, byte, ((uint8_t *)got[i])[byte],
                 ((uint8_t *)right[i])[byte]);
          }
        }
      }
    }
  }
  printf("affine fixed point: ok, %zu instruction sets\n", count);
  return 0;
}
