/* Fixed point in lanes of 32 bits: random programs, every instruction set against scalar. Values, inputs and outputs
 * end at a guard page. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <stdbool.h>

#include "kernels_testing.h"

enum { PIXELS = 8, CHANNELS = 128, STEPS = 4, STORES = 3, BYTES = PIXELS * CHANNELS * 4, LARGEST_STEP = 1 << 29 };

typedef struct arenas {
  guarded values, int8_input, int16_input, outputs[STORES], expected[STORES];
} arenas;

typedef struct program_case {
  lqc_lane_pixels pixels;
  lqc_lane_program program;
  lqc_lane_step steps[STEPS];
  lqc_lane_store stores[STORES];
  int32_t step_lanes[STEPS][2][CHANNELS], store_lanes[STORES][3][CHANNELS];
  float scales[STORES][CHANNELS];
  uint64_t invert[CHANNELS / 64];
  size_t places[PIXELS], input_bytes[3], output_bytes[STORES];
  const void *inputs[3];
  int32_t largest;    /* |y| is at most as much */
  bool is_usual;      /* what programs with loops of their own store: int8 without a shift to the left, and bits */
  lqc_dtype usual[2]; /* of the stores then */
} program_case;

/* -largest .. largest, at times one of them */
static int32_t random_within(uint64_t *seed, int32_t largest) {
  int32_t sign = random_below(seed, 2) ? 1 : -1;
  return random_below(seed, 8) ? sign * (int32_t)random_below(seed, (uint32_t)largest + 1) : sign * largest;
}

/* The largest power of two, up to 2^most, that keeps |y| * 2^n within `limit`; then at random one below. */
static int32_t random_shift(uint64_t *seed, int32_t y, int32_t most, int32_t limit) {
  int32_t shift = 0;
  while (shift < most && (int64_t)y << (shift + 1) <= limit) {
    ++shift;
  }
  return (int32_t)random_below(seed, (uint32_t)shift + 1);
}

/* Popcounts, and what makes a v of them. */
static void choose_sums(program_case *c, bool is_wide, uint64_t *seed) {
  static const int32_t limits[] = {0, 7, 127, 40000, INT32_MAX};
  lqc_lane_pixels *pixels = &c->pixels;
  pixels->full = (int32_t)random_below(seed, is_wide ? 1 << 18 : LQC_BCONV_MAX_K + 1);
  pixels->full = random_below(seed, 4) ? pixels->full : (int32_t)random_below(seed, 300);
  pixels->full = random_below(seed, 8) || is_wide ? pixels->full : (int32_t)LQC_BCONV_MAX_K;
  pixels->limit = limits[random_below(seed, 5)];
  pixels->step_log2 = pixels->limit ? (int32_t)random_below(seed, 21) - 6 : 0;
  c->largest = pixels->step_log2 < 0 ? pixels->full << -pixels->step_log2 : pixels->full;
  c->largest = pixels->limit && c->largest > pixels->limit ? pixels->limit : c->largest;
}

static void choose_values(program_case *c, const arenas *memory, uint64_t *seed) {
  static const size_t sizes[] = {[LQC_LANES_INT8] = 1,
                                 [LQC_LANES_INT16] = 2,
                                 [LQC_LANES_INT32] = 4,
                                 [LQC_LANES_SUMS] = 2,
                                 [LQC_LANES_SUMS_WIDE] = 4};
  lqc_lane_pixels *pixels = &c->pixels;
  pixels->source = (lqc_lane_source)random_below(seed, 5);
  const size_t size = sizes[pixels->source];
  const bool pads = pixels->source != LQC_LANES_INT8 && pixels->source != LQC_LANES_INT16;
  const uint32_t row = pads ? padded_channels(c->program.channels) : c->program.channels;
  uint8_t *values = guarded_last(&memory->values, pixels->count * row * size);
  pixels->values = values;
  pixels->value_bytes = row * size;
  c->largest = pixels->source == LQC_LANES_INT8 ? 128 : random_below(seed, 2) ? 32767 : 300;
  if (pixels->source == LQC_LANES_SUMS || pixels->source == LQC_LANES_SUMS_WIDE) {
    choose_sums(c, pixels->source == LQC_LANES_SUMS_WIDE, seed);
  }
  for (size_t i = 0; i < (size_t)pixels->count * row; ++i) {
    int32_t value = i % row < c->program.channels ? random_within(seed, pads ? c->largest : c->largest - 1) : 0;
    if (pixels->source == LQC_LANES_SUMS || pixels->source == LQC_LANES_SUMS_WIDE) {
      value = i % row < c->program.channels ? (int32_t)random_below(seed, (uint32_t)pixels->full + 1)
                                            : (int32_t)random_u64(seed); /* whatever is behind the channels */
      value = i % row < c->program.channels && random_below(seed, 16) == 0 ? pixels->full : value;
    }
    memcpy(values + i * size, &value, size); /* little-endian */
  }
}

static void add_pair(program_case *c, lqc_lane_step *step, int32_t (*lanes)[CHANNELS], uint64_t *seed) {
  *step = (lqc_lane_step){.kind = LQC_LANE_PAIR,
                          .operand = random_below(seed, 4) != 0,
                          .y_log2 = random_shift(seed, c->largest, 7, INT16_MAX),
                          .x_log2 = (int32_t)random_below(seed, 9),
                          .offset = lanes[0],
                          .pairs = lanes[1]};
  for (uint32_t i = 0; i < c->program.channels; ++i) {
    lanes[0][i] = random_within(seed, 1 << 27);
    lanes[1][i] = (int32_t)(random_below(seed, (1 << 14) + 1) << 16 | (uint16_t)random_within(seed, INT16_MAX));
  }
  c->largest = (1 << 30) + LARGEST_STEP + (1 << 27);
}

static void add_step(program_case *c, lqc_lane_step *step, int32_t (*lanes)[CHANNELS], uint64_t *seed) {
  const uint32_t operand = 1 + random_below(seed, 2);
  const int32_t small = LARGEST_STEP >> 8, limit = c->largest <= small && random_below(seed, 2) ? small : LARGEST_STEP;
  const int32_t most = c->largest < limit ? c->largest : limit;
  *step = (lqc_lane_step){.kind = LQC_LANE_RELU};
  if (c->largest > LARGEST_STEP || random_below(seed, 4) == 0) {
    return;
  }
  if (random_below(seed, 2)) {
    *step = (lqc_lane_step){.kind = LQC_LANE_AFFINE, .multiplier = lanes[0], .offset = lanes[1]};
  } else {
    *step = (lqc_lane_step){.kind = operand == 1 ? LQC_LANE_ADD_INT8 : LQC_LANE_ADD_INT16,
                            .operand = operand,
                            .shift = lanes[0],
                            .operand_shift = lanes[1]};
  }
  for (uint32_t i = 0; i < c->program.channels; ++i) {
    const bool adds = step->kind != LQC_LANE_AFFINE;
    lanes[0][i] = adds ? random_shift(seed, most, 30, limit) : random_within(seed, limit / (most + 1));
    lanes[1][i] = adds ? random_shift(seed, operand == 1 ? 128 : 32768, 30, limit) : random_within(seed, limit);
  }
  c->largest = 2 * limit;
}

static void add_store(program_case *c, uint32_t i, uint64_t *seed) {
  static const lqc_dtype dtypes[] = {LQC_INT8, LQC_INT16, LQC_FLOAT32, LQC_BIT};
  const uint32_t channels = c->program.channels;
  const bool goes_left = !c->is_usual && random_below(seed, 3) == 0;
  lqc_lane_store *store = &c->stores[i];
  int32_t (*lanes)[CHANNELS] = c->store_lanes[i];
  *store = (lqc_lane_store){.dtype = c->is_usual ? c->usual[i] : dtypes[random_below(seed, 4)]};
  for (uint32_t channel = 0; channel < channels; ++channel) {
    int32_t right = (int32_t)random_below(seed, 29), left = (int32_t)random_below(seed, 17);
    lanes[0][channel] = right > 0 ? 1 << (right - 1) : 0;
    lanes[1][channel] = right;
    lanes[2][channel] = right > 0 ? 1 : 1 << left;
    c->scales[i][channel] = 1.0f / (float)(1 << right);
  }
  if (store->dtype == LQC_BIT) {
    for (uint32_t channel = 0; channel < channels; ++channel) {
      lanes[0][channel] = random_below(seed, 8) ? random_within(seed, c->largest) : INT32_MAX;
    }
    store->thresholds = lanes[0];
    store->invert = random_below(seed, 2) ? c->invert : NULL;
    c->output_bytes[i] = (channels + 63) / 64 * 8;
    return;
  }
  store->half = lanes[0];
  store->right = lanes[1];
  store->left = goes_left ? lanes[2] : NULL;
  store->scale = c->scales[i];
  c->output_bytes[i] = channels * (store->dtype == LQC_INT8 ? 1u : store->dtype == LQC_INT16 ? 2u : 4u);
}

static void add_input(program_case *c, uint32_t input, const guarded *memory, uint64_t *seed) {
  c->input_bytes[input] = c->program.channels * (size_t)input; /* int8, int16 */
  uint8_t *bytes = guarded_last(memory, PIXELS * c->input_bytes[input]);
  for (size_t i = 0; i < PIXELS * c->input_bytes[input]; ++i) {
    bytes[i] = random_below(seed, 8) ? (uint8_t)random_u64(seed) : 0x80;
  }
  c->inputs[input] = bytes;
}

static void new_case(program_case *c, const arenas *memory, uint64_t *seed) {
  static const uint32_t channel_counts[] = {1, 8, 15, 16, 31, 48, 64, 65, 100, 128};
  memset(c, 0, sizeof(*c));
  c->program = (lqc_lane_program){.channels = channel_counts[random_below(seed, 10)],
                                  .step_count = random_below(seed, STEPS + 1),
                                  .store_count = 1 + random_below(seed, STORES),
                                  .steps = c->steps,
                                  .stores = c->stores};
  c->pixels = (lqc_lane_pixels){.count = 1 + random_below(seed, PIXELS),
                                .inputs = c->inputs,
                                .input_bytes = c->input_bytes,
                                .output_bytes = c->output_bytes};
  c->is_usual = random_below(seed, 2);
  if (c->is_usual) {
    c->program.store_count = 1 + random_below(seed, 2);
    c->usual[0] = random_below(seed, 2) ? LQC_INT8 : LQC_BIT;
    c->usual[1] = c->usual[0] == LQC_INT8 ? LQC_BIT : LQC_INT8;
  }
  c->pixels.first = random_below(seed, PIXELS + 1 - c->pixels.count);
  c->pixels.places = random_below(seed, 2) ? c->places : NULL;
  for (uint32_t p = 0; p < PIXELS; ++p) {
    c->places[p] = (p * 3 + c->pixels.first) % PIXELS;
  }
  c->invert[0] = random_u64(seed);
  c->invert[1] = random_u64(seed);
  c->invert[(c->program.channels - 1) / 64] &= last_word_mask(c->program.channels);
  choose_values(c, memory, seed);
  add_input(c, 1, &memory->int8_input, seed);
  add_input(c, 2, &memory->int16_input, seed);
  for (uint32_t i = 0; i < c->program.step_count; ++i) {
    const bool begins = i == 0 || (i == 1 && c->steps[0].kind == LQC_LANE_RELU);
    if (begins && c->largest <= INT16_MAX && random_below(seed, 2)) {
      add_pair(c, &c->steps[i], c->step_lanes[i], seed);
    } else {
      add_step(c, &c->steps[i], c->step_lanes[i], seed);
    }
  }
  for (uint32_t i = 0; i < c->program.store_count; ++i) {
    add_store(c, i, seed);
  }
}

static void run(program_case *c, const lqc_kernels *kernels, const guarded *outputs, void *const *places) {
  static int32_t scratch[CHANNELS];
  for (uint32_t i = 0; i < c->program.store_count; ++i) {
    memset(outputs[i].end - outputs[i].bytes, 0x5a, outputs[i].bytes);
  }
  c->pixels.outputs = places;
  kernels->fixed_point(&c->program, &c->pixels, scratch);
}

static void check(program_case *c, const arenas *memory, const lqc_kernels *scalar, const lqc_kernels *kernels) {
  void *expected[STORES], *found[STORES];
  for (uint32_t i = 0; i < c->program.store_count; ++i) {
    expected[i] = guarded_last(&memory->expected[i], PIXELS * c->output_bytes[i]);
    found[i] = guarded_last(&memory->outputs[i], PIXELS * c->output_bytes[i]);
  }
  run(c, scalar, memory->expected, expected);
  run(c, kernels, memory->outputs, found);
  for (uint32_t i = 0; i < c->program.store_count; ++i) {
    const uint8_t *a = memory->expected[i].end - BYTES, *b = memory->outputs[i].end - BYTES;
    for (size_t byte = 0; byte < BYTES; ++byte) {
      if (a[byte] != b[byte]) {
        FAIL("%s: %u channels, %u pixels, source %d, %u steps, the first %d, store %u of dtype %d: byte %zu from the "
             "end "
             "is %d, scalar has %d",
             lqc_isa_name(kernels->isa), c->program.channels, c->pixels.count, (int)c->pixels.source,
             c->program.step_count, (int)c->steps[0].kind, i, (int)c->stores[i].dtype, BYTES - byte, b[byte], a[byte]);
      }
    }
  }
}

int main(void) {
  static program_case c;
  arenas memory = {.values = guarded_new(BYTES), .int8_input = guarded_new(BYTES), .int16_input = guarded_new(BYTES)};
  for (uint32_t i = 0; i < STORES; ++i) {
    memory.outputs[i] = guarded_new(BYTES);
    memory.expected[i] = guarded_new(BYTES);
  }
  lqc_kernels tables[LQC_ISA_COUNT];
  size_t count = tables_to_test(tables);
  uint64_t seed = 19;
  for (int round = 0; round < 4000; ++round) {
    new_case(&c, &memory, &seed);
    for (size_t t = 1; t < count; ++t) {
      check(&c, &memory, &tables[0], &tables[t]);
    }
  }
  printf("fixed point: ok, %zu instruction sets\n", count);
  return 0;
}
