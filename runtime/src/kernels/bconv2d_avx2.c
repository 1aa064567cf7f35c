/* Binary convolution by table look-up: AVX2 has no vector popcount, but PSHUFB looks up 32 bytes at once. Lanes are
 * output channels. For four input bits x there is a row of 16 bytes, popcount(x xor w) for every w; PSHUFB with four
 * bits w of 32 filters as indices yields 32 partial sums. Two instructions for 128 binary multiply-accumulates, where
 * a popcount by nibbles needs four.
 *
 * Packed weights: blocks of 64 channels, [word][nibble][vector][32 bytes], one nibble a byte, twice the bytes of the
 * file; the last block has as many vectors of 32 channels as it needs, and zero filters beyond the last channel. The
 * file stays canonical and free of any ISA; re-tiling takes less than a millisecond for a ResNet-18 at init, and lets
 * a later kernel whose lanes are pixels choose its own layout. */
#include <immintrin.h>

#include "kernels_isa.h"

enum {
  LANES = 32,
  MAX_VECTORS = 2,
  BLOCK = LANES * MAX_VECTORS,
  TILE = 4,
  NIBBLES = 16,
  WORDS_A_BYTE = 3, /* each of 16 nibbles adds at most 4 to a byte: 3 * 16 * 4 = 192 <= 255 */
};

#define ROW(x)                                                                                                  \
  {BITS(x ^ 0), BITS(x ^ 1), BITS(x ^ 2),  BITS(x ^ 3),  BITS(x ^ 4),  BITS(x ^ 5),  BITS(x ^ 6),  BITS(x ^ 7), \
   BITS(x ^ 8), BITS(x ^ 9), BITS(x ^ 10), BITS(x ^ 11), BITS(x ^ 12), BITS(x ^ 13), BITS(x ^ 14), BITS(x ^ 15)}
#define BITS(x) (((x) & 1) + ((x) >> 1 & 1) + ((x) >> 2 & 1) + ((x) >> 3 & 1))

static const _Alignas(64) uint8_t disagreements[16][16] = {
    ROW(0), ROW(1), ROW(2),  ROW(3),  ROW(4),  ROW(5),  ROW(6),  ROW(7),
    ROW(8), ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15),
};

static size_t packed_bytes(uint32_t out_channels, uint32_t filter_words) {
  return lqc_packed_bytes(out_channels, LANES, (size_t)filter_words * NIBBLES);
}

static uint32_t vectors_of(uint32_t channels) {
  return lqc_min_u32((channels + LANES - 1) / LANES, MAX_VECTORS);
}

/* The channel of a byte: bytes 2i and 2i + 1 are channels i and 16 + i, so that widening is a mask and a shift. */
static uint32_t channel_of(uint32_t lane) {
  return lane / LANES * LANES + lane % LANES / 2 + lane % 2 * (LANES / 2);
}

static void pack(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words) {
  uint8_t *out = packed;
  for (uint32_t first = 0; first < out_channels; first += BLOCK) {
    const uint32_t lanes = vectors_of(out_channels - first) * LANES;
    for (uint32_t word = 0; word < filter_words; ++word) {
      uint64_t w[BLOCK];
      for (uint32_t lane = 0; lane < lanes; ++lane) {
        uint32_t c = first + channel_of(lane);
        w[lane] = c < out_channels ? filters[(size_t)c * filter_words + word] : 0;
      }
      for (uint32_t nibble = 0; nibble < NIBBLES; ++nibble, out += lanes) {
        for (uint32_t lane = 0; lane < lanes; ++lane) {
          out[lane] = (uint8_t)(w[lane] >> (4 * nibble) & 15);
        }
      }
    }
  }
}

/* Adds the byte sums to the 16-bit ones, [pixel][vector][channels 0 .. 15, 16 .. 31], and clears them. */
LQC_INLINE void widen(__m256i total[TILE][MAX_VECTORS][2], __m256i sum[TILE][MAX_VECTORS], const uint32_t pixels,
                      const uint32_t vectors) {
  const __m256i low_byte = _mm256_set1_epi16(0xff);
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      total[p][v][0] = _mm256_add_epi16(total[p][v][0], _mm256_and_si256(sum[p][v], low_byte));
      total[p][v][1] = _mm256_add_epi16(total[p][v][1], _mm256_srli_epi16(sum[p][v], 8));
      sum[p][v] = _mm256_setzero_si256();
    }
  }
}

/* Four input bits (times 16, the bytes of a row) against four bits of every filter. */
LQC_INLINE void look_up(__m256i sum[MAX_VECTORS], uint64_t row, const uint8_t *weights, const uint32_t vectors) {
  const uint8_t *bytes = (const uint8_t *)disagreements + row;
  __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)bytes));
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    __m256i w = _mm256_load_si256((const __m256i *)(weights + v * LANES));
    sum[v] = _mm256_add_epi8(sum[v], _mm256_shuffle_epi8(table, w));
  }
}

/* Sums of `pixels` pixels from `first_pixel` on and `vectors` vectors of channels from `channel` on. Both counts are
   constants after inlining, so that the byte sums live in registers. */
LQC_INLINE void tile_of(const lqc_bconv_tile *tile, uint32_t first_pixel, uint32_t channel, const uint32_t pixels,
                        const uint32_t vectors) {
  const uint8_t *filters = (const uint8_t *)tile->weights + (size_t)channel * tile->filter_words * NIBBLES;
  const uint16_t *initial = tile->initial;
  __m256i total[TILE][MAX_VECTORS][2];
  __m256i sum[TILE][MAX_VECTORS];
  const uint64_t *input[TILE];
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      sum[p][v] = total[p][v][0] = total[p][v][1] = _mm256_setzero_si256();
      if (initial) {
        const __m256i *from = (const __m256i *)(initial + channel + v * LANES);
        total[p][v][0] = _mm256_loadu_si256(from);
        total[p][v][1] = _mm256_loadu_si256(from + 1);
      }
    }
  }
  uint32_t words_in_sum = 0;
  for (uint32_t r = 0; r < tile->run_count; ++r) {
    const lqc_run *run = &tile->runs[r];
    const uint8_t *weights = filters + (size_t)run->weight_word * NIBBLES * vectors * LANES;
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      input[p] = tile->input + (tile->pixel_offsets[first_pixel + p] + run->input_offset);
    }
    for (size_t i = 0; i < run->words; ++i) {
      if (words_in_sum++ == WORDS_A_BYTE) {
        widen(total, sum, pixels, vectors);
        words_in_sum = 1;
      }
      uint64_t x[TILE];
      LQC_UNROLL
      for (uint32_t p = 0; p < pixels; ++p) {
        x[p] = input[p][i];
      }
      for (uint32_t nibble = 0; nibble < NIBBLES; nibble += 2, weights += 2 * vectors * LANES) {
        LQC_UNROLL
        for (uint32_t p = 0; p < pixels; ++p) {
          look_up(sum[p], x[p] << 4 & 0xf0, weights, vectors);
          look_up(sum[p], x[p] & 0xf0, weights + vectors * LANES, vectors);
          x[p] >>= 8;
        }
      }
    }
  }
  widen(total, sum, pixels, vectors);
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    uint16_t *out = (uint16_t *)tile->sums + (first_pixel + p) * tile->sums_stride + channel;
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      _mm256_storeu_si256((__m256i *)(out + v * LANES), total[p][v][0]);
      _mm256_storeu_si256((__m256i *)(out + v * LANES) + 1, total[p][v][1]);
    }
  }
}

LQC_INLINE void tiles(const lqc_bconv_tile *tile, uint32_t first_pixel, uint32_t channel, const uint32_t pixels) {
  if (vectors_of(tile->out_channels - channel) == 1) {
    tile_of(tile, first_pixel, channel, pixels, 1);
  } else {
    tile_of(tile, first_pixel, channel, pixels, 2);
  }
}

/* Pixels inside channels: a block of filters is read once from the second-level cache for up to 16 pixels. */
static void accumulate(const lqc_bconv_tile *tile) {
  for (uint32_t channel = 0; channel < tile->out_channels; channel += BLOCK) {
    for (uint32_t p = 0; p < tile->pixels; p += TILE) {
      switch (tile->pixels - p) {
      case 1:
        tiles(tile, p, channel, 1);
        break;
      case 2:
        tiles(tile, p, channel, 2);
        break;
      case 3:
        tiles(tile, p, channel, 3);
        break;
      default:
        tiles(tile, p, channel, 4);
      }
    }
  }
}

const lqc_bconv_kernel lqc_bconv2d_avx2 = {
    .name = "bconv2d_avx2",
    .isa = LQC_ISA_AVX2,
    .wide = 0,
    .max_pixels = 16,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .accumulate = accumulate,
};
