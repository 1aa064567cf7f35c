/* Binary convolution, the reference: plain loops, never tuned. Weights stay as in the file. */
#include <string.h>

#include "kernels_isa.h"

static uint32_t popcount64(uint64_t x) {
  x -= (x >> 1) & 0x5555555555555555u;
  x = (x & 0x3333333333333333u) + ((x >> 2) & 0x3333333333333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return (uint32_t)((x * 0x0101010101010101u) >> 56);
}

/* popcount(input xor filter) over all runs. */
static uint32_t disagreements(const lqc_bconv_tile *tile, uint32_t pixel, uint32_t channel) {
  const uint64_t *filter = (const uint64_t *)tile->weights + (size_t)channel * tile->filter_words;
  uint32_t sum = 0;
  for (uint32_t r = 0; r < tile->run_count; ++r) {
    const lqc_run *run = &tile->runs[r];
    ptrdiff_t start = tile->pixel_offsets[pixel] + run->input_offset;
    for (uint32_t i = 0; i < run->words; ++i) {
      sum += popcount64(tile->input[start + (ptrdiff_t)i] ^ filter[run->weight_word + i]);
    }
  }
  return sum;
}

static void accumulate_u16(const lqc_bconv_tile *tile) {
  const uint16_t *initial = tile->initial;
  for (uint32_t p = 0; p < tile->pixels; ++p) {
    uint16_t *sums = (uint16_t *)tile->sums + p * tile->sums_stride;
    for (uint32_t c = 0; c < tile->out_channels; ++c) {
      sums[c] = (uint16_t)((initial ? initial[c] : 0u) + disagreements(tile, p, c));
    }
  }
}

static void accumulate_u32(const lqc_bconv_tile *tile) {
  const uint32_t *initial = tile->initial;
  for (uint32_t p = 0; p < tile->pixels; ++p) {
    uint32_t *sums = (uint32_t *)tile->sums + p * tile->sums_stride;
    for (uint32_t c = 0; c < tile->out_channels; ++c) {
      sums[c] = (initial ? initial[c] : 0u) + disagreements(tile, p, c);
    }
  }
}

static size_t packed_bytes(uint32_t out_channels, uint32_t filter_words) {
  return lqc_packed_bytes(out_channels, 1, (size_t)filter_words * sizeof(uint64_t));
}

static void pack(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words) {
  memcpy(packed, filters, (size_t)out_channels * filter_words * sizeof(uint64_t));
}

const lqc_bconv_kernel lqc_bconv2d_scalar = {
    .name = "bconv2d_scalar",
    .isa = LQC_ISA_SCALAR,
    .wide = 0,
    .max_pixels = 4,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .accumulate = accumulate_u16,
};

const lqc_bconv_kernel lqc_bconv2d_wide_scalar = {
    .name = "bconv2d_wide_scalar",
    .isa = LQC_ISA_SCALAR,
    .wide = 1,
    .max_pixels = 4,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .accumulate = accumulate_u32,
};
