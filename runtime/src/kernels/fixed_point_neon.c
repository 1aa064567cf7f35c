/* Fixed point in lanes of 32 bits: 16 channels of three pixels go through all steps and stores in registers, so what
 * is the same for all pixels is read once for three of them. Four pixels would leave too few registers for it. Arrays
 * of lanes are padded, so whole vectors of them are read; inputs and outputs of the last, partial block of a pixel go
 * through a buffer. */
#include <string.h>

#include "fixed_point_neon_stores.h"
#include "fixed_point_neon_values.h"

/* ---- Beginning --------------------------------------------------------------------------------------------------- */

LQC_INLINE int8x16_t int8_at(const block *b, const void *pixel, const int whole) {
  const int8_t *values = (const int8_t *)pixel + b->channel;
  if (whole) {
    return vld1q_s8(values);
  }
  int8_t last[BLOCK] = {0};
  memcpy(last, values, b->rest);
  return vld1q_s8(last);
}

LQC_INLINE int16x8x2_t int16_at(const block *b, const void *pixel, const int whole) {
  const int16_t *values = (const int16_t *)pixel + b->channel;
  int16_t last[BLOCK] = {0};
  if (!whole) {
    memcpy(last, values, b->rest * sizeof(int16_t));
    values = last;
  }
  return (int16x8x2_t){{vld1q_s16(values), vld1q_s16(values + HALF_BLOCK)}};
}

LQC_INLINE int16x8x2_t widened(int8x16_t x) {
  return (int16x8x2_t){{vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x)}};
}

LQC_INLINE void to_lanes(int16x8x2_t x, int32x4_t *y) {
  LQC_UNROLL
  for (uint32_t h = 0; h < 2; ++h) {
    y[2 * h] = vmovl_s16(vget_low_s16(x.val[h]));
    y[2 * h + 1] = vmovl_high_s16(x.val[h]);
  }
}

LQC_INLINE const uint8_t *input_of(const block *b, const lqc_lane_step *step, uint32_t p) {
  const lqc_lane_pixels *pixels = b->pixels;
  return (const uint8_t *)pixels->inputs[step->operand] + b->places[p] * pixels->input_bytes[step->operand];
}

LQC_INLINE void begin_narrow(const block *b, const value_params *params, const uint32_t count, const int whole,
                             int16x8x2_t *y) {
  const size_t bytes = b->pixels->value_bytes;
  switch (b->pixels->source) {
  case LQC_LANES_INT8:
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      y[p] = widened(int8_at(b, b->values + p * bytes, whole));
    }
    break;
  case LQC_LANES_INT16:
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      y[p] = int16_at(b, b->values + p * bytes, whole);
    }
    break;
  default:
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      const uint16_t *sums = (const uint16_t *)(const void *)(b->values + p * bytes) + b->channel;
      y[p].val[0] = value_of(params, vld1q_u16(sums));
      y[p].val[1] = value_of(params, vld1q_u16(sums + HALF_BLOCK));
    }
    break;
  }
}

LQC_INLINE void begin_wide(const block *b, const value_params *params, const uint32_t count, int32x4_t (*y)[VECTORS]) {
  const int narrow = b->pixels->source == LQC_LANES_SUMS, sums = narrow || b->pixels->source == LQC_LANES_SUMS_WIDE;
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    const void *values = b->values + p * b->pixels->value_bytes;
    if (!narrow) {
      load_lanes(b, values, y[p]);
    }
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      if (narrow) {
        const uint16_t *of_channels = (const uint16_t *)values + b->channel + v * LANES;
        y[p][v] = vreinterpretq_s32_u32(vmovl_u16(vld1_u16(of_channels)));
      }
      y[p][v] = sums ? wide_value_of(params, vreinterpretq_u32_s32(y[p][v])) : y[p][v];
    }
  }
}

/* ---- Steps ------------------------------------------------------------------------------------------------------ */

/* Sums wrap on the way, the last one fits. */
LQC_INLINE void multiply_add(int16x8x2_t x, const int16x8_t *factors, const int32x4_t *terms, int32x4_t *y) {
  LQC_UNROLL
  for (uint32_t h = 0; h < 2; ++h) {
    y[2 * h] = vmlal_s16(terms[2 * h], vget_low_s16(x.val[h]), vget_low_s16(factors[h]));
    y[2 * h + 1] = vmlal_high_s16(terms[2 * h + 1], x.val[h], factors[h]);
  }
}

LQC_INLINE int16x8x2_t scaled(int16x8x2_t x, int32_t log2) {
  const int16x8_t shift = vdupq_n_s16((int16_t)log2);
  return (int16x8x2_t){{vshlq_s16(x.val[0], shift), vshlq_s16(x.val[1], shift)}};
}

LQC_INLINE void do_pair(const block *b, const lqc_lane_step *step, const uint32_t count, const int whole,
                        int16x8x2_t *narrow, int32x4_t (*y)[VECTORS]) {
  int16x8_t low[2], high[2];
  int32x4_t pairs[VECTORS], offset[VECTORS];
  load_lanes(b, step->pairs, pairs);
  load_lanes(b, step->offset, offset);
  LQC_UNROLL
  for (uint32_t h = 0; h < 2; ++h) {
    const int16x8_t first = vreinterpretq_s16_s32(pairs[2 * h]), second = vreinterpretq_s16_s32(pairs[2 * h + 1]);
    low[h] = vuzp1q_s16(first, second);
    high[h] = vuzp2q_s16(first, second);
  }
  if (step->y_log2) {
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      narrow[p] = scaled(narrow[p], step->y_log2);
    }
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    multiply_add(narrow[p], low, offset, y[p]);
  }
  if (step->operand > 0 && step->x_log2) {
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      multiply_add(scaled(widened(int8_at(b, input_of(b, step, p), whole)), step->x_log2), high, y[p], y[p]);
    }
  } else if (step->operand > 0) {
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      multiply_add(widened(int8_at(b, input_of(b, step, p), whole)), high, y[p], y[p]);
    }
  }
}

LQC_INLINE void do_add(const block *b, const lqc_lane_step *step, const uint32_t count, const int whole,
                       int32x4_t (*y)[VECTORS]) {
  const int is_int8 = step->kind == LQC_LANE_ADD_INT8;
  int32x4_t shift[VECTORS], operand_shift[VECTORS];
  load_lanes(b, step->shift, shift);
  load_lanes(b, step->operand_shift, operand_shift);
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    const uint8_t *input = input_of(b, step, p);
    int32x4_t x[VECTORS];
    to_lanes(is_int8 ? widened(int8_at(b, input, whole)) : int16_at(b, input, whole), x);
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      y[p][v] = vaddq_s32(vshlq_s32(y[p][v], shift[v]), vshlq_s32(x[v], operand_shift[v]));
    }
  }
}

LQC_INLINE void do_affine(const block *b, const lqc_lane_step *step, const uint32_t count, int32x4_t (*y)[VECTORS]) {
  int32x4_t multiplier[VECTORS], offset[VECTORS];
  load_lanes(b, step->multiplier, multiplier);
  load_lanes(b, step->offset, offset);
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      y[p][v] = vmlaq_s32(offset[v], y[p][v], multiplier[v]);
    }
  }
}

LQC_INLINE void do_relu(const uint32_t count, int32x4_t (*y)[VECTORS]) {
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      y[p][v] = vmaxq_s32(y[p][v], vdupq_n_s32(0));
    }
  }
}

LQC_INLINE void do_narrow_relu(const uint32_t count, int16x8x2_t *narrow) {
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    narrow[p].val[0] = vmaxq_s16(narrow[p].val[0], vdupq_n_s16(0));
    narrow[p].val[1] = vmaxq_s16(narrow[p].val[1], vdupq_n_s16(0));
  }
}

LQC_INLINE void do_step(const block *b, const lqc_lane_step *step, const uint32_t count, const int whole,
                        int32x4_t (*y)[VECTORS]) {
  switch (step->kind) {
  case LQC_LANE_RELU:
    do_relu(count, y);
    break;
  case LQC_LANE_AFFINE:
    do_affine(b, step, count, y);
    break;
  default:
    do_add(b, step, count, whole, y);
    break;
  }
}

/* ---- Running ----------------------------------------------------------------------------------------------------- */

LQC_INLINE void run_block(const block *b, const value_params *params, const uint32_t count, const int whole) {
  const lqc_lane_program *program = b->program;
  const uint32_t pair = program->step_count > 1 && program->steps[1].kind == LQC_LANE_PAIR; /* behind a RELU */
  const int has_pair = program->step_count > 0 && program->steps[pair].kind == LQC_LANE_PAIR;
  int16x8x2_t narrow[MAX_PIXELS];
  int32x4_t y[MAX_PIXELS][VECTORS];
  if (params->narrow) {
    begin_narrow(b, params, count, whole, narrow);
    LQC_UNROLL
    for (uint32_t p = 0; p < count && !has_pair; ++p) {
      to_lanes(narrow[p], y[p]);
    }
  } else {
    begin_wide(b, params, count, y);
    if (has_pair && pair > 0) { /* only behind it y fits int16 */
      do_relu(count, y);
    }
    LQC_UNROLL
    for (uint32_t p = 0; p < count && has_pair; ++p) { /* whose factors fit int16 */
      narrow[p].val[0] = vmovn_high_s32(vmovn_s32(y[p][0]), y[p][1]);
      narrow[p].val[1] = vmovn_high_s32(vmovn_s32(y[p][2]), y[p][3]);
    }
  }
  if (has_pair) {
    if (params->narrow && pair > 0) {
      do_narrow_relu(count, narrow);
    }
    do_pair(b, &program->steps[pair], count, whole, narrow, y);
  }
  for (uint32_t i = has_pair ? pair + 1 : 0; i < program->step_count; ++i) {
    do_step(b, &program->steps[i], count, whole, y);
  }
  for (uint32_t i = 0; i < program->store_count; ++i) {
    do_store(b, i, count, whole, y);
  }
}

__attribute__((noinline)) static void run_partial(const block *of_pixels, const value_params *params, uint32_t count) {
  for (uint32_t p = 0; p < count; ++p) {
    block b = *of_pixels;
    b.places[0] = b.places[p];
    b.values += p * b.pixels->value_bytes;
    run_block(&b, params, 1, 0);
  }
}

/* Words of bits are written 16 bits at a time: the bytes behind the last block. */
__attribute__((noinline)) static void clear_tails(const block *b, uint32_t count) {
  const size_t written = lqc_round_up(b->program->channels, BLOCK) / 8;
  for (uint32_t i = 0; i < b->program->store_count; ++i) {
    for (uint32_t p = 0; p < count && b->program->stores[i].dtype == LQC_BIT; ++p) {
      const size_t bytes = b->pixels->output_bytes[i];
      memset((uint8_t *)b->pixels->outputs[i] + b->places[p] * bytes + written, 0, bytes - written);
    }
  }
}

LQC_INLINE void run_pixels(const lqc_lane_program *program, const lqc_lane_pixels *pixels, const value_params *params,
                           uint32_t first, const uint32_t count) {
  block b = {
      .program = program, .pixels = pixels, .values = (const uint8_t *)pixels->values + first * pixels->value_bytes};
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    b.places[p] = lqc_lane_place(pixels, first + p);
  }
  for (; program->channels - b.channel >= BLOCK; b.channel += BLOCK) {
    run_block(&b, params, count, 1);
  }
  b.rest = program->channels - b.channel;
  if (program->channels % LQC_WORD_BITS != 0) {
    const block tail = b; /* a copy in memory, so that b stays in registers */
    if (tail.rest > 0) {
      run_partial(&tail, params, count);
    }
    clear_tails(&tail, count);
  }
}

void lqc_fixed_point_neon(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch) {
  const value_params params = value_params_of(pixels);
  uint32_t p = 0;
  (void)scratch;
  for (; pixels->count - p >= MAX_PIXELS; p += MAX_PIXELS) {
    run_pixels(program, pixels, &params, p, MAX_PIXELS);
  }
  for (; p < pixels->count; ++p) {
    run_pixels(program, pixels, &params, p, 1);
  }
}
