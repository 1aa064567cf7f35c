/* Binary convolution for aarch64: EOR, CNT and a tree of ADDP over eight filters.
 *
 * CNT leaves 16 byte counts a filter. Three levels of ADDP turn those of eight filters into two bytes a filter, at
 * most 64 each, and UADALP adds these to eight 16-bit sums, in channel order: 8 + 8 + 7 + 1 instructions for 8 * 128
 * binary multiply-accumulates, 3.0 for 128, with no limit on the number of steps, one register of sums a pixel, and
 * nothing to reduce at the end. Eight filters stay in registers for up to fifteen pixels: 23 vectors are loaded for 120
 * units of work. README.md derives the limits.
 *
 * Where a run has an odd number of words (64 channels: 3 words a kernel row), its last word is met together with the
 * next run's first one (bconv2d_neon_layout.c), by two loads of 64 bits. A word that is left over is a step of 64 bits:
 * a vector then holds a word of two filters, and the first level of ADDP is left out. That is again 3.0 instructions
 * for 128, and no lane is wasted.
 *
 * A sum that starts at 2^15 - 1 - h, unsigned, has its sign bit set exactly where p > h: the threshold costs no
 * instruction in the sums, and the sign bits of a block are joined while they are in registers. */
#include <arm_neon.h>
#include <string.h>

#include "affine_neon.h"
#include "bconv2d_neon_loops.h"
#include "kernels_isa.h"

enum { CHANNELS = LQC_NEON_CHANNELS, TILE = 15, ROOM = 16, CHUNK = 8 };

/* ---- Inner loops ------------------------------------------------------------------------------------------------- */

typedef lqc_neon_work work;

/* A function of its own for each: the labels of the assembly are there once, and registers are free of its callers. */
#define LQC_DEFINE_LOOP(name, loop)                     \
  __attribute__((noinline)) static void name(work *w) { \
    register work *x0 __asm__("x0") = w;                \
    __asm__ volatile(loop : "+r"(x0) : : LQC_CLOBBERS); \
  }

/* The loops of a kernel, and what they are told of the weights and of their own code. */
typedef struct loops {
  void (*sums)(work *w);
  void (*signs)(work *w);
  uint32_t word_bytes; /* of a block of filters */
  int crosses_as_pairs;
  uint32_t pair_block_bytes;
} loops;

#define LQC_DEFINE_LOOPS(name, L, S, crosses_are_pairs)                                                                \
  LQC_DEFINE_LOOP(sums_of_##name, LQC_LOOP(S, L, SUMS))                                                                \
  LQC_DEFINE_LOOP(signs_of_##name, LQC_LOOP(S, L, SIGNS))                                                              \
  static const loops loops_of_##name = {sums_of_##name, signs_of_##name, LQC_NEON_##L##_WORD_BYTES, crosses_are_pairs, \
                                        LQC_PAIR_BLOCK_BYTES_##S};

LQC_DEFINE_LOOPS(pairs, PAIRS, WHOLE, 0)
LQC_DEFINE_LOOPS(words, WORDS, WHOLE, 0)
LQC_DEFINE_LOOPS(pairs_halves, PAIRS, HALVES, 1)
LQC_DEFINE_LOOPS(words_halves, WORDS, HALVES, 1)

/* ---- Tiles ------------------------------------------------------------------------------------------------------- */

LQC_INLINE void start_work(work *w, const lqc_bconv_tile *tile, const loops *l) {
  const lqc_neon_steps *steps = tile->arranged;
  const uint32_t last = tile->pixels - 1;
  w->input = tile->input;
  w->weights = tile->weights;
  w->block_bytes = (size_t)tile->filter_words * l->word_bytes;
  w->entries = (const uint8_t *)steps->entries - sizeof(lqc_neon_step) / 2;
  w->pairs = steps->pairs + (l->crosses_as_pairs ? steps->crosses : 0);
  w->skip_pairs = last == TILE - 1 ? -1 : (int64_t)(TILE - 2 - last) * l->pair_block_bytes;
  w->skip_crosses = (int64_t)(TILE - 2 - last) * LQC_PAIR_BLOCK_BYTES_CROSS;
  w->skip_words = (int64_t)(TILE - 2 - last) * LQC_WORD_BLOCK_BYTES;
  w->place = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
  w->offsets = tile->pixel_offsets;
  w->last = tile->input + tile->pixel_offsets[last];
}

/* Blocks from `channel` on, at most CHUNK. */
LQC_INLINE uint32_t blocks_from(const lqc_bconv_tile *tile, uint32_t channel) {
  return lqc_min_u32(CHUNK, (tile->out_channels - channel + CHANNELS - 1) / CHANNELS);
}

LQC_INLINE uint16x8_t initial_of(const lqc_bconv_tile *tile, uint32_t channel) {
  return tile->initial ? vld1q_u16((const uint16_t *)tile->initial + channel) : vdupq_n_u16(0);
}

typedef uint16_t block_sums[ROOM][CHANNELS]; /* the last pixel is none */

LQC_INLINE void start_sums(work *w, const lqc_bconv_tile *tile, uint32_t channel, uint16x8_t start) {
  w->blocks = blocks_from(tile, channel);
  if (tile->initial == NULL) {
    LQC_UNROLL
    for (uint32_t b = 0; b < CHUNK; ++b) {
      w->start[b] = start;
    }
    return;
  }
  for (uint32_t b = 0; b < w->blocks; ++b) {
    w->start[b] = vaddq_u16(start, initial_of(tile, channel + b * CHANNELS));
  }
}

LQC_INLINE void accumulate_with(const lqc_bconv_tile *tile, const loops *l) {
  block_sums sums[CHUNK];
  work w;
  start_work(&w, tile, l);
  for (uint32_t channel = 0; channel < tile->out_channels; channel += CHUNK * CHANNELS) {
    start_sums(&w, tile, channel, vdupq_n_u16(0));
    w.out = (uint8_t *)sums;
    l->sums(&w);
    w.weights += w.blocks * w.block_bytes;
    uint16_t *out = (uint16_t *)tile->sums + channel;
    for (uint32_t p = 0; p < tile->pixels; ++p, out += tile->sums_stride) {
      for (uint32_t b = 0; b < w.blocks; ++b) {
        vst1q_u16(out + b * CHANNELS, vld1q_u16(sums[b][p]));
      }
    }
  }
}

/* ---- Threshold --------------------------------------------------------------------------------------------------- */

/* 2p + missing >= limit where p > h = floor((limit - missing - 1) / 2), which UHSUB computes in 17 bits. p >= 0 makes
   every h below -1 as good as -1. */
#define LQC_ALL_OF(v) \
  __asm__("" : "+w"(v[0]), "+w"(v[1]), "+w"(v[2]), "+w"(v[3]), "+w"(v[4]), "+w"(v[5]), "+w"(v[6]), "+w"(v[7]))

/* Of all blocks of a chunk, whether there are as many filters or not: limits and initial sums have room for them. Side
   by side, since compilers would do one after the other and in-order cores wait for every result. */
LQC_INLINE void start_thresholds(work *w, const lqc_bconv_tile *tile, const lqc_epilogue_params *params,
                                 uint32_t channel, uint16x8_t missing_and_1) {
  uint16x8_t h[CHUNK];
  LQC_UNROLL
  for (uint32_t b = 0; b < CHUNK; ++b) {
    h[b] = vld1q_u16(params->limits + channel + b * CHANNELS);
  }
  LQC_ALL_OF(h);
  LQC_UNROLL
  for (uint32_t b = 0; b < CHUNK; ++b) {
    h[b] = vhsubq_u16(h[b], missing_and_1);
  }
  LQC_ALL_OF(h);
  LQC_UNROLL
  for (uint32_t b = 0; b < CHUNK; ++b) {
    h[b] = vreinterpretq_u16_s16(vmaxq_s16(vreinterpretq_s16_u16(h[b]), vdupq_n_s16(-1)));
  }
  LQC_ALL_OF(h);
  LQC_UNROLL
  for (uint32_t b = 0; b < CHUNK; ++b) {
    h[b] = vsubq_u16(vdupq_n_u16(INT16_MAX), h[b]);
  }
  LQC_ALL_OF(h);
  if (tile->initial) {
    LQC_UNROLL
    for (uint32_t b = 0; b < CHUNK; ++b) {
      h[b] = vaddq_u16(h[b], initial_of(tile, channel + b * CHANNELS));
    }
  }
  LQC_UNROLL
  for (uint32_t b = 0; b < CHUNK; ++b) {
    w->start[b] = h[b];
  }
}

/* Words of 16 pixels from a byte of each of 8 blocks: out[i] holds those of pixels 2i and 2i + 1. */
LQC_INLINE void transpose_bytes(uint64x2_t out[ROOM / 2], const uint8x16_t bytes[CHUNK]) {
  LQC_UNROLL
  for (uint32_t half = 0; half < 2; ++half) {
    uint16x8_t two[4];
    LQC_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      two[i] = vreinterpretq_u16_u8(half ? vzip2q_u8(bytes[2 * i], bytes[2 * i + 1])
                                         : vzip1q_u8(bytes[2 * i], bytes[2 * i + 1]));
    }
    uint32x4_t low[2], high[2];
    LQC_UNROLL
    for (uint32_t i = 0; i < 2; ++i) {
      low[i] = vreinterpretq_u32_u16(vzip1q_u16(two[2 * i], two[2 * i + 1]));
      high[i] = vreinterpretq_u32_u16(vzip2q_u16(two[2 * i], two[2 * i + 1]));
    }
    out[4 * half] = vreinterpretq_u64_u32(vzip1q_u32(low[0], low[1]));
    out[4 * half + 1] = vreinterpretq_u64_u32(vzip2q_u32(low[0], low[1]));
    out[4 * half + 2] = vreinterpretq_u64_u32(vzip1q_u32(high[0], high[1]));
    out[4 * half + 3] = vreinterpretq_u64_u32(vzip2q_u32(high[0], high[1]));
  }
}

LQC_INLINE void store_words(const uint64x2_t words[ROOM / 2], void *const *outputs, uint32_t word, uint32_t pixels) {
  if (pixels == TILE) {
    LQC_UNROLL
    for (uint32_t p = 0; p < TILE; p += 5) {
      uint64_t *to[] = {outputs[p], outputs[p + 1], outputs[p + 2], outputs[p + 3], outputs[p + 4]};
      __asm__("" : "+r"(to[0]), "+r"(to[1]), "+r"(to[2]), "+r"(to[3]), "+r"(to[4])); /* loaded before any is used */
      LQC_UNROLL
      for (uint32_t i = 0; i < 5; ++i) {
        const uint64x2_t two = words[(p + i) / 2];
        to[i][word] = (p + i) % 2 ? vgetq_lane_u64(two, 1) : vgetq_lane_u64(two, 0);
      }
    }
    return;
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < TILE; p += 2) {
    if (p >= pixels) {
      break;
    }
    vst1q_lane_u64((uint64_t *)outputs[p] + word, words[p / 2], 0);
    if (p + 1 < pixels) {
      vst1q_lane_u64((uint64_t *)outputs[p + 1] + word, words[p / 2], 1);
    }
  }
}

LQC_INLINE void threshold_with(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing,
                               const lqc_epilogue_params *params, const loops *l) {
  const uint16x8_t missing_and_1 = vdupq_n_u16((uint16_t)(missing + 1));
  uint8x16_t bytes[CHUNK];
  work w;
  start_work(&w, tile, l);
  for (uint32_t channel = 0, word = 0; channel < tile->out_channels; channel += CHUNK * CHANNELS, ++word) {
    w.blocks = blocks_from(tile, channel);
    w.out = (uint8_t *)bytes;
    start_thresholds(&w, tile, params, channel, missing_and_1);
    for (uint32_t b = (uint32_t)w.blocks; b < CHUNK; ++b) {
      bytes[b] = vdupq_n_u8(0);
    }
    l->signs(&w);
    w.weights += w.blocks * w.block_bytes;
    const uint64x2_t invert = vdupq_n_u64(params->invert ? params->invert[word] : 0);
    uint64x2_t words[ROOM / 2];
    transpose_bytes(words, bytes);
    LQC_UNROLL
    for (uint32_t p = 0; p < ROOM / 2; ++p) {
      words[p] = veorq_u64(words[p], invert);
    }
    LQC_ALL_OF(words);
    store_words(words, outputs, word, tile->pixels);
  }
}

/* ---- Clip to int8 ------------------------------------------------------------------------------------------------ */

/* Fast: steps of 2^e, e >= 1, an even number of true channels K, and the limit 127. Then a = K - 2p is even, and
 *   v = clip(floor(a / 2^e + 1/2)) = clip(-floor((p - K/2 + h) / 2^(e-1))), h = 2^(e-2) - 1, 0 for e = 1:
 * floor(x + 1/2) = -ceil(-x - 1/2), and ceil(n / d) = floor((n + d - 1) / d) for integers. So the sums start at
 * h - K / 2, and what is left is a shift, SQXTN to -128 .. 127, and SQNEG to +-127.
 * Otherwise SQRSHL shifts right with rounding half up where the shift is negative, left with saturation where it is
 * positive; its rounding does not overflow. */
typedef struct clip_values {
  int fast;
  uint16x8_t start, k;
  int16x8_t shift;
  int8x16_t high, low;
} clip_values;

static clip_values clip_values_of(uint32_t missing, const lqc_epilogue_params *params) {
  const uint32_t k = params->k - missing;
  const int32_t step = params->step_log2;
  const int fast = k % 2 == 0 && step >= 1 && step <= 14 && params->clip_limit == INT8_MAX;
  const int32_t half = fast && step > 1 ? (1 << (step - 2)) - 1 : 0;
  return (clip_values){.fast = fast,
                       .start = vdupq_n_u16(fast ? (uint16_t)(half - (int32_t)(k / 2)) : 0),
                       .k = vdupq_n_u16((uint16_t)k),
                       .shift = vdupq_n_s16((int16_t)(fast - step)),
                       .high = vdupq_n_s8((int8_t)params->clip_limit),
                       .low = vdupq_n_s8((int8_t)-params->clip_limit)};
}

LQC_INLINE int16x8_t shifted(const uint16_t *sums, const clip_values *c, const int fast) {
  const uint16x8_t p = vld1q_u16(sums);
  return fast ? vshlq_s16(vreinterpretq_s16_u16(p), c->shift)
              : vqrshlq_s16(vreinterpretq_s16_u16(vsubq_u16(c->k, vshlq_n_u16(p, 1))), c->shift);
}

LQC_INLINE int8x16_t clipped(const uint16_t *first, const uint16_t *second, const clip_values *c, const int fast) {
  const int8x16_t v = vqmovn_high_s16(vqmovn_s16(shifted(first, c, fast)), shifted(second, c, fast));
  return fast ? vqnegq_s8(v) : vmaxq_s8(vminq_s8(v, c->high), c->low);
}

LQC_INLINE void clip_chunk(block_sums sums[CHUNK], const clip_values *c, int8_t *const *outputs, uint32_t pixels,
                           uint32_t channel, uint32_t channels, const int fast) {
  for (uint32_t p = 0; p < pixels; ++p) {
    int8_t *out = outputs[p] + channel;
    if (channels == CHUNK * CHANNELS) {
      LQC_UNROLL
      for (uint32_t b = 0; b < CHUNK; b += 2) {
        vst1q_s8(out + b * CHANNELS, clipped(sums[b][p], sums[b + 1][p], c, fast));
      }
      continue;
    }
    int8_t last[CHUNK * CHANNELS];
    for (uint32_t b = 0; b * CHANNELS < channels; b += 2) {
      vst1q_s8(last + b * CHANNELS, clipped(sums[b][p], sums[b + 1][p], c, fast));
    }
    memcpy(out, last, channels);
  }
}

LQC_INLINE void clip_with(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing,
                          const lqc_epilogue_params *params, const loops *l) {
  const clip_values c = clip_values_of(missing, params);
  block_sums sums[CHUNK];
  work w;
  start_work(&w, tile, l);
  for (uint32_t channel = 0; channel < tile->out_channels; channel += CHUNK * CHANNELS) {
    const uint32_t channels = lqc_min_u32(CHUNK * CHANNELS, tile->out_channels - channel);
    start_sums(&w, tile, channel, c.start);
    if (w.blocks % 2 != 0) {
      memset(sums[w.blocks], 0, sizeof(block_sums)); /* blocks are clipped in twos */
    }
    w.out = (uint8_t *)sums;
    l->sums(&w);
    w.weights += w.blocks * w.block_bytes;
    if (c.fast) {
      clip_chunk(sums, &c, (int8_t *const *)outputs, tile->pixels, channel, channels, 1);
    } else {
      clip_chunk(sums, &c, (int8_t *const *)outputs, tile->pixels, channel, channels, 0);
    }
  }
}

/* ---- Affine to float32 ------------------------------------------------------------------------------------------- */

/* One block with all pixels: its multipliers and offsets stay in registers. count: of its channels. */
LQC_INLINE void affine_block(const block_sums sums, const lqc_affine_neon_values *values, const float *multiplier,
                             const float *offset, float *const *outputs, uint32_t pixels, uint32_t channel,
                             uint32_t count, const int clips) {
  const float32x4_t m[2] = {vld1q_f32(multiplier + channel), vld1q_f32(multiplier + channel + 4)};
  const float32x4_t o[2] = {vld1q_f32(offset + channel), vld1q_f32(offset + channel + 4)};
  for (uint32_t p = 0; p < pixels; ++p) {
    float *out = outputs[p] + channel, last[CHANNELS];
    const uint16x8_t sum = vld1q_u16(sums[p]);
    float *to = count == CHANNELS ? out : last;
    vst1q_f32(to, lqc_affine_of_neon(vsubq_s32(values->k, vreinterpretq_s32_u32(vshll_n_u16(vget_low_u16(sum), 1))),
                                     m[0], o[0], values, clips));
    vst1q_f32(to + 4, lqc_affine_of_neon(vsubq_s32(values->k, vreinterpretq_s32_u32(vshll_high_n_u16(sum, 1))), m[1],
                                         o[1], values, clips));
    if (count < CHANNELS) {
      memcpy(out, last, count * sizeof(float));
    }
  }
}

LQC_INLINE void affine_with(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing,
                            const lqc_epilogue_params *params, const loops *l) {
  const lqc_affine_neon_values values = lqc_affine_neon_values_of(missing, params);
  block_sums sums[CHUNK];
  work w;
  start_work(&w, tile, l);
  for (uint32_t channel = 0; channel < tile->out_channels; channel += CHUNK * CHANNELS) {
    start_sums(&w, tile, channel, vdupq_n_u16(0));
    w.out = (uint8_t *)sums;
    l->sums(&w);
    w.weights += w.blocks * w.block_bytes;
    for (uint32_t b = 0; b < w.blocks; ++b) {
      const uint32_t first = channel + b * CHANNELS, count = lqc_min_u32(CHANNELS, tile->out_channels - first);
      if (params->clip_limit != 0) {
        affine_block(sums[b], &values, params->multiplier, params->offset, (float *const *)outputs, tile->pixels, first,
                     count, 1);
      } else {
        affine_block(sums[b], &values, params->multiplier, params->offset, (float *const *)outputs, tile->pixels, first,
                     count, 0);
      }
    }
  }
}

#define LQC_DEFINE_KERNEL(symbol, isa_value, which, layout, multiple)                               \
  static void accumulate_##which(const lqc_bconv_tile *tile) {                                      \
    accumulate_with(tile, &loops_of_##which);                                                       \
  }                                                                                                 \
  static void threshold_##which(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing, \
                                const lqc_epilogue_params *params) {                                \
    threshold_with(tile, outputs, missing, params, &loops_of_##which);                              \
  }                                                                                                 \
  static void clip_##which(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing,      \
                           const lqc_epilogue_params *params) {                                     \
    clip_with(tile, outputs, missing, params, &loops_of_##which);                                   \
  }                                                                                                 \
  static void affine_##which(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing,    \
                             const lqc_epilogue_params *params) {                                   \
    affine_with(tile, outputs, missing, params, &loops_of_##which);                                 \
  }                                                                                                 \
  const lqc_bconv_kernel lqc_##symbol = {                                                           \
      .name = #symbol,                                                                              \
      .isa = isa_value,                                                                             \
      .wide = 0,                                                                                    \
      .max_pixels = TILE,                                                                           \
      .tap_words = multiple,                                                                        \
      .packed_bytes = lqc_neon_##layout##_bytes,                                                    \
      .pack = lqc_neon_pack_##layout,                                                               \
      .arranged_bytes = lqc_neon_arranged_bytes,                                                    \
      .arrange = lqc_neon_arrange_##layout,                                                         \
      .accumulate = accumulate_##which,                                                             \
      .threshold = threshold_##which,                                                               \
      .clip = clip_##which,                                                                         \
      .affine = affine_##which,                                                                     \
  };

LQC_DEFINE_KERNEL(bconv2d_neon, LQC_ISA_NEON, words, words, 1)
LQC_DEFINE_KERNEL(bconv2d_neon_pairs, LQC_ISA_NEON, pairs, pairs, 2)
LQC_DEFINE_KERNEL(bconv2d_neon_in_order, LQC_ISA_NEON_IN_ORDER, words_halves, words, 1)
LQC_DEFINE_KERNEL(bconv2d_neon_in_order_pairs, LQC_ISA_NEON_IN_ORDER, pairs_halves, pairs, 2)
