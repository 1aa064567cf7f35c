/* Fixed point behind an int8 convolution: sums of 32 bits times a multiplier plus an offset, in 64 bits, perhaps a
 * RELU, then int8 and bits.
 *
 * VPMULDQ multiplies the even ones of 16 lanes of 32 bits, and after a shuffle the odd ones. What the rounding shift
 * leaves fits 32 bits again, so even lanes are shifted to the right into the low half of theirs, odd lanes to the left
 * into the high half, and a blend has 16 lanes in order. */
#include "fixed_point_blocks_avx512.h"

enum { LANES = 16, VECTORS = BLOCK / LANES, EVEN = 0x5555, ODD = 0xaaaa };

typedef struct affine_program {
  const lqc_lane_step *affine;
  bool relu;
  block_stores stores;
} affine_program;

static bool is_affine(const lqc_lane_program *program, const lqc_lane_pixels *pixels, affine_program *found) {
  const uint32_t steps = program->step_count;
  if (!program->rounds_narrow || pixels->source != LQC_LANES_INT32 || steps == 0 || steps > 2 ||
      program->steps[0].kind != LQC_LANE_AFFINE || (steps == 2 && program->steps[1].kind != LQC_LANE_RELU) ||
      !find_stores(program, pixels, &found->stores)) {
    return false;
  }
  found->affine = &program->steps[0];
  found->relu = steps == 2;
  return !(found->relu && found->stores.signs);
}

/* Even and odd ones of 16 lanes of 64 bits. */
typedef struct halves {
  __m512i even, odd;
} halves;

LQC_INLINE halves load_halves(const void *lanes, size_t channel) {
  const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), odd = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
  const int64_t *from = (const int64_t *)lanes + channel;
  __m512i low = _mm512_loadu_si512(from), high = _mm512_loadu_si512(from + LANES / 2);
  return (halves){_mm512_permutex2var_epi64(low, even, high), _mm512_permutex2var_epi64(low, odd, high)};
}

LQC_INLINE halves add(halves a, halves b) {
  return (halves){_mm512_add_epi64(a.even, b.even), _mm512_add_epi64(a.odd, b.odd)};
}

LQC_INLINE halves multiply(__m512i y, halves multiplier) {
  return (halves){_mm512_mul_epi32(y, multiplier.even),
                  _mm512_mul_epi32(_mm512_shuffle_epi32(y, _MM_PERM_DDBB), multiplier.odd)};
}

LQC_INLINE uint32_t at_most(halves y, halves thresholds) {
  return _pdep_u32(_mm512_cmple_epi64_mask(y.even, thresholds.even), EVEN) |
         _pdep_u32(_mm512_cmple_epi64_mask(y.odd, thresholds.odd), ODD);
}

/* left: 32 less the shift to the right of odd lanes. */
LQC_INLINE __m512i shift(halves y, __m512i right, __m512i left) {
  return _mm512_mask_blend_epi32(ODD, _mm512_srlv_epi64(y.even, right), _mm512_sllv_epi64(y.odd, left));
}

LQC_INLINE void run_block(const affine_program *program, const lqc_lane_pixels *pixels, size_t channel, __mmask32 lanes,
                          const bool signs) {
  const block_stores *stores = &program->stores;
  const __m512i least = _mm512_set1_epi16(program->relu ? 0 : -INT8_MAX);
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7); /* packs work in quarters of a vector */
  const uint32_t invert = block_invert(stores, channel);
  halves multiplier[VECTORS], offset[VECTORS], half[VECTORS], thresholds[VECTORS];
  __m512i right[VECTORS], left[VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < VECTORS; ++v) {
    const size_t c = channel + v * LANES;
    multiplier[v] = load_halves(program->affine->multiplier, c);
    offset[v] = load_halves(program->affine->offset, c);
    if (stores->integers) {
      halves shifts = load_halves(stores->integers->right, c);
      half[v] = load_halves(stores->integers->half, c);
      right[v] = shifts.even;
      left[v] = _mm512_sub_epi64(_mm512_set1_epi64(32), shifts.odd);
      offset[v] = signs ? offset[v] : add(offset[v], half[v]);
    }
    if (signs) {
      thresholds[v] = load_halves(stores->signs->thresholds, c);
    }
  }
  const uint8_t *values = pixels->values;
  for (uint32_t p = 0; p < pixels->count; ++p, values += pixels->value_bytes) {
    const size_t place = lqc_lane_place(pixels, p);
    uint32_t bits = 0;
    __m512i q[VECTORS];
    LQC_UNROLL
    for (uint32_t v = 0; v < VECTORS; ++v) {
      const size_t c = channel + v * LANES;
      halves y = add(multiply(_mm512_loadu_si512((const int32_t *)values + c), multiplier[v]), offset[v]);
      if (signs) {
        bits |= at_most(y, thresholds[v]) << (v * LANES);
      }
      if (stores->integers) {
        y = signs ? add(y, half[v]) : y;
        q[v] = shift(y, right[v], left[v]);
      }
    }
    if (stores->integers) {
      __m512i words = _mm512_max_epi16(_mm512_permutexvar_epi64(order, _mm512_packs_epi32(q[0], q[1])), least);
      int8_t *out = stores->integers_out + place * stores->integers_bytes + channel;
      _mm256_mask_storeu_epi8(out, lanes, _mm512_cvtsepi16_epi8(words));
    }
    if (signs) {
      store_signs(stores, place, channel, (bits & lanes) ^ invert);
    }
  }
}

bool lqc_fixed_point_affine_avx512(const lqc_lane_program *program, const lqc_lane_pixels *pixels) {
  affine_program found;
  if (!is_affine(program, pixels, &found)) {
    return false;
  }
  const size_t end = channels_of_blocks(program, &found.stores);
  for (size_t channel = 0; channel < end; channel += BLOCK) {
    const __mmask32 lanes = block_lanes(program->channels, channel);
    if (found.stores.signs) {
      run_block(&found, pixels, channel, lanes, true);
    } else {
      run_block(&found, pixels, channel, lanes, false);
    }
  }
  return true;
}
