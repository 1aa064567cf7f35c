/* int8 convolution with VPDPBUSD, which multiplies unsigned by signed bytes: patches hold x + 128, and the weights
 * start from the bias less 128 times the filter's sum. Lanes are output channels; each adds four products of
 * neighbouring elements. Nothing saturates, and what wraps on the way wraps back, as the true sum fits 32 bits.
 *
 * A register tile is 4 pixels x 64 channels: 16 accumulators, and 8 loads for 16 VPDPBUSD. */
#include <immintrin.h>

#include "int8_gather.h"

enum { GROUP = 4, MAX_VECTORS = 4, VECTOR_BYTES = 64 };

/* Whole vectors are written, zeros behind the run: what they hit is outside the image too, or written later. A load of
 * four bytes would wait for a masked store. */
LQC_INLINE void copy_run(uint8_t *to, const int8_t *from, size_t bytes) {
  const __m512i offset = _mm512_set1_epi8(-128);
  for (; bytes > VECTOR_BYTES; bytes -= VECTOR_BYTES, from += VECTOR_BYTES, to += VECTOR_BYTES) {
    _mm512_storeu_si512(to, _mm512_xor_si512(_mm512_loadu_si512(from), offset));
  }
  __mmask64 lanes = lqc_low_mask((uint32_t)bytes);
  _mm512_storeu_si512(to, _mm512_xor_si512(_mm512_maskz_loadu_epi8(lanes, from), offset));
}

LQC_DEFINE_GATHER(uint8_t, copy_run)

/* In assembly, as GCC copies every accumulator once a step around the intrinsic. */
LQC_INLINE __m512i add_products(__m512i sum, __m512i x, __m512i w) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
  return sum;
}

/* Sums of `pixels` pixels from `first_pixel` on and `vectors` blocks of channels from `channel` on. Both counts are
   constants after inlining, so that the sums live in registers. */
LQC_INLINE void tile_of(const lqc_int8_tile *tile, uint32_t channel, const uint32_t pixels, const uint32_t vectors) {
  const size_t groups = (tile->size + GROUP - 1) / GROUP;
  const size_t block_bytes = lqc_int8_block_bytes(tile->runs, tile->size, GROUP);
  const uint8_t *weights = (const uint8_t *)tile->weights + channel / LQC_INT8_LANES * block_bytes;
  const uint8_t *run = tile->patches;
  __m512i sum[LQC_INT8_TILE_PIXELS][MAX_VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    __m512i start = _mm512_load_si512(weights + v * block_bytes);
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      sum[p][v] = start;
    }
  }
  weights += VECTOR_BYTES;
  for (uint32_t r = 0; r < tile->runs; ++r, run += tile->run_bytes) {
    const uint8_t *elements = run;
    for (size_t g = 0; g < groups; ++g, weights += VECTOR_BYTES, elements += GROUP) {
      __m512i w[MAX_VECTORS];
      LQC_UNROLL
      for (uint32_t v = 0; v < vectors; ++v) {
        w[v] = _mm512_load_si512(weights + v * block_bytes);
      }
      LQC_UNROLL
      for (uint32_t p = 0; p < pixels; ++p) {
        int32_t four;
        memcpy(&four, elements + p * tile->patch_bytes, sizeof(four));
        __m512i x = _mm512_set1_epi32(four);
        LQC_UNROLL
        for (uint32_t v = 0; v < vectors; ++v) {
          sum[p][v] = add_products(sum[p][v], x, w[v]);
        }
      }
    }
  }
  LQC_UNROLL
  for (uint32_t p = 0; p < pixels; ++p) {
    int32_t *out = tile->sums + p * tile->sums_stride + channel;
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      uint32_t left = lqc_min_u32(tile->out_channels - channel - v * LQC_INT8_LANES, LQC_INT8_LANES);
      _mm512_mask_storeu_epi32(out + v * LQC_INT8_LANES, (__mmask16)lqc_low_mask(left), sum[p][v]);
    }
  }
}

LQC_INLINE void blocks_of(const lqc_int8_tile *tile, const uint32_t pixels) {
  uint32_t blocks = (tile->out_channels + LQC_INT8_LANES - 1) / LQC_INT8_LANES, channel = 0;
  for (; blocks >= MAX_VECTORS; blocks -= MAX_VECTORS, channel += MAX_VECTORS * LQC_INT8_LANES) {
    tile_of(tile, channel, pixels, MAX_VECTORS);
  }
  if (blocks >= 2) {
    tile_of(tile, channel, pixels, 2);
    blocks -= 2;
    channel += 2 * LQC_INT8_LANES;
  }
  if (blocks > 0) {
    tile_of(tile, channel, pixels, 1);
  }
}

static void accumulate(const lqc_int8_tile *tile) {
  LQC_INT8_SWITCH_PIXELS(tile->pixels, blocks_of, tile)
}

const lqc_int8_kernel lqc_int8_conv_avx512 = {
    .name = "int8_conv2d_avx512",
    .isa = LQC_ISA_AVX512,
    .group = GROUP,
    .multiple = GROUP,
    .element_bytes = 1,
    .offset = 128,
    .takes_runs = 1,
    .gather = gather,
    .accumulate = accumulate,
};
