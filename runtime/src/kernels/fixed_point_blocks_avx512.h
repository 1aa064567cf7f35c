/* What programs that have loops of their own share: lqc_fixed_point_pair_avx512() of residual layers,
 * lqc_fixed_point_affine_avx512() of int8 convolutions, and lqc_fixed_point_usual_wide_avx512() of those whose numbers
 * take 64 bits. All take 32 channels, and then go over all pixels without asking again which steps there are. Private
 * to kernels/. */
#ifndef LQC_FIXED_POINT_BLOCKS_AVX512_H
#define LQC_FIXED_POINT_BLOCKS_AVX512_H

#include <immintrin.h>

#include "fixed_point_programs.h"

enum { BLOCK = 32 };

/* Channels to go over: bits are whole words. */
static size_t channels_of_blocks(const lqc_lane_program *program, const block_stores *stores) {
  return lqc_round_up(program->channels, stores->signs ? LQC_WORD_BITS : BLOCK);
}

/* A mask of the channels of a block that exist. */
LQC_INLINE __mmask32 block_lanes(size_t channels, size_t channel) {
  return channel < channels
             ? (__mmask32)lqc_low_mask((uint32_t)(channels - channel < BLOCK ? channels - channel : BLOCK))
             : 0;
}

/* The bits to xor of a block. */
LQC_INLINE uint32_t block_invert(const block_stores *stores, size_t channel) {
  const uint64_t *invert = stores->signs ? stores->signs->invert : NULL;
  return invert ? (uint32_t)(invert[channel / LQC_WORD_BITS] >> (channel % LQC_WORD_BITS)) : 0;
}

LQC_INLINE void store_signs(const block_stores *stores, size_t place, size_t channel, uint32_t bits) {
  memcpy(stores->signs_out + place * stores->signs_bytes + channel / 8, &bits, sizeof(bits));
}

LQC_INLINE void store_word(const block_stores *stores, size_t place, size_t channel, uint32_t low, uint32_t high) {
  const uint64_t word = low | (uint64_t)high << 32;
  memcpy(stores->signs_out + place * stores->signs_bytes + channel / LQC_WORD_BITS * sizeof(word), &word, sizeof(word));
}

/* From popcounts to v in 16 bits; lqc_has_narrow_sums() says what it is. A RELU behind it is a limit. Shifts by vectors
 * of counts are one operation, those by one count two. */
typedef struct sum_params {
  __m512i full, high, low, right;
} sum_params;

static inline sum_params sum_params_of(const lqc_lane_pixels *pixels, bool relu) {
  const int32_t step = pixels->step_log2;
  if (pixels->source != LQC_LANES_SUMS) {
    return (sum_params){0};
  }
  const int32_t limit = pixels->limit < INT16_MAX ? pixels->limit : INT16_MAX;
  return (sum_params){.full = _mm512_set1_epi16((short)((pixels->full + (1 << (step - 1))) >> 1)),
                      .high = _mm512_set1_epi16((short)limit),
                      .low = _mm512_set1_epi16((short)(relu ? 0 : -limit)),
                      .right = _mm512_set1_epi16((short)(step - 1))};
}

/* v of 32 channels; without `shifts`, params->right is 0. */
LQC_INLINE __m512i load_sums(const sum_params *params, const void *sums, const bool shifts) {
  __m512i v = _mm512_sub_epi16(params->full, _mm512_loadu_si512(sums));
  v = shifts ? _mm512_srav_epi16(v, params->right) : v;
  return _mm512_max_epi16(_mm512_min_epi16(v, params->high), params->low);
}

#endif /* LQC_FIXED_POINT_BLOCKS_AVX512_H */
