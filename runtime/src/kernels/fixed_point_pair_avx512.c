/* Fixed point of a residual layer: v in 16 bits, interleaved with the other input, one VPDPWSSD for both products, then
 * int8 and bits.
 *
 * Words of 16 bits and lanes of 32 are interleaved and packed in quarters of a vector. So lanes are in the order of the
 * quarters, channels 0-3, 8-11, 16-19, 24-27 in the low vector and 4-7, 12-15, 20-23, 28-31 in the high one, and what
 * each channel has is loaded in that order; packing leads back. */
#include "fixed_point_blocks_avx512.h"

/* 32 lanes from `channel` on, in the order of quarters. */
LQC_INLINE void load_lanes(const void *lanes, size_t channel, __m512i low_high[2]) {
  const int32_t *from = (const int32_t *)lanes + channel;
  __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + BLOCK / 2);
  low_high[0] = _mm512_shuffle_i32x4(a, b, 0x88);
  low_high[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
}

LQC_INLINE __m512i load_bytes(const void *from, __mmask32 lanes) {
  return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(lanes, from));
}

LQC_INLINE __m512i load_values(const uint8_t *values, const sum_params *params, size_t channel, __mmask32 lanes,
                               bool relu, const bool sums, const bool shifts) {
  if (!sums) {
    __m512i y = load_bytes(values + channel, lanes);
    return relu ? _mm512_max_epi16(y, _mm512_setzero_si512()) : y;
  }
  return load_sums(params, values + channel * sizeof(uint16_t), shifts);
}

LQC_INLINE uint32_t at_most(const __m512i y[2], const __m512i thresholds[2]) {
  return _pdep_u32(_mm512_cmple_epi32_mask(y[0], thresholds[0]), 0x0f0f0f0fu) |
         _pdep_u32(_mm512_cmple_epi32_mask(y[1], thresholds[1]), 0xf0f0f0f0u);
}

/* Without `shifts`, those of v, y and x are by 0: they take the port that is busiest. */
LQC_INLINE void run_block(const lqc_usual_program *program, const lqc_lane_pixels *pixels, size_t channel,
                          __mmask32 lanes, uint32_t *low_bits, const bool sums, const bool shifts) {
  const block_stores *stores = &program->stores;
  const sum_params params = sum_params_of(pixels, program->relu_before);
  const __m512i y_log2 = _mm512_set1_epi16((short)program->pair->y_log2);
  const __m512i x_log2 = _mm512_set1_epi16((short)program->pair->x_log2);
  const uint32_t invert = block_invert(stores, channel);
  __m512i pairs[2], offset[2], half[2], right[2], thresholds[2];
  __m512i least[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  load_lanes(program->pair->pairs, channel, pairs);
  load_lanes(program->pair->offset, channel, offset);
  if (stores->integers) {
    load_lanes(stores->integers->half, channel, half);
    load_lanes(stores->integers->right, channel, right);
  }
  if (stores->signs) {
    load_lanes(stores->signs->thresholds, channel, thresholds);
  }
  if (stores->integers) { /* y + half instead of y, which fits 32 bits, and a threshold as much higher */
    LQC_UNROLL
    for (uint32_t v = 0; v < 2; ++v) {
      const __m512i highest = _mm512_sub_epi32(_mm512_set1_epi32(INT32_MAX), half[v]);
      offset[v] = _mm512_add_epi32(offset[v], half[v]);
      if (stores->signs) {
        thresholds[v] = _mm512_add_epi32(_mm512_min_epi32(thresholds[v], highest), half[v]);
      }
      least[v] = half[v];
    }
  }
  const uint8_t *values = pixels->values;
  for (uint32_t p = 0; p < pixels->count; ++p, values += pixels->value_bytes) {
    const size_t place = lqc_lane_place(pixels, p);
    __m512i v = load_values(values, &params, channel, lanes, program->relu_before, sums, shifts);
    v = shifts ? _mm512_sllv_epi16(v, y_log2) : v;
    __m512i x = _mm512_setzero_si512(), y[2];
    if (program->input) {
      x = load_bytes(program->input + place * program->input_bytes + channel, lanes);
      x = shifts ? _mm512_sllv_epi16(x, x_log2) : x;
    }
    y[0] = _mm512_dpwssd_epi32(offset[0], _mm512_unpacklo_epi16(v, x), pairs[0]);
    y[1] = _mm512_dpwssd_epi32(offset[1], _mm512_unpackhi_epi16(v, x), pairs[1]);
    if (program->relu) {
      y[0] = _mm512_max_epi32(y[0], least[0]);
      y[1] = _mm512_max_epi32(y[1], least[1]);
    }
    if (stores->signs) {
      const uint32_t bits = (at_most(y, thresholds) & lanes) ^ invert;
      if (channel % LQC_WORD_BITS == 0) {
        low_bits[p] = bits;
      } else {
        store_word(stores, place, channel, low_bits[p], bits);
      }
    }
    if (stores->integers) {
      __m512i low = _mm512_srav_epi32(y[0], right[0]);
      __m512i high = _mm512_srav_epi32(y[1], right[1]);
      __m256i q = _mm512_cvtsepi16_epi8(_mm512_packs_epi32(low, high));
      q = _mm256_max_epi8(q, _mm256_set1_epi8(-INT8_MAX));
      _mm256_mask_storeu_epi8(stores->integers_out + place * stores->integers_bytes + channel, lanes, q);
    }
  }
}

bool lqc_fixed_point_pair_avx512(const lqc_lane_program *program, const lqc_lane_pixels *pixels) {
  lqc_usual_program found;
  if (pixels->count > LQC_LANE_PIXELS || !lqc_find_usual(program, pixels, &found) || found.pair == NULL ||
      !(lqc_has_narrow_sums(pixels) || pixels->source == LQC_LANES_INT8)) {
    return false;
  }
  const size_t end = channels_of_blocks(program, &found.stores);
  const bool sums = pixels->source == LQC_LANES_SUMS;
  const bool shifts = found.pair->y_log2 != 0 || found.pair->x_log2 != 0 || (sums && pixels->step_log2 > 1);
  uint32_t low_bits[LQC_LANE_PIXELS]; /* of a word, wait for the other half: one store for both */
  for (size_t channel = 0; channel < end; channel += BLOCK) {
    const __mmask32 lanes = block_lanes(program->channels, channel);
    if (sums && shifts) {
      run_block(&found, pixels, channel, lanes, low_bits, true, true);
    } else if (sums) {
      run_block(&found, pixels, channel, lanes, low_bits, true, false);
    } else if (shifts) {
      run_block(&found, pixels, channel, lanes, low_bits, false, true);
    } else {
      run_block(&found, pixels, channel, lanes, low_bits, false, false);
    }
  }
  return true;
}
