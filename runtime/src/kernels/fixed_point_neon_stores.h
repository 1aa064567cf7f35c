/* A block of fixed_point_neon.c, and its ends: the stores from lanes to outputs. */
#ifndef LQC_FIXED_POINT_NEON_STORES_H
#define LQC_FIXED_POINT_NEON_STORES_H

#include <string.h>

#include "kernels_isa.h"
#include "neon_intrinsics.h"
#include "pack_bits_neon.h"

enum { LANES = 4, VECTORS = 4, BLOCK = LANES * VECTORS, HALF_BLOCK = BLOCK / 2 };
#if defined(__aarch64__)
enum { MAX_PIXELS = 3 };
#else
enum { MAX_PIXELS = 2 }; /* 16 registers */
#endif

/* The channels from `channel` on of some pixels, whose number is `count` wherever there is one; where they are not a
 * whole block, there are `rest` of them. */
typedef struct block {
  const lqc_lane_program *program;
  const lqc_lane_pixels *pixels;
  size_t places[MAX_PIXELS];
  const uint8_t *values;
  size_t channel, rest;
} block;

/* The address is hidden, else GCC takes four loads, each with an offset in a register, and not two of pairs. */
LQC_INLINE void load_lanes(const block *b, const void *lanes, int32x4_t *y) {
  const int32_t *at = (const int32_t *)lanes + b->channel;
  __asm__("" : "+r"(at));
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    y[v] = vld1q_s32(at + v * LANES);
  }
}

/* Where the block of each pixel goes; read before bytes are written, which might be these for all a compiler knows. */
LQC_INLINE void outputs_of(const block *b, uint32_t i, size_t channel_bits, const uint32_t count, uint8_t **out) {
  uint8_t *const first = (uint8_t *)b->pixels->outputs[i] + b->channel * channel_bits / 8;
  const size_t bytes = b->pixels->output_bytes[i];
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    out[p] = first + b->places[p] * bytes;
  }
}

/* Half is 2^(right - 1), or 0 for right = 0, so SQRSHL adds it; and a channel that goes to the left has right = 0. What
 * it saturates is clipped afterwards. Behind the last channel `left` is 0, and the result not used. */
LQC_INLINE void load_shifts(const block *b, const lqc_lane_store *store, int32x4_t *shift) {
  load_lanes(b, store->right, shift);
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    shift[v] = vnegq_s32(shift[v]);
  }
  if (store->left) {
    int32x4_t left[VECTORS];
    load_lanes(b, store->left, left);
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      shift[v] = vaddq_s32(shift[v], vsubq_s32(vdupq_n_s32(31), vclzq_s32(left[v])));
    }
  }
}

LQC_INLINE int16x8x2_t shifted(const int32x4_t *y, const int32x4_t *shift) {
  int16x8x2_t q;
  LQC_UNROLL
  for (uint32_t h = 0; h < 2; ++h) {
    q.val[h] =
        vqmovn_high_s32(vqmovn_s32(vqrshlq_s32(y[2 * h], shift[2 * h])), vqrshlq_s32(y[2 * h + 1], shift[2 * h + 1]));
  }
  return q;
}

LQC_INLINE void store_int8(const block *b, uint32_t i, const uint32_t count, const int whole, int32x4_t (*y)[VECTORS]) {
  int32x4_t shift[VECTORS];
  uint8_t *out[MAX_PIXELS];
  load_shifts(b, &b->program->stores[i], shift);
  outputs_of(b, i, 8, count, out);
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    const int16x8x2_t q = shifted(y[p], shift);
    const int8x16_t bytes = vmaxq_s8(vqmovn_high_s16(vqmovn_s16(q.val[0]), q.val[1]), vdupq_n_s8(-INT8_MAX));
    if (whole) {
      vst1q_s8((int8_t *)out[p], bytes);
    } else {
      int8_t last[BLOCK];
      vst1q_s8(last, bytes);
      memcpy(out[p], last, b->rest);
    }
  }
}

LQC_INLINE void store_int16(const block *b, uint32_t i, const uint32_t count, const int whole,
                            int32x4_t (*y)[VECTORS]) {
  int32x4_t shift[VECTORS];
  uint8_t *out[MAX_PIXELS];
  load_shifts(b, &b->program->stores[i], shift);
  outputs_of(b, i, 16, count, out);
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    const int16x8x2_t q = shifted(y[p], shift);
    int16_t last[BLOCK], *const to = whole ? (int16_t *)(void *)out[p] : last;
    vst1q_s16(to, vmaxq_s16(q.val[0], vdupq_n_s16(-INT16_MAX)));
    vst1q_s16(to + HALF_BLOCK, vmaxq_s16(q.val[1], vdupq_n_s16(-INT16_MAX)));
    if (!whole) {
      memcpy(out[p], last, b->rest * sizeof(int16_t));
    }
  }
}

LQC_INLINE void store_float(const block *b, uint32_t i, const uint32_t count, const int whole,
                            int32x4_t (*y)[VECTORS]) {
  const float *scale = b->program->stores[i].scale + b->channel;
  __asm__ volatile("" : "+r"(scale)); /* else its addresses are made for every block, whatever the stores are */
  uint8_t *out[MAX_PIXELS];
  outputs_of(b, i, 32, count, out);
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    float last[BLOCK], *const to = whole ? (float *)(void *)out[p] : last;
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      int32x4_t lanes = y[p][v];
      __asm__ volatile("" : "+w"(lanes)); /* else it is converted before the loop over stores, whatever they are */
      vst1q_f32(to + v * LANES, vmulq_f32(vcvtq_f32_s32(lanes), vld1q_f32(scale + v * LANES)));
    }
    if (!whole) {
      memcpy(out[p], last, b->rest * sizeof(float));
    }
  }
}

/* 16 bits a pixel, joined in one word. */
LQC_INLINE void store_bits(const block *b, uint32_t i, const uint32_t count, const int whole, int32x4_t (*y)[VECTORS]) {
  const lqc_lane_store *store = &b->program->stores[i];
  int32x4_t thresholds[VECTORS];
  uint8_t *out[MAX_PIXELS];
  uint8x16_t below[4] = {vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0)};
  load_lanes(b, store->thresholds, thresholds);
  outputs_of(b, i, 1, count, out);
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    uint16x8_t half[2];
    LQC_UNROLL
    for (uint32_t h = 0; h < 2; ++h) {
      half[h] = vuzp1q_u16(vreinterpretq_u16_u32(vcleq_s32(y[p][2 * h], thresholds[2 * h])),
                           vreinterpretq_u16_u32(vcleq_s32(y[p][2 * h + 1], thresholds[2 * h + 1])));
    }
    below[p] = vuzp1q_u8(vreinterpretq_u8_u16(half[0]), vreinterpretq_u8_u16(half[1]));
  }
  const uint64_t every_pixel = 0x0001000100010001u;
  uint64_t bits = lqc_pack_bits_neon(below[0], below[1], below[2], below[3]);
  if (!whole) {
    bits &= lqc_low_mask((uint32_t)b->rest) * every_pixel;
  }
  if (store->invert) {
    uint16_t invert;
    memcpy(&invert, (const uint8_t *)store->invert + b->channel / 8, sizeof(invert));
    bits ^= invert * every_pixel;
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < count; ++p) {
    const uint16_t of_pixel = (uint16_t)(bits >> (p * BLOCK));
    memcpy(out[p], &of_pixel, sizeof(of_pixel));
  }
}

LQC_INLINE void do_store(const block *b, uint32_t i, const uint32_t count, const int whole, int32x4_t (*y)[VECTORS]) {
  switch (b->program->stores[i].dtype) {
  case LQC_INT8:
    store_int8(b, i, count, whole, y);
    break;
  case LQC_INT16:
    store_int16(b, i, count, whole, y);
    break;
  case LQC_FLOAT32:
    store_float(b, i, count, whole, y);
    break;
  default:
    store_bits(b, i, count, whole, y);
    break;
  }
}

#endif /* LQC_FIXED_POINT_NEON_STORES_H */
