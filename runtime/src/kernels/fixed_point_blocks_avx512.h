/* What the two programs that have loops of their own share: lqc_fixed_point_pair_avx512() of residual layers, and
 * lqc_fixed_point_affine_avx512() of int8 convolutions. Both take 32 channels, load what those need once, and then go
 * over all pixels without asking again which steps there are. Private to kernels/. */
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

#endif /* LQC_FIXED_POINT_BLOCKS_AVX512_H */
