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

enum { CHANNELS = 8, TILE = 8, MAX_PIXELS = 16, CACHE_BYTES = 16384 };

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

LQC_INLINE uint8x16_t load_word_twice(const uint8_t *from) {
  return vreinterpretq_u8_u64(vld1q_dup_u64((const uint64_t *)(const void *)from));
}

/* Left alone, compilers start all pixels of a step at once and spill what no longer fits 32 registers. This empty
   instruction holds the next pixel's input, which its work needs, back until the counts of this pixel's four pairs of
   filters, and the sums of the pixel before, are there. So the last levels of one tree overlap with the XORs of the
   next pixel, as an in-order core needs it, and no more than that is alive at a time. */
#define LQC_HOLD_BACK(next_input, pairs, sum_before) \
  __asm__ volatile(""                                \
                   : "+w"(next_input)                \
                   : "w"((pairs)[0]), "w"((pairs)[1]), "w"((pairs)[2]), "w"((pairs)[3]), "w"(sum_before))

/* Byte counts of four pairs of filters, 8 bytes a filter, added to the sums of eight. */
LQC_INLINE uint16x8_t add_pairs(uint16x8_t sum, const uint8x16_t pairs[CHANNELS / 2]) {
  return vpadalq_u8(sum, vpaddq_u8(vpaddq_u8(pairs[0], pairs[1]), vpaddq_u8(pairs[2], pairs[3])));
}

/* One run of one block of filters: x moves over the input, w over the filters, and the distances, in bytes, to the
   other pixels and filters stay. */
LQC_INLINE void add_run(uint16x8_t sum[TILE], const uint8_t *x, const ptrdiff_t pixel[TILE], const uint8_t *w,
                        const size_t filter[CHANNELS], uint32_t words, const uint32_t pixels) {
  for (const uint8_t *const pairs_end = w + (size_t)(words / 2) * 16; w != pairs_end; w += 16, x += 16) {
    uint8x16_t weights[CHANNELS];
    LQC_UNROLL
    for (uint32_t c = 0; c < CHANNELS; ++c) {
      weights[c] = load_2_words(w + filter[c]);
    }
    uint8x16_t input = load_2_words(x + pixel[0]);
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      uint8x16_t pairs[CHANNELS / 2];
      LQC_UNROLL
      for (uint32_t c = 0; c < CHANNELS; c += 2) {
        pairs[c / 2] = vpaddq_u8(vcntq_u8(veorq_u8(input, weights[c])), vcntq_u8(veorq_u8(input, weights[c + 1])));
      }
      if (p + 1 < pixels) {
        input = load_2_words(x + pixel[p + 1]);
        LQC_HOLD_BACK(input, pairs, sum[p > 0 ? p - 1 : 0]);
      }
      sum[p] = add_pairs(sum[p], pairs);
    }
  }
  if (words % 2 != 0) {
    uint8x16_t weights[CHANNELS / 2];
    LQC_UNROLL
    for (uint32_t c = 0; c < CHANNELS; c += 2) {
      weights[c / 2] = vreinterpretq_u8_u64(vcombine_u64(load_word(w + filter[c]), load_word(w + filter[c + 1])));
    }
    uint8x16_t input = load_word_twice(x + pixel[0]);
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      uint8x16_t pairs[CHANNELS / 2];
      LQC_UNROLL
      for (uint32_t c = 0; c < CHANNELS / 2; ++c) {
        pairs[c] = vcntq_u8(veorq_u8(input, weights[c]));
      }
      if (p + 1 < pixels) {
        input = load_word_twice(x + pixel[p + 1]);
        LQC_HOLD_BACK(input, pairs, sum[p > 0 ? p - 1 : 0]);
      }
      sum[p] = add_pairs(sum[p], pairs);
    }
  }
}

/* Sums of `pixels` pixels from `first_pixel` on and the channels from `channel` to `channel_end`, eight at a time.
   `pixels` is a constant after inlining, so that the sums live in registers. */
LQC_INLINE void tile_of(const lqc_bconv_tile *tile, uint32_t first_pixel, uint32_t channel, uint32_t channel_end,
                        const uint32_t pixels) {
  size_t filter[CHANNELS];
  ptrdiff_t pixel[TILE];
  LQC_UNROLL
  for (uint32_t c = 0; c < CHANNELS; ++c) {
    filter[c] = c * tile->filter_words * sizeof(uint64_t);
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    pixel[p] = tile->pixel_offsets[first_pixel + p] * (ptrdiff_t)sizeof(uint64_t);
  }
  const lqc_run *const runs = tile->runs, *const runs_end = runs + tile->run_count;
  const uint8_t *const input = (const uint8_t *)tile->input;
  const uint8_t *filters = (const uint8_t *)((const uint64_t *)tile->weights + (size_t)channel * tile->filter_words);
  const uint16_t *const initial = tile->initial;
  uint16_t *sums = (uint16_t *)tile->sums + first_pixel * tile->sums_stride + channel;
  const size_t sums_stride = tile->sums_stride, block_bytes = CHANNELS * sizeof(uint64_t) * tile->filter_words;
  for (; channel < channel_end; channel += CHANNELS, filters += block_bytes, sums += CHANNELS) {
    uint16x8_t sum[TILE];
    const uint16x8_t start = initial ? vld1q_u16(initial + channel) : vdupq_n_u16(0);
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      sum[p] = start;
    }
    for (const lqc_run *run = runs; run < runs_end; ++run) {
      add_run(sum, input + run->input_offset * (ptrdiff_t)sizeof(uint64_t), pixel,
              filters + (size_t)run->weight_word * sizeof(uint64_t), filter, run->words, pixels);
    }
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      vst1q_u16(sums + p * sums_stride, sum[p]);
    }
  }
}

#define LQC_TILES(pixels)                                                                        \
  static void tiles_##pixels(const lqc_bconv_tile *tile, uint32_t first_pixel, uint32_t channel, \
                             uint32_t channel_end) {                                             \
    tile_of(tile, first_pixel, channel, channel_end, pixels);                                    \
  }

LQC_TILES(1)
LQC_TILES(2)
LQC_TILES(3)
LQC_TILES(4)
LQC_TILES(5)
LQC_TILES(6)
LQC_TILES(7)
LQC_TILES(8)

/* Where there are more than eight pixels they are halved, since 5 + 5 takes fewer loads than 8 + 2. As many filters
   as fit half of a first-level cache of 32 KiB meet all pixels before the next. */
static void accumulate(const lqc_bconv_tile *tile) {
  static void (*const tiles[TILE])(const lqc_bconv_tile *, uint32_t, uint32_t,
                                   uint32_t) = {tiles_1, tiles_2, tiles_3, tiles_4, tiles_5, tiles_6, tiles_7, tiles_8};
  const uint32_t first = tile->pixels > TILE ? (tile->pixels + 1) / 2 : tile->pixels;
  const uint32_t second = tile->pixels - first;
  const size_t block_bytes = CHANNELS * sizeof(uint64_t) * tile->filter_words;
  const uint32_t blocks = 1 + (uint32_t)(CACHE_BYTES / (block_bytes + 1));
  for (uint32_t channel = 0; channel < tile->out_channels; channel += blocks * CHANNELS) {
    const uint32_t channel_end = lqc_min_u32(tile->out_channels, channel + blocks * CHANNELS);
    tiles[first - 1](tile, 0, channel, channel_end);
    if (second > 0) {
      tiles[second - 1](tile, first, channel, channel_end);
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
