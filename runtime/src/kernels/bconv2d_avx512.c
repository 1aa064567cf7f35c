/* Binary convolution with VPOPCNTQ. Lanes are output channels: a vector holds one 64-bit word of eight filters, and
 * meets one word of the input broadcast to all lanes, so no sum across lanes is ever needed.
 *
 * Packed weights: blocks of 32 channels, [word][vector][8 channels]; the last block has as many vectors of 8 as it
 * needs, and zero filters beyond the last channel. In a whole block lane l of vector v is channel 4 l + v, so that the
 * four sums of a lane, shifted together, are 16-bit sums in order; else it is channel 8 v + l. The file stays canonical
 * and free of any ISA; re-tiling takes less than a millisecond for a ResNet-18 at init, and lets a later kernel whose
 * lanes are pixels choose its own layout.
 *
 * A register tile is 6 pixels x 32 channels: 24 accumulators, and 10 loads for 24 units of xor, popcount and add. */
#include <immintrin.h>

#include "kernels_isa.h"

enum { LANES = 8, MAX_VECTORS = 4, BLOCK = LANES * MAX_VECTORS, TILE = 6 };

static size_t packed_bytes(uint32_t out_channels, uint32_t filter_words) {
  return lqc_packed_bytes(out_channels, LANES, (size_t)filter_words * sizeof(uint64_t));
}

static uint32_t vectors_of(uint32_t channels) {
  return lqc_min_u32((channels + LANES - 1) / LANES, MAX_VECTORS);
}

static void pack(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words) {
  uint64_t *out = packed;
  for (uint32_t first = 0; first < out_channels; first += BLOCK) {
    uint32_t vectors = vectors_of(out_channels - first), channels = vectors * LANES;
    for (uint32_t word = 0; word < filter_words; ++word) {
      for (uint32_t i = 0; i < channels; ++i) {
        uint32_t c = first + (vectors == MAX_VECTORS ? i % LANES * MAX_VECTORS + i / LANES : i);
        *out++ = c < out_channels ? filters[(size_t)c * filter_words + word] : 0;
      }
    }
  }
}

/* Lines of tile->soon, one in every step, into the second-level cache: what the next layer reads may have left it. */
typedef struct lines_to_fetch {
  const char *next;
  size_t step; /* 0 when there are none left */
} lines_to_fetch;

/* Sums of `pixels` pixels from `first_pixel` on and `vectors` vectors of channels from `channel` on. Both counts are
   constants after inlining, so that the sums live in registers. */
LQC_INLINE void tile_of(const lqc_bconv_tile *tile, uint32_t first_pixel, uint32_t channel, lines_to_fetch *fetch,
                        const uint32_t pixels, const uint32_t vectors) {
  const uint64_t *filters = (const uint64_t *)tile->weights + (size_t)channel * tile->filter_words;
  const char *soon = fetch->next;
  __m512i sum[TILE][MAX_VECTORS];
  const uint64_t *input[TILE];
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    input[p] = tile->input + tile->pixel_offsets[first_pixel + p];
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      sum[p][v] = _mm512_setzero_si512();
    }
  }
  for (uint32_t r = 0; r < tile->run_count; ++r) {
    const lqc_run *run = &tile->runs[r];
    const uint64_t *weights = filters + (size_t)run->weight_word * vectors * LANES;
    const ptrdiff_t end = run->input_offset + run->words;
    for (ptrdiff_t i = run->input_offset; i < end; ++i, weights += vectors * LANES, soon += fetch->step) {
      _mm_prefetch(soon, _MM_HINT_T1);
      __m512i w[MAX_VECTORS];
      LQC_UNROLL
      for (uint32_t v = 0; v < vectors; ++v) {
        w[v] = _mm512_load_si512(weights + v * LANES);
      }
      LQC_UNROLL
      for (uint32_t p = 0; p < pixels; ++p) {
        __m512i x = _mm512_set1_epi64((long long)input[p][i]);
        LQC_UNROLL
        for (uint32_t v = 0; v < vectors; ++v) {
          sum[p][v] = _mm512_add_epi64(sum[p][v], _mm512_popcnt_epi64(_mm512_xor_si512(x, w[v])));
        }
      }
    }
  }
  fetch->next = soon;
  const uint16_t *initial = tile->initial;
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    uint16_t *out = (uint16_t *)tile->sums + (first_pixel + p) * tile->sums_stride + channel;
    if (vectors == MAX_VECTORS) {
      __m512i low = _mm512_or_si512(sum[p][0], _mm512_slli_epi64(sum[p][1], 16));
      __m512i high = _mm512_or_si512(sum[p][2], _mm512_slli_epi64(sum[p][3], 16));
      __m512i all = _mm512_or_si512(low, _mm512_slli_epi64(high, 32));
      if (initial) {
        all = _mm512_add_epi16(all, _mm512_loadu_si512(initial + channel));
      }
      _mm512_storeu_si512(out, all);
      continue;
    }
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      __m128i narrow = _mm512_cvtepi64_epi16(sum[p][v]);
      if (initial) {
        narrow = _mm_add_epi16(narrow, _mm_loadu_si128((const __m128i *)(initial + channel + v * LANES)));
      }
      _mm_storeu_si128((__m128i *)(out + v * LANES), narrow);
    }
  }
}

#define LQC_PIXELS_BY_VECTORS(pixels)                                                            \
  static void tiles_##pixels(const lqc_bconv_tile *tile, uint32_t first_pixel, uint32_t channel, \
                             lines_to_fetch *fetch) {                                            \
    switch (vectors_of(tile->out_channels - channel)) {                                          \
    case 1:                                                                                      \
      tile_of(tile, first_pixel, channel, fetch, pixels, 1);                                     \
      break;                                                                                     \
    case 2:                                                                                      \
      tile_of(tile, first_pixel, channel, fetch, pixels, 2);                                     \
      break;                                                                                     \
    case 3:                                                                                      \
      tile_of(tile, first_pixel, channel, fetch, pixels, 3);                                     \
      break;                                                                                     \
    default:                                                                                     \
      tile_of(tile, first_pixel, channel, fetch, pixels, 4);                                     \
      break;                                                                                     \
    }                                                                                            \
  }

LQC_PIXELS_BY_VECTORS(1)
LQC_PIXELS_BY_VECTORS(2)
LQC_PIXELS_BY_VECTORS(3)
LQC_PIXELS_BY_VECTORS(4)
LQC_PIXELS_BY_VECTORS(5)
LQC_PIXELS_BY_VECTORS(6)

/* Pixels inside channels: a block of filters is read once from the second-level cache for up to 16 pixels. */
static void accumulate(const lqc_bconv_tile *tile) {
  static void (*const tiles[TILE])(const lqc_bconv_tile *, uint32_t, uint32_t,
                                   lines_to_fetch *) = {tiles_1, tiles_2, tiles_3, tiles_4, tiles_5, tiles_6};
  lines_to_fetch fetch = {(const char *)tile->soon, LQC_ALIGNMENT};
  for (uint32_t channel = 0; channel < tile->out_channels; channel += BLOCK) {
    uint32_t parts = (tile->pixels + TILE - 1) / TILE;
    for (uint32_t p = 0, pixels; p < tile->pixels; p += pixels, --parts) {
      pixels = (tile->pixels - p + parts - 1) / parts;
      if (tile->soon == NULL || fetch.next >= (const char *)tile->soon + tile->soon_bytes) {
        fetch = (lines_to_fetch){tile->weights, 0};
      }
      tiles[pixels - 1](tile, p, channel, &fetch);
    }
  }
}

const lqc_bconv_kernel lqc_bconv2d_avx512 = {
    .name = "bconv2d_avx512",
    .isa = LQC_ISA_AVX512,
    .wide = 0,
    .max_pixels = 16,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .accumulate = accumulate,
};
