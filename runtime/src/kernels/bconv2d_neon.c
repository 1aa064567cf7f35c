/* Binary convolution for aarch64: EOR, CNT and a tree of ADDP over eight filters.
 *
 * CNT leaves 16 byte counts a filter. Three levels of ADDP turn those of eight filters into two bytes a filter, at
 * most 64 each, and UADALP adds these to eight 16-bit sums, in channel order: 8 + 8 + 7 + 1 instructions for 8 * 128
 * binary multiply-accumulates, 3.0 for 128, with no limit on the number of steps, one register of sums a pixel, and
 * nothing to reduce at the end. Eight filters stay in registers for up to eight pixels: 16 loads for 64 units.
 *
 * A run of an odd number of words (64 channels: 3 words a kernel row) ends in one 64-bit step: a vector then holds a
 * word of two filters, and the first level of ADDP is left out. That is again 3.0 instructions for 128, and no lane
 * is wasted.
 *
 * Packed weights: as in the file, with zero filters up to a multiple of 8. Runs may start at any word, odd ones too,
 * so pairs of words of a filter have to be neighbours wherever the pair starts. */
#include <arm_neon.h>
#include <string.h>

#include "kernels_isa.h"

enum { CHANNELS = 8, TILE = 8, MAX_PIXELS = 16 };

static size_t packed_bytes(uint32_t out_channels, uint32_t filter_words) {
  return lqc_packed_bytes(out_channels, CHANNELS, (size_t)filter_words * sizeof(uint64_t));
}

static void pack(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words) {
  size_t bytes = (size_t)out_channels * filter_words * sizeof(uint64_t);
  memcpy(packed, filters, bytes);
  memset((uint8_t *)packed + bytes, 0, packed_bytes(out_channels, filter_words) - bytes);
}

LQC_INLINE uint8x16_t load_2_words(const uint8_t *from) {
  return vreinterpretq_u8_u64(vld1q_u64((const uint64_t *)(const void *)from));
}

LQC_INLINE uint64x1_t load_word(const uint8_t *from) {
  return vld1_u64((const uint64_t *)(const void *)from);
}

/* Left alone, compilers start all pixels of a step at once and spill what no longer fits 32 registers. This empty
   instruction holds the next pixel's input, which its work needs, back until the counts of this pixel's four pairs of
   filters, and the sums of the pixel before, are there. So the last levels of one tree overlap with the XORs of the
   next pixel, as an in-order core needs it, and no more than that is alive at a time. */
#define LQC_HOLD_BACK(next_input, pairs, sum_before)                                                                   \
  __asm__ volatile(""                                                                                                  \
                   : "+w"(next_input)                                                                                  \
                   : "w"((pairs)[0]), "w"((pairs)[1]), "w"((pairs)[2]), "w"((pairs)[3]), "w"(sum_before))

/* Byte counts of four pairs of filters, 8 bytes a filter, added to the sums of eight. */
LQC_INLINE uint16x8_t add_pairs(uint16x8_t sum, const uint8x16_t pairs[CHANNELS / 2]) {
  return vpadalq_u8(sum, vpaddq_u8(vpaddq_u8(pairs[0], pairs[1]), vpaddq_u8(pairs[2], pairs[3])));
}

/* Sums of `pixels` pixels from `first_pixel` on and eight channels from `channel` on. `pixels` is a constant after
   inlining, so that the sums live in registers. Places are bases that stay and two offsets that move. */
LQC_INLINE void tile_of(const lqc_bconv_tile *tile, uint32_t first_pixel, uint32_t channel, const uint32_t pixels) {
  const uint8_t *filters[CHANNELS], *inputs[TILE];
  uint16x8_t sum[TILE];
  LQC_UNROLL
  for (uint32_t c = 0; c < CHANNELS; ++c) {
    filters[c] = (const uint8_t *)((const uint64_t *)tile->weights + (size_t)(channel + c) * tile->filter_words);
  }
  const uint16x8_t start = tile->initial ? vld1q_u16((const uint16_t *)tile->initial + channel) : vdupq_n_u16(0);
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    inputs[p] = (const uint8_t *)(tile->input + tile->pixel_offsets[first_pixel + p]);
    sum[p] = start;
  }
  for (const lqc_run *run = tile->runs, *end = run + tile->run_count; run < end; ++run) {
    ptrdiff_t from = run->input_offset * (ptrdiff_t)sizeof(uint64_t);
    size_t at = (size_t)run->weight_word * sizeof(uint64_t);
    const size_t pairs_end = at + (size_t)(run->words / 2) * 16;
    for (; at != pairs_end; at += 16, from += 16) {
      uint8x16_t w[CHANNELS];
      LQC_UNROLL
      for (uint32_t c = 0; c < CHANNELS; ++c) {
        w[c] = load_2_words(filters[c] + at);
      }
      uint8x16_t x = load_2_words(inputs[0] + from);
      LQC_UNROLL
      for (uint32_t p = 0; p < pixels; ++p) {
        uint8x16_t pairs[CHANNELS / 2];
        LQC_UNROLL
        for (uint32_t c = 0; c < CHANNELS; c += 2) {
          pairs[c / 2] = vpaddq_u8(vcntq_u8(veorq_u8(x, w[c])), vcntq_u8(veorq_u8(x, w[c + 1])));
        }
        if (p + 1 < pixels) {
          x = load_2_words(inputs[p + 1] + from);
          LQC_HOLD_BACK(x, pairs, sum[p > 0 ? p - 1 : 0]);
        }
        sum[p] = add_pairs(sum[p], pairs);
      }
    }
    if (run->words % 2 != 0) {
      uint8x16_t w[CHANNELS / 2];
      LQC_UNROLL
      for (uint32_t c = 0; c < CHANNELS; c += 2) {
        w[c / 2] = vreinterpretq_u8_u64(vcombine_u64(load_word(filters[c] + at), load_word(filters[c + 1] + at)));
      }
      LQC_UNROLL
      for (uint32_t p = 0; p < pixels; ++p) {
        const uint8x16_t x = vreinterpretq_u8_u64(vdupq_lane_u64(load_word(inputs[p] + from), 0));
        uint8x16_t pairs[CHANNELS / 2];
        LQC_UNROLL
        for (uint32_t c = 0; c < CHANNELS / 2; ++c) {
          pairs[c] = vcntq_u8(veorq_u8(x, w[c]));
        }
        sum[p] = add_pairs(sum[p], pairs);
      }
    }
  }
  uint16_t *sums = (uint16_t *)tile->sums + first_pixel * tile->sums_stride + channel;
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    vst1q_u16(sums + p * tile->sums_stride, sum[p]);
  }
}

#define LQC_TILES(pixels)                                                                                              \
  static void tiles_##pixels(const lqc_bconv_tile *tile, uint32_t first_pixel, uint32_t channel) {                     \
    tile_of(tile, first_pixel, channel, pixels);                                                                       \
  }

LQC_TILES(1)
LQC_TILES(2)
LQC_TILES(3)
LQC_TILES(4)
LQC_TILES(5)
LQC_TILES(6)
LQC_TILES(7)
LQC_TILES(8)

/* Pixels inside channels: eight filters stay in the first-level cache for all pixels. Where there are more than eight
   pixels they are halved, since 5 + 5 takes fewer loads than 8 + 2. */
static void accumulate(const lqc_bconv_tile *tile) {
  static void (*const tiles[TILE])(const lqc_bconv_tile *, uint32_t, uint32_t) = {tiles_1, tiles_2, tiles_3, tiles_4,
                                                                                  tiles_5, tiles_6, tiles_7, tiles_8};
  const uint32_t first = tile->pixels > TILE ? (tile->pixels + 1) / 2 : tile->pixels;
  const uint32_t second = tile->pixels - first;
  for (uint32_t channel = 0; channel < tile->out_channels; channel += CHANNELS) {
    tiles[first - 1](tile, 0, channel);
    if (second > 0) {
      tiles[second - 1](tile, first, channel);
    }
  }
}

const lqc_bconv_kernel lqc_bconv2d_neon = {
    .name = "bconv2d_neon",
    .isa = LQC_ISA_NEON,
    .wide = 0,
    .max_pixels = MAX_PIXELS,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .accumulate = accumulate,
};
