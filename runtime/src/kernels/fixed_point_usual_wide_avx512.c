/* Fixed point of usual programs in lanes of 64 bits, as of residual layers whose numbers take so many, save those that
 * lqc_fixed_point_affine_avx512() is made for. 8 lanes a vector, in order; what channels have is read where it is.
 *
 * What starts fits 32 bits, as multipliers do: VPMULDQ. What the rounding shift leaves fits 32 bits again, so the lower
 * halves of two vectors are one. */
#include "fixed_point_blocks_avx512.h"

enum { LANES = 8, VECTORS = BLOCK / LANES };

/* What a block of channels has. */
typedef struct block {
  const lqc_usual_program *program;
  __mmask32 lanes;
  const int64_t *multiplier, *offset, *shift, *operand_shift, *half, *right, *thresholds;
  sum_params params;
} block;

LQC_INLINE const int64_t *lanes_of(const void *lanes, size_t channel) {
  return lanes ? (const int64_t *)lanes + channel : NULL;
}

LQC_INLINE __m512i load(const int64_t *lanes, uint32_t v) {
  return _mm512_loadu_si512(lanes + v * LANES);
}

LQC_INLINE block block_at(const lqc_usual_program *program, const lqc_lane_pixels *pixels, uint32_t channels,
                          size_t channel) {
  block b = {.program = program, .lanes = block_lanes(channels, channel)};
  b.params = sum_params_of(pixels, program->relu_before);
  LQC_SET_LANES(&b, program, channel);
  return b;
}

LQC_INLINE void begin(const block *b, const uint8_t *values, size_t channel, const bool sums, __m512i y[VECTORS]) {
  int16_t words[BLOCK];
  if (sums) {
    _mm512_storeu_si512(words, load_sums(&b->params, values + channel * sizeof(uint16_t), true));
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    if (sums) {
      y[v] = _mm512_cvtepi16_epi64(_mm_loadu_si128((const __m128i *)(const void *)(words + v * LANES)));
    } else {
      const void *of_vector = values + (channel + v * LANES) * sizeof(int32_t);
      y[v] = _mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *)of_vector));
      y[v] = b->program->relu_before ? _mm512_max_epi64(y[v], _mm512_setzero_si512()) : y[v];
    }
  }
}

LQC_INLINE void do_steps(const block *b, const int8_t *input, __m512i y[VECTORS]) {
  const __m256i x = input ? _mm256_maskz_loadu_epi8(b->lanes, input) : _mm256_setzero_si256();
  int8_t bytes[BLOCK];
  if (b->shift) {
    _mm256_storeu_si256((__m256i *)(void *)bytes, x);
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    if (b->multiplier) {
      y[v] = _mm512_add_epi64(_mm512_mul_epi32(y[v], load(b->multiplier, v)), load(b->offset, v));
    }
    if (b->shift) {
      const __m128i of_vector = _mm_loadl_epi64((const __m128i *)(const void *)(bytes + v * LANES));
      y[v] = _mm512_add_epi64(_mm512_sllv_epi64(y[v], load(b->shift, v)),
                              _mm512_sllv_epi64(_mm512_cvtepi8_epi64(of_vector), load(b->operand_shift, v)));
    }
    y[v] = b->program->relu ? _mm512_max_epi64(y[v], _mm512_setzero_si512()) : y[v];
  }
}

LQC_INLINE uint32_t at_most(const block *b, const __m512i y[VECTORS]) {
  uint32_t bits = 0;
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    bits |= (uint32_t)_mm512_cmple_epi64_mask(y[v], load(b->thresholds, v)) << (v * LANES);
  }
  return bits & b->lanes;
}

/* 32 bytes. Packs work in quarters of a vector, whose order is then put right. */
LQC_INLINE __m256i rounded(const block *b, const __m512i y[VECTORS]) {
  const __m512i lower = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  __m512i q[VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    q[v] = _mm512_srav_epi64(_mm512_add_epi64(y[v], load(b->half, v)), load(b->right, v));
  }
  __m512i words =
      _mm512_packs_epi32(_mm512_permutex2var_epi32(q[0], lower, q[1]), _mm512_permutex2var_epi32(q[2], lower, q[3]));
  words = _mm512_max_epi16(_mm512_permutexvar_epi64(order, words), _mm512_set1_epi16(-INT8_MAX));
  return _mm512_cvtsepi16_epi8(words);
}

LQC_INLINE void run_block(const block *b, const lqc_lane_pixels *pixels, size_t channel, uint32_t *low_bits,
                          const bool sums) {
  const lqc_usual_program *program = b->program;
  const block_stores *stores = &program->stores;
  const uint32_t invert = block_invert(stores, channel);
  const uint8_t *values = pixels->values;
  for (uint32_t p = 0; p < pixels->count; ++p, values += pixels->value_bytes) {
    const size_t place = lqc_lane_place(pixels, p);
    __m512i y[VECTORS];
    begin(b, values, channel, sums, y);
    do_steps(b, program->input ? program->input + place * program->input_bytes + channel : NULL, y);
    if (stores->signs) {
      const uint32_t bits = at_most(b, y) ^ invert;
      if (channel % LQC_WORD_BITS == 0) {
        low_bits[p] = bits;
      } else {
        store_word(stores, place, channel, low_bits[p], bits);
      }
    }
    if (stores->integers) {
      int8_t *out = stores->integers_out + place * stores->integers_bytes + channel;
      _mm256_mask_storeu_epi8(out, b->lanes, rounded(b, y));
    }
  }
}

bool lqc_fixed_point_usual_wide_avx512(const lqc_lane_program *program, const lqc_lane_pixels *pixels) {
  const bool sums = lqc_has_narrow_sums(pixels);
  lqc_usual_program found;
  if (!program->rounds_far || pixels->count > LQC_LANE_PIXELS || !(sums || pixels->source == LQC_LANES_INT32) ||
      !lqc_find_usual(program, pixels, &found)) {
    return false;
  }
  const size_t end = channels_of_blocks(program, &found.stores);
  uint32_t low_bits[LQC_LANE_PIXELS]; /* of a word, wait for the other half: one store for both */
  for (size_t channel = 0; channel < end; channel += BLOCK) {
    const block b = block_at(&found, pixels, program->channels, channel);
    if (sums) {
      run_block(&b, pixels, channel, low_bits, true);
    } else {
      run_block(&b, pixels, channel, low_bits, false);
    }
  }
  return true;
}
