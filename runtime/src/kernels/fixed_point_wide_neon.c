/* Fixed point in lanes of 64 bits: 8 channels of up to four pixels go through all steps and stores in registers, so
 * that what is the same for all pixels is read once for four of them. What there is before the first step fits 32 bits,
 * so a multiplication that is the first step is SMLAL; NEON has none of 64 bits, and a later one is put together of 32.
 * Arrays of lanes are padded, so whole vectors of them are read; inputs and outputs of the last, partial block of a
 * pixel go through a buffer. */
#include <string.h>

#include "fixed_point_neon_values.h"

enum { BLOCK = 8, VECTORS = BLOCK / 2, PIXELS = 4 };

typedef int64x2_t lanes[PIXELS][VECTORS];

/* Some channels of some pixels. */
typedef struct block {
  const lqc_lane_program *program;
  const lqc_lane_pixels *pixels;
  const uint8_t *values; /* of the first pixel */
  size_t places[PIXELS];
  uint32_t channel, count; /* the first channel, and how many, up to BLOCK */
} block;

/* ---- Beginning --------------------------------------------------------------------------------------------------- */

LQC_INLINE int16x8_t int8_at(const block *b, const void *pixel) {
  int8_t last[BLOCK] = {0};
  const int8_t *x = (const int8_t *)pixel + b->channel;
  if (b->count < BLOCK) {
    memcpy(last, x, b->count);
    x = last;
  }
  return vmovl_s8(vld1_s8(x));
}

LQC_INLINE int16x8_t int16_at(const block *b, const void *pixel) {
  int16_t last[BLOCK] = {0};
  const int16_t *x = (const int16_t *)pixel + b->channel;
  if (b->count < BLOCK) {
    memcpy(last, x, b->count * sizeof(*x));
    x = last;
  }
  return vld1q_s16(x);
}

LQC_INLINE void widen(int32x4_t to[2], int16x8_t x) {
  to[0] = vmovl_s16(vget_low_s16(x));
  to[1] = vmovl_high_s16(x);
}

LQC_INLINE void begin(const block *b, const value_params *params, uint32_t p, int32x4_t y[2]) {
  const void *pixel = b->values + p * b->pixels->value_bytes;
  const int32_t *values = (const int32_t *)pixel + b->channel;
  const uint16_t *sums = (const uint16_t *)pixel + b->channel;
  switch (b->pixels->source) {
  case LQC_LANES_INT8:
    widen(y, int8_at(b, pixel));
    break;
  case LQC_LANES_INT16:
    widen(y, int16_at(b, pixel));
    break;
  case LQC_LANES_INT32:
    y[0] = vld1q_s32(values);
    y[1] = vld1q_s32(values + 4);
    break;
  case LQC_LANES_SUMS:
    y[0] = wide_value_of(params, vmovl_u16(vld1_u16(sums)));
    y[1] = wide_value_of(params, vmovl_u16(vld1_u16(sums + 4)));
    break;
  default:
    y[0] = wide_value_of(params, vreinterpretq_u32_s32(vld1q_s32(values)));
    y[1] = wide_value_of(params, vreinterpretq_u32_s32(vld1q_s32(values + 4)));
    break;
  }
}

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

LQC_INLINE int64x2_t lanes_at(const void *array, const block *b, uint32_t v) {
  return vld1q_s64((const int64_t *)array + b->channel + 2 * v);
}

LQC_INLINE int64x2_t product(int64x2_t a, int64x2_t b) {
  const uint32x4_t crossed = vmulq_u32(vreinterpretq_u32_s64(a), vrev64q_u32(vreinterpretq_u32_s64(b)));
  const uint64x2_t high = vshlq_n_u64(vpaddlq_u32(crossed), 32);
  return vreinterpretq_s64_u64(
      vmlal_u32(high, vmovn_u64(vreinterpretq_u64_s64(a)), vmovn_u64(vreinterpretq_u64_s64(b))));
}

LQC_INLINE void first_affine(const block *b, const lqc_lane_step *step, int32x4_t from[PIXELS][2], lanes y,
                             const uint32_t count) {
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    const int64x2_t offset = lanes_at(step->offset, b, v);
    const int32x2_t multiplier = vmovn_s64(lanes_at(step->multiplier, b, v));
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      const int32x4_t x = from[p][v / 2];
      y[p][v] = vmlal_s32(offset, v % 2 ? vget_high_s32(x) : vget_low_s32(x), multiplier);
    }
  }
}

LQC_INLINE void add(const block *b, const lqc_lane_step *step, lanes y, const uint32_t count) {
  const lqc_lane_pixels *pixels = b->pixels;
  const uint8_t *input = pixels->inputs[step->operand];
  int32x4_t x[PIXELS][2];
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    const uint8_t *pixel = input + b->places[p] * pixels->input_bytes[step->operand];
    widen(x[p], step->kind == LQC_LANE_ADD_INT8 ? int8_at(b, pixel) : int16_at(b, pixel));
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    const int64x2_t shift = lanes_at(step->shift, b, v), operand_shift = lanes_at(step->operand_shift, b, v);
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      const int64x2_t two = v % 2 ? vmovl_high_s32(x[p][v / 2]) : vmovl_s32(vget_low_s32(x[p][v / 2]));
      y[p][v] = vaddq_s64(vshlq_s64(y[p][v], shift), vshlq_s64(two, operand_shift));
    }
  }
}

LQC_INLINE void do_step(const block *b, const lqc_lane_step *step, lanes y, const uint32_t count) {
  if (step->kind == LQC_LANE_ADD_INT8 || step->kind == LQC_LANE_ADD_INT16) {
    add(b, step, y, count);
    return;
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      if (step->kind == LQC_LANE_RELU) {
        y[p][v] = vbicq_s64(y[p][v], vshrq_n_s64(y[p][v], 63));
      } else {
        y[p][v] = vaddq_s64(product(y[p][v], lanes_at(step->multiplier, b, v)), lanes_at(step->offset, b, v));
      }
    }
  }
}

/* ---- Stores ------------------------------------------------------------------------------------------------------ */

/* clip((y + half) >> right) to the limit, and that times `left`. */
LQC_INLINE void round_all(const block *b, const lqc_lane_store *store, lanes y, const int16_t limit,
                          const uint32_t count, int16x8_t all[PIXELS]) {
  int32x2_t q[PIXELS][VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    const int64x2_t half = lanes_at(store->half, b, v), shift = vnegq_s64(lanes_at(store->right, b, v));
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      q[p][v] = vqmovn_s64(vshlq_s64(vaddq_s64(y[p][v], half), shift));
    }
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    all[p] = vqmovn_high_s32(vqmovn_s32(vcombine_s32(q[p][0], q[p][1])), vcombine_s32(q[p][2], q[p][3]));
    all[p] = vmaxq_s16(vminq_s16(all[p], vdupq_n_s16(limit)), vdupq_n_s16((int16_t)-limit));
  }
  if (store->left) {
    const int64_t *left = (const int64_t *)store->left + b->channel;
    for (uint32_t p = 0; p < count; ++p) {
      int16_t values[BLOCK];
      vst1q_s16(values, all[p]);
      for (uint32_t c = 0; c < BLOCK; ++c) {
        const int64_t scaled = values[c] * left[c];
        values[c] = (int16_t)(scaled > limit ? limit : scaled < -limit ? -limit : scaled);
      }
      all[p] = vld1q_s16(values);
    }
  }
}

LQC_INLINE void store_int8(const block *b, const int16x8_t values, int8_t *out) {
  int8_t last[BLOCK];
  if (b->count == BLOCK) {
    vst1_s8(out + b->channel, vmovn_s16(values));
    return;
  }
  vst1_s8(last, vmovn_s16(values));
  memcpy(out + b->channel, last, b->count);
}

LQC_INLINE void store_int16(const block *b, const int16x8_t values, int16_t *out) {
  int16_t last[BLOCK];
  if (b->count == BLOCK) {
    vst1q_s16(out + b->channel, values);
    return;
  }
  vst1q_s16(last, values);
  memcpy(out + b->channel, last, b->count * sizeof(*last));
}

/* Of four lanes, as float32, rounded once. */
#if defined(__aarch64__)
LQC_INLINE float32x4_t converted(int64x2_t low, int64x2_t high, uint64x2_t *inexact) {
  const float64x2_t limit = vdupq_n_f64(0x1p53), a = vcvtq_f64_s64(low), b = vcvtq_f64_s64(high);
  *inexact = vorrq_u64(*inexact, vorrq_u64(vcageq_f64(a, limit), vcageq_f64(b, limit)));
  return vcvt_high_f32_f64(vcvt_f32_f64(a), b);
}
#else
/* y / 2^n, towards the lower, with its last bit set where something was lost, for the least n that makes it fit 32
   bits: where n is not 0 there are 31 bits, so the conversion rounds as if it had them all. */
LQC_INLINE int32x2_t shortened(int64x2_t y, int32x2_t *n) {
  const int32x2_t high = vshrn_n_s64(y, 32), low = vmovn_s64(y);
  const uint32x2_t fits = vceq_s32(high, vshr_n_s32(low, 31));
  *n = vbic_s32(vsub_s32(vdup_n_s32(32), vcls_s32(high)), vreinterpret_s32_u32(fits));
  const int64x2_t shift = vmovl_s32(*n), shifted = vshlq_s64(y, vnegq_s64(shift));
  const int32x2_t lost = vmovn_s64(veorq_s64(vshlq_s64(shifted, shift), y));
  const uint32x2_t last = vshr_n_u32(vtst_s32(lost, lost), 31);
  return vorr_s32(vmovn_s64(shifted), vreinterpret_s32_u32(last));
}

LQC_INLINE float32x4_t converted(int64x2_t low, int64x2_t high, uint64x2_t *inexact) {
  int32x2_t n[2];
  const int32x4_t y = vcombine_s32(shortened(low, &n[0]), shortened(high, &n[1]));
  const int32x4_t power = vshlq_n_s32(vaddq_s32(vcombine_s32(n[0], n[1]), vdupq_n_s32(127)), 23);
  (void)inexact; /* none is */
  return vmulq_f32(vcvtq_f32_s32(y), vreinterpretq_f32_s32(power));
}
#endif

/* The products with scales are exact, as these are powers of two within 2^-62 and 2^62. */
LQC_INLINE void store_float(const block *b, const lqc_lane_store *store, const int64x2_t y[VECTORS], float *out) {
  const float *scale = store->scale + b->channel;
  float last[BLOCK], *to = b->count == BLOCK ? out + b->channel : last;
  uint64x2_t inexact = vdupq_n_u64(0);
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; v += 2) {
    int64x2_t low = y[v], high = y[v + 1];
    __asm__ volatile("" : "+w"(low), "+w"(high)); /* else converted before the loop over stores, whatever they are */
    vst1q_f32(to + 2 * v, vmulq_f32(converted(low, high, &inexact), vld1q_f32(scale + 2 * v)));
  }
  if (b->count < BLOCK) {
    memcpy(out + b->channel, last, b->count * sizeof(float));
  }
  if (vgetq_lane_u64(inexact, 0) | vgetq_lane_u64(inexact, 1)) {
    int64_t values[BLOCK];
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      vst1q_s64(values + 2 * v, y[v]);
    }
    for (uint32_t c = 0; c < b->count; ++c) { /* two roundings would not be one */
      out[b->channel + c] = (float)values[c] * scale[c];
    }
  }
}

/* A byte of a word; what lies beyond the last channel's byte is 0 already. */
LQC_INLINE void store_bits(const block *b, const lqc_lane_store *store, lanes y, const uint32_t count,
                           uint8_t *const out[PIXELS]) {
  const uint64_t inverted = store->invert ? store->invert[b->channel / LQC_WORD_BITS] : 0;
  const uint8_t invert = (uint8_t)(inverted >> b->channel % LQC_WORD_BITS), mask = (uint8_t)lqc_low_mask(b->count);
  uint32x2_t reached[PIXELS][VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    const int64x2_t threshold = lanes_at(store->thresholds, b, v);
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      reached[p][v] = vmovn_u64(vcleq_s64(y[p][v], threshold));
    }
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    const uint16x8_t all = vcombine_u16(vmovn_u32(vcombine_u32(reached[p][0], reached[p][1])),
                                        vmovn_u32(vcombine_u32(reached[p][2], reached[p][3])));
    const uint8_t bits = vaddv_u8(vand_u8(vmovn_u16(all), vcreate_u8(0x8040201008040201u)));
    out[p][b->channel / 8] = (uint8_t)((bits & mask) ^ invert);
  }
}

LQC_INLINE void run_store(const block *b, uint32_t index, lanes y, const uint32_t count) {
  const lqc_lane_store *store = &b->program->stores[index];
  uint8_t *out[PIXELS];
  int16x8_t all[PIXELS];
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    out[p] = (uint8_t *)b->pixels->outputs[index] + b->places[p] * b->pixels->output_bytes[index];
  }
  if (store->dtype == LQC_INT8) {
    round_all(b, store, y, INT8_MAX, count, all);
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      store_int8(b, all[p], (int8_t *)out[p]);
    }
  } else if (store->dtype == LQC_INT16) {
    round_all(b, store, y, INT16_MAX, count, all);
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      store_int16(b, all[p], (int16_t *)(void *)out[p]);
    }
  } else if (store->dtype == LQC_FLOAT32) {
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      store_float(b, store, y[p], (float *)(void *)out[p]);
    }
  } else {
    store_bits(b, store, y, count, out);
  }
}

/* The last word of every output of bits, where its channels do not fill it. */
static void clear_tails(const block *b, uint32_t count) {
  const size_t word = b->program->channels / LQC_WORD_BITS;
  for (uint32_t i = 0; i < b->program->store_count && b->program->channels % LQC_WORD_BITS != 0; ++i) {
    for (uint32_t p = 0; p < count && b->program->stores[i].dtype == LQC_BIT; ++p) {
      uint8_t *out = (uint8_t *)b->pixels->outputs[i] + b->places[p] * b->pixels->output_bytes[i];
      memset(out + word * sizeof(uint64_t), 0, sizeof(uint64_t));
    }
  }
}

LQC_INLINE void run_block(const block *b, const value_params *params, const uint32_t count) {
  const lqc_lane_program *program = b->program;
  int32x4_t from[PIXELS][2];
  lanes y;
  uint32_t i = 0;
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    begin(b, params, p, from[p]);
  }
  if (program->step_count > 0 && program->steps[0].kind == LQC_LANE_AFFINE) {
    first_affine(b, &program->steps[i++], from, y, count);
  } else {
    LQC_UNROLL
    for (uint32_t p = 0; p < count; ++p) {
      LQC_UNROLL
      for (uint32_t v = 0; v < VECTORS; ++v) {
        y[p][v] = v % 2 ? vmovl_high_s32(from[p][v / 2]) : vmovl_s32(vget_low_s32(from[p][v / 2]));
      }
    }
  }
  for (; i < program->step_count; ++i) {
    do_step(b, &program->steps[i], y, count);
  }
  for (i = 0; i < program->store_count; ++i) {
    run_store(b, i, y, count);
  }
}

/* Pixels from `first` on; `count` is a constant after inlining. */
LQC_INLINE void run_pixels(const lqc_lane_program *program, const lqc_lane_pixels *pixels, const value_params *params,
                           uint32_t first, const uint32_t count) {
  const uint8_t *values = (const uint8_t *)pixels->values + first * pixels->value_bytes;
  block b = {.program = program, .pixels = pixels, .values = values, .count = BLOCK};
  for (uint32_t p = 0; p < count; ++p) {
    b.places[p] = lqc_lane_place(pixels, first + p);
  }
  clear_tails(&b, count);
  for (; b.channel + BLOCK <= program->channels; b.channel += BLOCK) {
    run_block(&b, params, count);
  }
  if (b.channel < program->channels) {
    b.count = program->channels - b.channel;
    run_block(&b, params, count);
  }
}

static void run_four(const lqc_lane_program *program, const lqc_lane_pixels *pixels, const value_params *params,
                     uint32_t first) {
  run_pixels(program, pixels, params, first, PIXELS);
}

static void run_one(const lqc_lane_program *program, const lqc_lane_pixels *pixels, const value_params *params,
                    uint32_t first) {
  run_pixels(program, pixels, params, first, 1);
}

void lqc_fixed_point_wide_neon(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch) {
  (void)scratch;
  if (lqc_fixed_point_affine_neon(program, pixels)) {
    return;
  }
  const value_params params = value_params_of(pixels);
  uint32_t p = 0;
  for (; p + PIXELS <= pixels->count; p += PIXELS) {
    run_four(program, pixels, &params, p);
  }
  for (; p < pixels->count; ++p) {
    run_one(program, pixels, &params, p);
  }
}
