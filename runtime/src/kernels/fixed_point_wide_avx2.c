/* Fixed point of usual programs in lanes of 64 bits. What starts fits 32 bits, as multipliers do: VPMULDQ. What the
 * rounding shift leaves fits 32 bits again, so the lower half of a logical shift is the number, and two vectors of four
 * lanes become one of eight. */
#define LQC_LANE int64_t
#include "fixed_point_blocks_avx2.h"

LQC_INLINE void do_steps(const block *b, const operands *from, __m256i y[VECTORS]) {
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    const uint32_t c = v * LANES;
    if (b->multiplier) {
      y[v] = _mm256_add_epi64(_mm256_mul_epi32(y[v], load(b->multiplier + c)), load(b->offset + c));
    }
    if (b->shift) {
      int32_t four;
      memcpy(&four, from->input + c, sizeof(four));
      const __m256i x = _mm256_cvtepi8_epi64(_mm_cvtsi32_si128(four));
      y[v] = _mm256_add_epi64(_mm256_sllv_epi64(y[v], load(b->shift + c)),
                              _mm256_sllv_epi64(x, load(b->operand_shift + c)));
    }
    if (b->program->relu) {
      y[v] = _mm256_andnot_si256(_mm256_cmpgt_epi64(_mm256_setzero_si256(), y[v]), y[v]);
    }
  }
}

LQC_INLINE void steps_of_sums(const block *b, const operands *from, __m256i y[VECTORS]) {
  int16_t words[BLOCK];
  LQC_UNROLL
  for (uint32_t c = 0; c < BLOCK; c += WORDS) {
    _mm256_storeu_si256((__m256i *)(void *)(words + c), load_sums(b, from->sums + c));
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    y[v] = _mm256_cvtepi16_epi64(_mm_loadl_epi64((const __m128i *)(const void *)(words + v * LANES)));
  }
  do_steps(b, from, y);
}

LQC_INLINE void steps_of_int32(const block *b, const operands *from, __m256i y[VECTORS]) {
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    y[v] = _mm256_cvtepi32_epi64(_mm_loadu_si128((const __m128i *)(const void *)(from->integers + v * LANES)));
    y[v] = b->program->relu_before ? _mm256_max_epi32(y[v], _mm256_setzero_si256()) : y[v]; /* the sign's half too */
  }
  do_steps(b, from, y);
}

/* The lower halves of 32 lanes to bytes. In a pack of them, the halves of the vector have every other two. */
LQC_INLINE __m256i pack_in_order(const __m256i lanes[VECTORS]) {
  const __m256i pairs = _mm256_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15, 0, 1, 8, 9, 2, 3, 10, 11,
                                         4, 5, 12, 13, 6, 7, 14, 15);
  __m256i q[VECTORS / 2];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS / 2; ++v) {
    const __m256 low = _mm256_castsi256_ps(lanes[2 * v]), high = _mm256_castsi256_ps(lanes[2 * v + 1]);
    q[v] = _mm256_castps_si256(_mm256_shuffle_ps(low, high, 0x88));
  }
  return _mm256_shuffle_epi8(_mm256_permute4x64_epi64(pack(q), QUARTERS_0213), pairs);
}

LQC_INLINE __m256i above(const block *b, const __m256i y[VECTORS]) {
  __m256i q[VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    q[v] = _mm256_cmpgt_epi64(y[v], load(b->thresholds + v * LANES));
  }
  return pack_in_order(q);
}

LQC_INLINE __m256i rounded(const block *b, const __m256i y[VECTORS]) {
  __m256i q[VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    q[v] = _mm256_srlv_epi64(_mm256_add_epi64(y[v], load(b->half + v * LANES)), load(b->right + v * LANES));
  }
  return pack_in_order(q);
}

/* A logical shift by more than 32 leaves zeros where there should be signs. y + 2^63 has none: it is shifted, and 2^63
 * >> right subtracted. */
LQC_INLINE __m256i rounded_far(const block *b, const __m256i y[VECTORS]) {
  const __m256i sign = _mm256_set1_epi64x(INT64_MIN);
  __m256i q[VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    const __m256i right = load(b->right + v * LANES);
    q[v] = _mm256_xor_si256(_mm256_add_epi64(y[v], load(b->half + v * LANES)), sign);
    q[v] = _mm256_sub_epi64(_mm256_srlv_epi64(q[v], right), _mm256_srlv_epi64(sign, right));
  }
  return pack_in_order(q);
}

/* Each source and shift in a loop of its own. */
#define LQC_RUN(source, begin, rounded) \
  run_program(&found, pixels, channels, source, &(block_functions){begin, above, rounded})

bool lqc_fixed_point_usual_wide_avx2(const lqc_lane_program *program, const lqc_lane_pixels *pixels) {
  const uint32_t channels = program->channels;
  lqc_usual_program found;
  if (!program->rounds_far || !lqc_find_usual(program, pixels, &found)) {
    return false;
  }
  if (lqc_has_narrow_sums(pixels) && program->rounds_narrow) {
    LQC_RUN(LQC_LANES_SUMS, steps_of_sums, rounded);
  } else if (lqc_has_narrow_sums(pixels)) {
    LQC_RUN(LQC_LANES_SUMS, steps_of_sums, rounded_far);
  } else if (pixels->source == LQC_LANES_INT32 && program->rounds_narrow) {
    LQC_RUN(LQC_LANES_INT32, steps_of_int32, rounded);
  } else if (pixels->source == LQC_LANES_INT32) {
    LQC_RUN(LQC_LANES_INT32, steps_of_int32, rounded_far);
  } else {
    return false;
  }
  return true;
}
