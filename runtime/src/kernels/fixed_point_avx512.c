/* Fixed point in lanes of 32 bits: 64 channels, or 16 at the end, go through all steps and stores in registers. Arrays
 * of lanes are padded, so whole vectors of them are read; inputs and outputs are read and written through masks. */
#include <immintrin.h>
#include <string.h>

#include "kernels_isa.h"

enum { LANES = 16, MAX_VECTORS = 4 };

/* 16 channels from `channel` on: a mask of those that exist. */
LQC_INLINE __mmask16 lanes_of(uint32_t channels, uint32_t channel) {
  return channel < channels ? (__mmask16)lqc_low_mask(lqc_min_u32(channels - channel, LANES)) : 0;
}

LQC_INLINE __m512i lanes_at(const void *lanes, uint32_t channel) {
  return _mm512_loadu_si512((const int32_t *)lanes + channel);
}

LQC_INLINE __m512i int8_at(const void *values, uint32_t channel, __mmask16 lanes) {
  return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, (const int8_t *)values + channel));
}

LQC_INLINE __m512i int16_at(const void *values, uint32_t channel, __mmask16 lanes) {
  return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(lanes, (const int16_t *)values + channel));
}

/* From popcounts to v, as lqc_lane_start says. */
LQC_INLINE __m512i value_of(const lqc_lane_start *start, __m512i p) {
  int32_t step = start->step_log2;
  __m512i a = _mm512_sub_epi32(_mm512_set1_epi32(start->full), _mm512_add_epi32(p, p));
  if (start->limit == 0) {
    return a;
  }
  if (step > 0) {
    a = _mm512_add_epi32(a, _mm512_set1_epi32(1 << (step - 1)));
    a = _mm512_sra_epi32(a, _mm_cvtsi32_si128(step));
  } else {
    a = _mm512_sll_epi32(a, _mm_cvtsi32_si128(-step));
  }
  a = _mm512_min_epi32(a, _mm512_set1_epi32(start->limit));
  return _mm512_max_epi32(a, _mm512_set1_epi32(-start->limit));
}

LQC_INLINE void begin(const lqc_lane_start *start, uint32_t channels, uint32_t channel, const uint32_t vectors,
                      __m512i *y) {
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    uint32_t c = channel + v * LANES;
    switch (start->source) {
    case LQC_LANES_INT8:
      y[v] = int8_at(start->values, c, lanes_of(channels, c));
      break;
    case LQC_LANES_INT16:
      y[v] = int16_at(start->values, c, lanes_of(channels, c));
      break;
    case LQC_LANES_INT32:
      y[v] = lanes_at(start->values, c);
      break;
    case LQC_LANES_SUMS:
      y[v] = value_of(
          start, _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)((const uint16_t *)start->values + c))));
      break;
    default:
      y[v] = value_of(start, lanes_at(start->values, c));
      break;
    }
  }
}

LQC_INLINE void do_step(const lqc_lane_step *step, const void *input, uint32_t channels, uint32_t channel,
                        const uint32_t vectors, __m512i *y) {
  switch (step->kind) {
  case LQC_LANE_RELU:
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      y[v] = _mm512_max_epi32(y[v], _mm512_setzero_si512());
    }
    break;
  case LQC_LANE_AFFINE:
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      uint32_t c = channel + v * LANES;
      y[v] = _mm512_add_epi32(_mm512_mullo_epi32(y[v], lanes_at(step->multiplier, c)), lanes_at(step->offset, c));
    }
    break;
  default:
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      uint32_t c = channel + v * LANES;
      __mmask16 lanes = lanes_of(channels, c);
      __m512i x = step->kind == LQC_LANE_ADD_INT8 ? int8_at(input, c, lanes) : int16_at(input, c, lanes);
      y[v] = _mm512_add_epi32(_mm512_sllv_epi32(y[v], lanes_at(step->shift, c)),
                              _mm512_sllv_epi32(x, lanes_at(step->operand_shift, c)));
    }
    break;
  }
}

LQC_INLINE __m512i shifted(const lqc_lane_store *store, uint32_t c, __m512i y) {
  return _mm512_srav_epi32(_mm512_add_epi32(y, lanes_at(store->half, c)), lanes_at(store->right, c));
}

LQC_INLINE __m512i clipped(const lqc_lane_store *store, uint32_t c, __m512i q, int32_t limit) {
  const __m512i high = _mm512_set1_epi32(limit), low = _mm512_set1_epi32(-limit);
  q = _mm512_max_epi32(_mm512_min_epi32(q, high), low);
  if (store->left) {
    q = _mm512_mullo_epi32(q, lanes_at(store->left, c));
    q = _mm512_max_epi32(_mm512_min_epi32(q, high), low);
  }
  return q;
}

/* 64 channels to int8 by saturating packs, which also take -128; they work in quarters of a vector, whose order is then
 * put right. */
LQC_INLINE void store_64_bytes(int8_t *out, const __m512i *q) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  bytes = _mm512_max_epi8(bytes, _mm512_set1_epi8(-INT8_MAX));
  _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, bytes));
}

LQC_INLINE void store_int8(const lqc_lane_store *store, int8_t *out, uint32_t channels, uint32_t channel,
                           const uint32_t vectors, const __m512i *y) {
  if (vectors == 1) {
    _mm512_mask_cvtepi32_storeu_epi8(out + channel, lanes_of(channels, channel),
                                     clipped(store, channel, shifted(store, channel, y[0]), INT8_MAX));
    return;
  }
  __m512i q[MAX_VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    uint32_t c = channel + v * LANES;
    q[v] = shifted(store, c, y[v]);
    if (store->left) {
      q[v] = clipped(store, c, q[v], INT8_MAX);
    }
  }
  store_64_bytes(out + channel, q);
}

LQC_INLINE void store_bits(const lqc_lane_store *store, uint8_t *out, uint32_t channels, uint32_t channel,
                           const uint32_t vectors, const __m512i *y) {
  uint64_t bits = 0;
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    uint32_t c = channel + v * LANES;
    __mmask16 below = _mm512_mask_cmple_epi32_mask(lanes_of(channels, c), y[v], lanes_at(store->thresholds, c));
    bits |= (uint64_t)below << (v * LANES);
  }
  if (store->invert) {
    bits ^= store->invert[channel / LQC_WORD_BITS] >> (channel % LQC_WORD_BITS);
  }
  memcpy(out + channel / 8, &bits, vectors * LANES / 8);
}

LQC_INLINE void do_store(const lqc_lane_store *store, void *out, uint32_t channels, uint32_t channel,
                         const uint32_t vectors, const __m512i *y) {
  if (store->dtype == LQC_INT8) {
    store_int8(store, out, channels, channel, vectors, y);
    return;
  }
  if (store->dtype == LQC_BIT) {
    store_bits(store, out, channels, channel, vectors, y);
    return;
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    uint32_t c = channel + v * LANES;
    __mmask16 lanes = lanes_of(channels, c);
    if (store->dtype == LQC_INT16) {
      _mm512_mask_cvtepi32_storeu_epi16((int16_t *)out + c, lanes,
                                        clipped(store, c, shifted(store, c, y[v]), INT16_MAX));
    } else {
      _mm512_mask_storeu_ps((float *)out + c, lanes,
                            _mm512_mul_ps(_mm512_cvtepi32_ps(y[v]), _mm512_loadu_ps(store->scale + c)));
    }
  }
}

LQC_INLINE void run_block(const lqc_lane_program *program, const lqc_lane_start *start, const void *const *inputs,
                          void *const *outputs, uint32_t channel, const uint32_t vectors) {
  __m512i y[MAX_VECTORS];
  begin(start, program->channels, channel, vectors, y);
  for (uint32_t i = 0; i < program->step_count; ++i) {
    const lqc_lane_step *step = &program->steps[i];
    do_step(step, inputs[step->operand], program->channels, channel, vectors, y);
  }
  for (uint32_t i = 0; i < program->store_count; ++i) {
    do_store(&program->stores[i], outputs[i], program->channels, channel, vectors, y);
  }
}

void lqc_fixed_point_avx512(const lqc_lane_program *program, const lqc_lane_start *start, const void *const *inputs,
                            void *const *outputs, void *scratch) {
  uint32_t channel = 0;
  (void)scratch;
  for (; program->channels - channel >= MAX_VECTORS * LANES; channel += MAX_VECTORS * LANES) {
    run_block(program, start, inputs, outputs, channel, MAX_VECTORS);
  }
  if (channel == program->channels) {
    return;
  }
  for (uint32_t i = 0; i < program->store_count; ++i) { /* bits are written 16 at a time, a word has 64 */
    if (program->stores[i].dtype == LQC_BIT) {
      ((uint64_t *)outputs[i])[channel / LQC_WORD_BITS] = 0;
    }
  }
  for (; channel < program->channels; channel += LANES) {
    run_block(program, start, inputs, outputs, channel, 1);
  }
}
