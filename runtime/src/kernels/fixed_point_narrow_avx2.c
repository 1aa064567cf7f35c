/* Fixed point of usual programs in lanes of 32 bits. A PAIR has v, or int8, in words of 16 bits interleaved with the
 * other input: VPMADDWD multiplies both and adds. */
#define LQC_LANE int32_t
#include "fixed_point_blocks_avx2.h"

LQC_INLINE __m256i widen(const int8_t *from) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)from));
}

/* 16 words in such an order that interleaving, which works in halves of a vector, leaves lanes in theirs. */
LQC_INLINE __m256i widen_quarters(const int8_t *from) {
  return _mm256_cvtepi8_epi16(_mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)from), QUARTERS_0213));
}

LQC_INLINE void do_relu(bool relu, __m256i y[VECTORS]) {
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    y[v] = relu ? _mm256_max_epi32(y[v], _mm256_setzero_si256()) : y[v];
  }
}

LQC_INLINE void do_pair(const block *b, const operands *from, const lqc_lane_source source, __m256i y[VECTORS]) {
  LQC_UNROLL
  for (uint32_t h = 0; h < BLOCK / WORDS; ++h) {
    const uint32_t c = h * WORDS;
    __m256i v, x = _mm256_setzero_si256();
    if (source == LQC_LANES_SUMS) {
      v = _mm256_permute4x64_epi64(load_sums(b, from->sums + c), QUARTERS_0213);
    } else {
      v = widen_quarters(from->bytes + c);
      v = b->program->relu_before ? _mm256_max_epi16(v, _mm256_setzero_si256()) : v;
    }
    v = _mm256_mullo_epi16(v, b->y_scale);
    if (from->input) {
      x = _mm256_mullo_epi16(widen_quarters(from->input + c), b->x_scale);
    }
    y[2 * h] = _mm256_madd_epi16(_mm256_unpacklo_epi16(v, x), load(b->pairs + c));
    y[2 * h + 1] = _mm256_madd_epi16(_mm256_unpackhi_epi16(v, x), load(b->pairs + c + LANES));
    y[2 * h] = _mm256_add_epi32(y[2 * h], load(b->offset + c));
    y[2 * h + 1] = _mm256_add_epi32(y[2 * h + 1], load(b->offset + c + LANES));
  }
  do_relu(b->program->relu, y);
}

LQC_INLINE void do_steps(const block *b, const operands *from, __m256i y[VECTORS]) {
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    const uint32_t c = v * LANES;
    if (b->multiplier) {
      y[v] = _mm256_add_epi32(_mm256_mullo_epi32(y[v], load(b->multiplier + c)), load(b->offset + c));
    }
    if (b->shift) {
      const __m256i x = _mm256_sllv_epi32(widen(from->input + c), load(b->operand_shift + c));
      y[v] = _mm256_add_epi32(_mm256_sllv_epi32(y[v], load(b->shift + c)), x);
    }
  }
  do_relu(b->program->relu, y);
}

LQC_INLINE void pair_of_sums(const block *b, const operands *from, __m256i y[VECTORS]) {
  do_pair(b, from, LQC_LANES_SUMS, y);
}

LQC_INLINE void pair_of_int8(const block *b, const operands *from, __m256i y[VECTORS]) {
  do_pair(b, from, LQC_LANES_INT8, y);
}

LQC_INLINE void steps_of_sums(const block *b, const operands *from, __m256i y[VECTORS]) {
  LQC_UNROLL
  for (uint32_t h = 0; h < BLOCK / WORDS; ++h) {
    const __m256i v = load_sums(b, from->sums + h * WORDS);
    y[2 * h] = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(v));
    y[2 * h + 1] = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(v, 1));
  }
  do_steps(b, from, y);
}

LQC_INLINE void steps_of_int8(const block *b, const operands *from, __m256i y[VECTORS]) {
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    y[v] = widen(from->bytes + v * LANES);
  }
  do_relu(b->program->relu_before, y);
  do_steps(b, from, y);
}

LQC_INLINE void steps_of_int32(const block *b, const operands *from, __m256i y[VECTORS]) {
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    y[v] = load(from->integers + v * LANES);
  }
  do_relu(b->program->relu_before, y);
  do_steps(b, from, y);
}

LQC_INLINE __m256i pack_in_order(const __m256i lanes[VECTORS]) {
  return _mm256_permutevar8x32_epi32(pack(lanes), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

LQC_INLINE __m256i above(const block *b, const __m256i y[VECTORS]) {
  __m256i q[VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    q[v] = _mm256_cmpgt_epi32(y[v], load(b->thresholds + v * LANES));
  }
  return pack_in_order(q);
}

LQC_INLINE __m256i rounded(const block *b, const __m256i y[VECTORS]) {
  __m256i q[VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    q[v] = _mm256_srav_epi32(_mm256_add_epi32(y[v], load(b->half + v * LANES)), load(b->right + v * LANES));
  }
  return pack_in_order(q);
}

/* Each source and step in a loop of its own. */
#define LQC_RUN(source, begin) run_program(&found, pixels, channels, source, &(block_functions){begin, above, rounded})

bool lqc_fixed_point_usual_avx2(const lqc_lane_program *program, const lqc_lane_pixels *pixels) {
  const uint32_t channels = program->channels;
  lqc_usual_program found;
  if (!lqc_find_usual(program, pixels, &found)) {
    return false;
  }
  if (lqc_has_narrow_sums(pixels) && found.pair) {
    LQC_RUN(LQC_LANES_SUMS, pair_of_sums);
  } else if (lqc_has_narrow_sums(pixels)) {
    LQC_RUN(LQC_LANES_SUMS, steps_of_sums);
  } else if (pixels->source == LQC_LANES_INT8 && found.pair) {
    LQC_RUN(LQC_LANES_INT8, pair_of_int8);
  } else if (pixels->source == LQC_LANES_INT8) {
    LQC_RUN(LQC_LANES_INT8, steps_of_int8);
  } else if (pixels->source == LQC_LANES_INT32 && found.pair == NULL) {
    LQC_RUN(LQC_LANES_INT32, steps_of_int32);
  } else {
    return false;
  }
  return true;
}
