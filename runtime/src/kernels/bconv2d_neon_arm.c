/* Binary convolution for 32-bit ARM: VEOR, VCNT and VPADAL, 3.0 instructions for 128 binary multiply-accumulates, of
 * blocks of four filters, with eight registers of sums. Two arrangements:
 *
 *   words  a register holds a word of two filters, the input's word stands in both halves; 4 pixels at once. For any
 *          number of words.
 *   pairs  a register holds two words of a filter; 2 pixels at once. Nothing stands twice, so a unit takes 0.75 loads
 *          instead of 1.25 and half as many moves; taps must have an even number of words.
 *
 * Packed weights: blocks of four filters, zero filters behind; in a block, word by word, or pair by pair, the filters'
 * words. Sums of 16 bits count a fourth or an eighth of K each. */
#include <string.h>

#include "affine_neon.h"

enum { CHANNELS = 4, TILE = 4, VECTORS = CHANNELS / 2, PAIR_TILE = 2 };

static size_t packed_bytes(uint32_t out_channels, uint32_t filter_words) {
  if (filter_words > SIZE_MAX / CHANNELS / sizeof(uint64_t)) {
    return 0;
  }
  return lqc_packed_bytes(out_channels, CHANNELS, filter_words * sizeof(uint64_t));
}

/* `group` words of a filter lie together. */
LQC_INLINE void pack_by(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words,
                        const uint32_t group) {
  memset(packed, 0, packed_bytes(out_channels, filter_words));
  for (uint32_t c = 0; c < out_channels; ++c) {
    uint64_t *block = (uint64_t *)packed + (size_t)(c / CHANNELS) * CHANNELS * filter_words;
    for (uint32_t w = 0; w < filter_words; ++w) {
      block[(size_t)(w / group * CHANNELS + c % CHANNELS) * group + w % group] = *filters++;
    }
  }
}

static void pack_words(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words) {
  pack_by(packed, filters, out_channels, filter_words, 1);
}

static void pack_pairs(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words) {
  pack_by(packed, filters, out_channels, filter_words, 2);
}

/* As a statement of its own the sum stays in its register: of the intrinsic GCC makes copies. */
LQC_INLINE uint16x8_t add_counts(uint16x8_t sum, uint8x16_t bits) {
  const uint8x16_t counts = vcntq_u8(bits);
  __asm__("vpadal.u8 %q0, %q1" : "+w"(sum) : "w"(counts));
  return sum;
}

/* Two words, and the place behind them: GCC would add to addresses apart from loads. */
LQC_INLINE uint8x16_t next_words(const uint64_t **at) {
  uint8x16_t words;
  __asm__ volatile("vld1.64 {%e0, %f0}, [%1 :64]!" : "=w"(words), "+r"(*at) : : "memory");
  return words;
}

/* A word in both halves. */
LQC_INLINE uint8x16_t next_word(const uint64_t **at) {
  uint8x16_t word;
  __asm__ volatile("vld1.64 {%e0}, [%1 :64]!\n\tvmov %f0, %e0" : "=w"(word), "+r"(*at) : : "memory");
  return word;
}

LQC_INLINE uint16x4_t folded(uint16x8_t sum) {
  return vpadd_u16(vget_low_u16(sum), vget_high_u16(sum));
}

/* Sums of four filters with `pixels` pixels, a constant after inlining, from pixel `first` on. Runs have words. */
LQC_INLINE void sum_words(const lqc_bconv_tile *tile, const uint64_t *block, const uint32_t pixels, uint16x4_t *out) {
  uint16x8_t sums[TILE][VECTORS];
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      sums[p][v] = vdupq_n_u16(0);
    }
  }
  const lqc_run *run = tile->runs, *const end = run + tile->run_count;
  for (; run < end; ++run) {
    const uint64_t *filters = block + (size_t)run->weight_word * CHANNELS;
    const uint64_t *const last = filters + (size_t)run->words * CHANNELS;
    const uint64_t *input[TILE];
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      input[p] = tile->input + run->input_offset + tile->pixel_offsets[p];
    }
    do {
      uint8x16_t filter[VECTORS];
      LQC_UNROLL
      for (uint32_t v = 0; v < VECTORS; ++v) {
        filter[v] = next_words(&filters);
      }
      LQC_UNROLL
      for (uint32_t p = 0; p < pixels; ++p) {
        const uint8x16_t x = next_word(&input[p]);
        LQC_UNROLL
        for (uint32_t v = 0; v < VECTORS; ++v) {
          sums[p][v] = add_counts(sums[p][v], veorq_u8(x, filter[v]));
        }
      }
    } while (filters < last);
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    out[p] = vpadd_u16(folded(sums[p][0]), folded(sums[p][1]));
  }
}

LQC_INLINE void sum_pairs(const lqc_bconv_tile *tile, const uint64_t *block, uint32_t first, const uint32_t pixels,
                          uint16x4_t *out) {
  uint16x8_t sums[PAIR_TILE][CHANNELS];
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    LQC_UNROLL
    for (uint32_t f = 0; f < CHANNELS; ++f) {
      sums[p][f] = vdupq_n_u16(0);
    }
  }
  const lqc_run *run = tile->runs, *const end = run + tile->run_count;
  for (; run < end; ++run) {
    const uint64_t *filters = block + (size_t)run->weight_word * CHANNELS;
    const uint64_t *const last = filters + (size_t)run->words * CHANNELS;
    const uint64_t *input[PAIR_TILE];
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      input[p] = tile->input + run->input_offset + tile->pixel_offsets[first + p];
    }
    do {
      uint8x16_t x[PAIR_TILE];
      LQC_UNROLL
      for (uint32_t p = 0; p < pixels; ++p) {
        x[p] = next_words(&input[p]);
      }
      LQC_UNROLL
      for (uint32_t f = 0; f < CHANNELS; ++f) {
        const uint8x16_t filter = next_words(&filters);
        LQC_UNROLL
        for (uint32_t p = 0; p < pixels; ++p) {
          sums[p][f] = add_counts(sums[p][f], veorq_u8(x[p], filter));
        }
      }
    } while (filters < last);
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    const uint16x4_t low = vpadd_u16(folded(sums[p][0]), folded(sums[p][1]));
    out[first + p] = vpadd_u16(low, vpadd_u16(folded(sums[p][2]), folded(sums[p][3])));
  }
}

LQC_INLINE void sum_block(const lqc_bconv_tile *tile, const uint64_t *block, uint32_t channel, const int pairs,
                          const uint32_t pixels, uint16x4_t *out) {
  if (pairs) {
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; p += PAIR_TILE) {
      sum_pairs(tile, block, p, pixels - p < PAIR_TILE ? pixels - p : PAIR_TILE, out);
    }
  } else {
    sum_words(tile, block, pixels, out);
  }
  if (tile->initial) {
    const uint16x4_t initial = vld1_u16((const uint16_t *)tile->initial + channel);
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      out[p] = vadd_u16(out[p], initial);
    }
  }
}

LQC_INLINE void accumulate_block(const lqc_bconv_tile *tile, const uint64_t *block, uint32_t channel, const int pairs,
                                 const uint32_t pixels) {
  uint16x4_t sums[TILE];
  sum_block(tile, block, channel, pairs, pixels, sums);
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    vst1_u16((uint16_t *)tile->sums + p * tile->sums_stride + channel, sums[p]);
  }
}

LQC_INLINE void accumulate(const lqc_bconv_tile *tile, const int pairs) {
  const uint64_t *block = tile->weights;
  for (uint32_t c = 0; c < tile->out_channels; c += CHANNELS, block += (size_t)CHANNELS * tile->filter_words) {
    LQC_SWITCH_PIXELS(tile->pixels, accumulate_block, tile, block, c, pairs)
  }
}

typedef struct affine_work {
  void *const *outputs;
  const lqc_epilogue_params *params;
  uint32_t missing;
  lqc_affine_neon_values values;
} affine_work;

/* Of some channels of a pixel. */
__attribute__((noinline)) static void affine_scalar(const affine_work *work, uint16x4_t sums, uint32_t channel,
                                                    uint32_t channels, uint32_t pixel) {
  lqc_epilogue_params params = *work->params;
  uint16_t values[CHANNELS];
  vst1_u16(values, sums);
  params.multiplier += channel;
  params.offset += channel;
  params.channels = channels;
  lqc_affine_scalar((float *)work->outputs[pixel] + channel, values, work->missing, &params);
}

LQC_INLINE void affine_block(const lqc_bconv_tile *tile, const uint64_t *block, uint32_t channel,
                             const affine_work *work, const int pairs, const uint32_t pixels) {
  const lqc_epilogue_params *params = work->params;
  const uint32_t channels = lqc_min_u32(CHANNELS, tile->out_channels - channel);
  uint16x4_t sums[TILE];
  sum_block(tile, block, channel, pairs, pixels, sums);
  if (channels < CHANNELS || !lqc_affine_is_exact_neon(params, channel, CHANNELS)) {
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      affine_scalar(work, sums[p], channel, channels, p);
    }
    return;
  }
  const float32x4_t multiplier = vld1q_f32(params->multiplier + channel);
  const float32x4_t offset = vld1q_f32(params->offset + channel);
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    const int32x4_t a = vsubq_s32(work->values.k, vreinterpretq_s32_u32(vshll_n_u16(sums[p], 1)));
    vst1q_f32((float *)work->outputs[p] + channel,
              lqc_affine_of_neon(a, multiplier, offset, &work->values, params->clip_limit != 0));
  }
}

LQC_INLINE void affine(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing,
                       const lqc_epilogue_params *params, const int pairs) {
  const affine_work work = {outputs, params, missing, lqc_affine_neon_values_of(missing, params)};
  const uint64_t *block = tile->weights;
  for (uint32_t c = 0; c < tile->out_channels; c += CHANNELS, block += (size_t)CHANNELS * tile->filter_words) {
    LQC_SWITCH_PIXELS(tile->pixels, affine_block, tile, block, c, &work, pairs)
  }
}

#define DEFINE_KERNEL(arrangement, pairs, kernel, words_of_a_tap)                                      \
  static void accumulate_##arrangement(const lqc_bconv_tile *tile) {                                   \
    accumulate(tile, pairs);                                                                           \
  }                                                                                                    \
  static void affine_##arrangement(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing, \
                                   const lqc_epilogue_params *params) {                                \
    affine(tile, outputs, missing, params, pairs);                                                     \
  }                                                                                                    \
  const lqc_bconv_kernel lqc_##kernel = {                                                              \
      .name = #kernel,                                                                                 \
      .isa = LQC_ISA_NEON,                                                                             \
      .wide = 0,                                                                                       \
      .max_pixels = TILE,                                                                              \
      .tap_words = words_of_a_tap,                                                                     \
      .packed_bytes = packed_bytes,                                                                    \
      .pack = pack_##arrangement,                                                                      \
      .accumulate = accumulate_##arrangement,                                                          \
      .affine = affine_##arrangement,                                                                  \
  };
DEFINE_KERNEL(words, 0, bconv2d_neon, 1)
DEFINE_KERNEL(pairs, 1, bconv2d_neon_pairs, 2)
