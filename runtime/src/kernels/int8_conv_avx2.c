/* int8 convolution with VPMADDWD: patches and weights widened to int16, so nothing saturates (VPMADDUBSW would).
 * Lanes are output channels; each adds two products of neighbouring elements.
 *
 * A register tile is 4 pixels x 16 channels: 8 accumulators, two vectors of weights and a broadcast. */
#include <immintrin.h>

#include "int8_gather.h"

enum { GROUP = 2, VECTORS = 2, LANES = 8 };

LQC_INLINE void copy_run(int16_t *to, const int8_t *from, size_t bytes) {
  for (; bytes >= 16; bytes -= 16, from += 16, to += 16) {
    _mm256_storeu_si256((__m256i *)to, _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from)));
  }
  for (; bytes > 0; --bytes) {
    *to++ = *from++;
  }
}

LQC_DEFINE_GATHER(int16_t, copy_run)

/* Sums of `pixels` pixels of one block; a constant after inlining, so that the sums live in registers. */
LQC_INLINE void tile_of(const lqc_int8_tile *tile, const int8_t *weights, uint32_t channel, const uint32_t pixels) {
  const uint8_t *run = tile->patches;
  __m256i sum[LQC_INT8_TILE_PIXELS][VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    __m256i start = _mm256_load_si256((const __m256i *)weights + v);
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      sum[p][v] = start;
    }
  }
  weights += LQC_INT8_LANES * sizeof(int32_t);
  for (uint32_t r = 0; r < tile->runs; ++r, run += tile->run_bytes) {
    const uint8_t *elements = run;
    for (size_t g = 0; g < (tile->size + GROUP - 1) / GROUP; ++g, elements += GROUP * sizeof(int16_t)) {
      __m256i w[VECTORS];
      LQC_UNROLL
      for (uint32_t v = 0; v < VECTORS; ++v, weights += GROUP * LANES) {
        w[v] = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)weights));
      }
      LQC_UNROLL
      for (uint32_t p = 0; p < pixels; ++p) {
        int32_t two;
        memcpy(&two, elements + p * tile->patch_bytes, sizeof(two));
        __m256i x = _mm256_set1_epi32(two);
        LQC_UNROLL
        for (uint32_t v = 0; v < VECTORS; ++v) {
          sum[p][v] = _mm256_add_epi32(sum[p][v], _mm256_madd_epi16(x, w[v]));
        }
      }
    }
  }
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    int32_t left = (int32_t)lqc_min_u32(tile->out_channels - channel, LQC_INT8_LANES) - (int32_t)v * LANES;
    __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(left), lanes);
    LQC_UNROLL
    for (uint32_t p = 0; p < pixels; ++p) {
      _mm256_maskstore_epi32(tile->sums + p * tile->sums_stride + channel + v * LANES, mask, sum[p][v]);
    }
  }
}

LQC_DEFINE_INT8_ACCUMULATE(GROUP)

const lqc_int8_kernel lqc_int8_conv_avx2 = {
    .name = "int8_conv2d_avx2",
    .isa = LQC_ISA_AVX2,
    .group = GROUP,
    .multiple = GROUP,
    .element_bytes = sizeof(int16_t),
    .takes_runs = 1,
    .gather = gather,
    .accumulate = accumulate,
};
