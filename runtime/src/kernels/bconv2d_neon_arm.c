/* Binary convolution for 32-bit ARM: VEOR, VCNT and VPADAL, 3.0 instructions for 128 binary multiply-accumulates. A
 * register holds a word of two filters, the input's word stands in both halves; a tile is 4 pixels x 4 filters, with
 * two registers of sums a pixel: four 16-bit sums a filter, of at most K / 4.
 *
 * Packed weights: blocks of four filters, zero filters behind; in a block, word by word the filters' words. */
#include <string.h>

#include "affine_neon.h"

enum { CHANNELS = 4, TILE = 4, VECTORS = CHANNELS / 2 };

static size_t packed_bytes(uint32_t out_channels, uint32_t filter_words) {
  if (filter_words > SIZE_MAX / CHANNELS / sizeof(uint64_t)) {
    return 0;
  }
  return lqc_packed_bytes(out_channels, CHANNELS, filter_words * sizeof(uint64_t));
}

static void pack(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words) {
  memset(packed, 0, packed_bytes(out_channels, filter_words));
  for (uint32_t c = 0; c < out_channels; ++c) {
    uint64_t *block = (uint64_t *)packed + (size_t)(c / CHANNELS) * CHANNELS * filter_words;
    for (uint32_t w = 0; w < filter_words; ++w) {
      block[(size_t)w * CHANNELS + c % CHANNELS] = *filters++;
    }
  }
}

/* Sums of four filters with `pixels` pixels, a constant after inlining. */
LQC_INLINE void sum_block(const lqc_bconv_tile *tile, const uint64_t *block, uint32_t channel, const uint32_t pixels,
                          uint16x4_t *out) {
  uint16x8_t sums[TILE][VECTORS];
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      sums[p][v] = vdupq_n_u16(0);
    }
  }
  for (uint32_t r = 0; r < tile->run_count; ++r) {
    const lqc_run *run = &tile->runs[r];
    const uint64_t *filters = block + (size_t)run->weight_word * CHANNELS;
    const uint64_t *input[TILE];
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      input[p] = tile->input + run->input_offset + tile->pixel_offsets[p];
    }
    for (uint32_t w = 0; w < run->words; ++w, filters += CHANNELS) {
      uint8x16_t filter[VECTORS];
      LQC_UNROLL
      for (uint32_t v = 0; v < VECTORS; ++v) {
        filter[v] = vreinterpretq_u8_u64(vld1q_u64(filters + 2 * v));
      }
      LQC_UNROLL
      for (uint32_t p = 0; p < pixels; ++p) {
        const uint64x1_t word = vld1_u64(input[p]++);
        const uint8x16_t x = vreinterpretq_u8_u64(vcombine_u64(word, word));
        LQC_UNROLL
        for (uint32_t v = 0; v < VECTORS; ++v) {
          sums[p][v] = vpadalq_u8(sums[p][v], vcntq_u8(veorq_u8(x, filter[v])));
        }
      }
    }
  }
  const uint16x4_t initial = tile->initial ? vld1_u16((const uint16_t *)tile->initial + channel) : vdup_n_u16(0);
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    const uint16x4_t low = vpadd_u16(vget_low_u16(sums[p][0]), vget_high_u16(sums[p][0]));
    const uint16x4_t high = vpadd_u16(vget_low_u16(sums[p][1]), vget_high_u16(sums[p][1]));
    out[p] = vadd_u16(initial, vpadd_u16(low, high));
  }
}

LQC_INLINE void accumulate_block(const lqc_bconv_tile *tile, const uint64_t *block, uint32_t channel,
                                 const uint32_t pixels) {
  uint16x4_t sums[TILE];
  sum_block(tile, block, channel, pixels, sums);
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    vst1_u16((uint16_t *)tile->sums + p * tile->sums_stride + channel, sums[p]);
  }
}

static void accumulate(const lqc_bconv_tile *tile) {
  const uint64_t *block = tile->weights;
  for (uint32_t c = 0; c < tile->out_channels; c += CHANNELS, block += (size_t)CHANNELS * tile->filter_words) {
    LQC_SWITCH_PIXELS(tile->pixels, accumulate_block, tile, block, c)
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
                             const affine_work *work, const uint32_t pixels) {
  const lqc_epilogue_params *params = work->params;
  const uint32_t channels = lqc_min_u32(CHANNELS, tile->out_channels - channel);
  uint16x4_t sums[TILE];
  sum_block(tile, block, channel, pixels, sums);
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

static void affine(const lqc_bconv_tile *tile, void *const *outputs, uint32_t missing,
                   const lqc_epilogue_params *params) {
  const affine_work work = {outputs, params, missing, lqc_affine_neon_values_of(missing, params)};
  const uint64_t *block = tile->weights;
  for (uint32_t c = 0; c < tile->out_channels; c += CHANNELS, block += (size_t)CHANNELS * tile->filter_words) {
    LQC_SWITCH_PIXELS(tile->pixels, affine_block, tile, block, c, &work)
  }
}

const lqc_bconv_kernel lqc_bconv2d_neon = {
    .name = "bconv2d_neon",
    .isa = LQC_ISA_NEON,
    .wide = 0,
    .max_pixels = TILE,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .accumulate = accumulate,
    .affine = affine,
};
