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

/* In assembly, as GCC copies accumulators around the intrinsic; four at a time, as it copies some even so. */
LQC_INLINE void add_products(__m512i *sum, __m512i x, const __m512i *w, const uint32_t vectors) {
  if (vectors == MAX_VECTORS) {
    __asm__("vpdpbusd %5, %4, %0\n\t"
            "vpdpbusd %6, %4, %1\n\t"
            "vpdpbusd %7, %4, %2\n\t"
            "vpdpbusd %8, %4, %3"
            : "+&v"(sum[0]), "+&v"(sum[1]), "+&v"(sum[2]), "+&v"(sum[3])
            : "v"(x), "v"(w[0]), "v"(w[1]), "v"(w[2]), "v"(w[3]));
    return;
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum[v]) : "v"(x), "v"(w[v]));
  }
}

LQC_INLINE __m512i broadcast_group(const uint8_t *elements) {
  int32_t four;
  memcpy(&four, elements, sizeof(four));
  return _mm512_set1_epi32(four);
}

/* Sums of `pixels` pixels and `vectors` blocks of channels from `channel` on. Both counts are constants after inlining,
   so that the sums live in registers. */
LQC_INLINE void tile_of(const lqc_int8_tile *tile, uint32_t channel, const uint32_t pixels, const uint32_t vectors) {
  const size_t groups = (tile->size + GROUP - 1) / GROUP, patch_bytes = tile->patch_bytes;
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
  for (uint32_t runs = tile->runs; runs > 0; --runs, run += tile->run_bytes) {
    const uint8_t *elements = run, *const end = weights + groups * VECTOR_BYTES;
    for (; weights != end; weights += VECTOR_BYTES, elements += GROUP) {
      __m512i w[MAX_VECTORS];
      LQC_UNROLL
      for (uint32_t v = 0; v < vectors; ++v) {
        w[v] = _mm512_load_si512(weights + v * block_bytes);
      }
      LQC_UNROLL
      for (uint32_t p = 0; p < pixels; ++p) {
        add_products(sum[p], broadcast_group(elements + p * patch_bytes), w, vectors);
      }
    }
  }
  const uint32_t left = tile->out_channels - channel;
  int32_t *out = tile->sums + channel;
  if (left >= vectors * LQC_INT8_LANES) {
    const size_t stride = tile->sums_stride;
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      LQC_UNROLL
      for (uint32_t v = 0; v < vectors; ++v) {
        _mm512_storeu_si512(out + p * stride + v * LQC_INT8_LANES, sum[p][v]);
      }
    }
    return;
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    const uint32_t first = v * LQC_INT8_LANES;
    const __mmask16 lanes = (__mmask16)lqc_low_mask(lqc_min_u32(left - first, LQC_INT8_LANES));
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      _mm512_mask_storeu_epi32(out + p * tile->sums_stride + first, lanes, sum[p][v]);
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
  LQC_SWITCH_PIXELS(tile->pixels, blocks_of, tile)
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
