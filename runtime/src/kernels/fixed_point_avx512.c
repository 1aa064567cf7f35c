/* Fixed point in lanes of 32 bits: 64 channels, or 16 at the end, go through all steps and stores in registers. Arrays
 * of lanes are padded, so whole vectors of them are read; inputs and outputs are read and written through masks. */
#include <immintrin.h>
#include <string.h>

#include "kernels_isa.h"

enum { LANES = 16, MAX_VECTORS = 4 };

/* 16 channels from `channel` on: a mask of those that exist. */
LQC_INLINE __mmask16 lanes_of(size_t channels, size_t channel, const uint32_t vectors) {
  return vectors == MAX_VECTORS
             ? (__mmask16)~0
             : (__mmask16)lqc_low_mask(channels - channel < LANES ? (uint32_t)(channels - channel) : LANES);
}

LQC_INLINE __m512i lanes_at(const void *lanes, size_t channel) {
  return _mm512_loadu_si512((const int32_t *)lanes + channel);
}

LQC_INLINE __m512i int8_at(const void *values, size_t channel, __mmask16 lanes) {
  return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, (const int8_t *)values + channel));
}

LQC_INLINE __m512i int16_at(const void *values, size_t channel, __mmask16 lanes) {
  return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(lanes, (const int16_t *)values + channel));
}

/* From popcounts to v. With a clip and step_log2 = s > 0, v before it is, with h = full + 2^(s-1),
 * (h - 2p) >> s = ((h >> 1) - p) >> (s - 1). Else it is full - 2p, shifted to the left. */
typedef struct value_params {
  __m512i full, high, low;
  __m128i right, left;
  int halves, clips;
} value_params;

LQC_INLINE value_params value_params_of(const lqc_lane_pixels *pixels) {
  int32_t step = pixels->step_log2, limit = pixels->limit;
  int halves = limit != 0 && step > 0;
  int32_t full = halves ? (pixels->full + (1 << (step - 1))) >> 1 : pixels->full;
  return (value_params){.full = _mm512_set1_epi32(full),
                        .high = _mm512_set1_epi32(limit),
                        .low = _mm512_set1_epi32(-limit),
                        .right = _mm_cvtsi32_si128(halves ? step - 1 : 0),
                        .left = _mm_cvtsi32_si128(step < 0 ? -step : 0),
                        .halves = halves,
                        .clips = limit != 0};
}

LQC_INLINE __m512i value_of(const value_params *params, __m512i p) {
  __m512i a = _mm512_sub_epi32(params->full, p);
  if (params->halves) {
    a = _mm512_sra_epi32(a, params->right);
  } else {
    a = _mm512_sub_epi32(a, p);
  }
  if (params->clips) {
    a = params->halves ? a : _mm512_sll_epi32(a, params->left);
    a = _mm512_max_epi32(_mm512_min_epi32(a, params->high), params->low);
  }
  return a;
}

#define LQC_BEGIN(value)                   \
  LQC_UNROLL                               \
  for (uint32_t v = 0; v < vectors; ++v) { \
    size_t c = channel + v * LANES;        \
    y[v] = (value);                        \
  }                                        \
  break;

LQC_INLINE void begin(const lqc_lane_pixels *pixels, const value_params *params, const void *values, size_t channels,
                      size_t channel, const uint32_t vectors, __m512i *y) {
  switch (pixels->source) {
  case LQC_LANES_INT8:
    LQC_BEGIN(int8_at(values, c, lanes_of(channels, c, vectors)))
  case LQC_LANES_INT16:
    LQC_BEGIN(int16_at(values, c, lanes_of(channels, c, vectors)))
  case LQC_LANES_INT32:
    LQC_BEGIN(lanes_at(values, c))
  case LQC_LANES_SUMS:
    LQC_BEGIN(
        value_of(params, _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)((const uint16_t *)values + c)))))
  default:
    LQC_BEGIN(value_of(params, lanes_at(values, c)))
  }
}

LQC_INLINE void do_step(const lqc_lane_step *step, const void *input, size_t channels, size_t channel,
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
      size_t c = channel + v * LANES;
      y[v] = _mm512_add_epi32(_mm512_mullo_epi32(y[v], lanes_at(step->multiplier, c)), lanes_at(step->offset, c));
    }
    break;
  case LQC_LANE_PAIR: { /* low half y, high half x: VPDPWSSD multiplies both and adds */
    const __m128i y_log2 = _mm_cvtsi32_si128(step->y_log2), x_log2 = _mm_cvtsi32_si128(16 + step->x_log2);
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      size_t c = channel + v * LANES;
      __m512i pair = _mm512_setzero_si512();
      if (input) {
        pair = _mm512_sll_epi32(int8_at(input, c, lanes_of(channels, c, vectors)), x_log2);
      }
      pair = _mm512_mask_sll_epi16(pair, 0x55555555u, y[v], y_log2);
      y[v] = _mm512_dpwssd_epi32(lanes_at(step->offset, c), pair, lanes_at(step->pairs, c));
    }
    break;
  }
  default:
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      size_t c = channel + v * LANES;
      __mmask16 lanes = lanes_of(channels, c, vectors);
      __m512i x = step->kind == LQC_LANE_ADD_INT8 ? int8_at(input, c, lanes) : int16_at(input, c, lanes);
      y[v] = _mm512_add_epi32(_mm512_sllv_epi32(y[v], lanes_at(step->shift, c)),
                              _mm512_sllv_epi32(x, lanes_at(step->operand_shift, c)));
    }
    break;
  }
}

LQC_INLINE __m512i shifted(const lqc_lane_store *store, size_t c, __m512i y) {
  return _mm512_srav_epi32(_mm512_add_epi32(y, lanes_at(store->half, c)), lanes_at(store->right, c));
}

LQC_INLINE __m512i clipped(const lqc_lane_store *store, size_t c, __m512i q, int32_t limit) {
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

LQC_INLINE void store_int8(const lqc_lane_store *store, int8_t *out, size_t channels, size_t channel,
                           const uint32_t vectors, const __m512i *y) {
  if (vectors == 1) {
    _mm512_mask_cvtepi32_storeu_epi8(out + channel, lanes_of(channels, channel, vectors),
                                     clipped(store, channel, shifted(store, channel, y[0]), INT8_MAX));
    return;
  }
  __m512i q[MAX_VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    size_t c = channel + v * LANES;
    q[v] = shifted(store, c, y[v]);
    if (store->left) {
      q[v] = clipped(store, c, q[v], INT8_MAX);
    }
  }
  store_64_bytes(out + channel, q);
}

LQC_INLINE void store_bits(const lqc_lane_store *store, uint8_t *out, size_t channels, size_t channel,
                           const uint32_t vectors, const __m512i *y) {
  uint64_t bits = 0;
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    size_t c = channel + v * LANES;
    __mmask16 below =
        _mm512_mask_cmple_epi32_mask(lanes_of(channels, c, vectors), y[v], lanes_at(store->thresholds, c));
    bits |= (uint64_t)below << (v * LANES);
  }
  if (store->invert) {
    bits ^= store->invert[channel / LQC_WORD_BITS] >> (channel % LQC_WORD_BITS);
  }
  memcpy(out + channel / 8, &bits, vectors * LANES / 8);
}

LQC_INLINE void do_store(const lqc_lane_store *store, void *out, size_t channels, size_t channel,
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
    size_t c = channel + v * LANES;
    __mmask16 lanes = lanes_of(channels, c, vectors);
    if (store->dtype == LQC_INT16) {
      _mm512_mask_cvtepi32_storeu_epi16((int16_t *)out + c, lanes,
                                        clipped(store, c, shifted(store, c, y[v]), INT16_MAX));
    } else {
      _mm512_mask_storeu_ps((float *)out + c, lanes,
                            _mm512_mul_ps(_mm512_cvtepi32_ps(y[v]), _mm512_loadu_ps(store->scale + c)));
    }
  }
}

LQC_INLINE void run_block(const lqc_lane_program *program, const lqc_lane_pixels *pixels, const value_params *params,
                          uint32_t pixel, size_t place, size_t channel, const uint32_t vectors) {
  __m512i y[MAX_VECTORS];
  const uint8_t *values = (const uint8_t *)pixels->values + pixel * pixels->value_bytes;
  begin(pixels, params, values, program->channels, channel, vectors, y);
  for (uint32_t i = 0; i < program->step_count; ++i) {
    const lqc_lane_step *step = &program->steps[i];
    const uint8_t *input = step->operand > 0 ? pixels->inputs[step->operand] : NULL;
    input = input ? input + place * pixels->input_bytes[step->operand] : NULL;
    do_step(step, input, program->channels, channel, vectors, y);
  }
  for (uint32_t i = 0; i < program->store_count; ++i) {
    uint8_t *out = (uint8_t *)pixels->outputs[i] + place * pixels->output_bytes[i];
    do_store(&program->stores[i], out, program->channels, channel, vectors, y);
  }
}

/* The last block of a pixel: 16 channels at a time. */
static void run_tail(const lqc_lane_program *program, const lqc_lane_pixels *pixels, const value_params *params,
                     uint32_t pixel, size_t place, size_t channel) {
  for (uint32_t i = 0; i < program->store_count; ++i) { /* bits are written 16 at a time, a word has 64 */
    if (program->stores[i].dtype == LQC_BIT) {
      uint8_t *out = (uint8_t *)pixels->outputs[i] + place * pixels->output_bytes[i];
      memset(out + channel / 8, 0, sizeof(uint64_t));
    }
  }
  for (; channel < program->channels; channel += LANES) {
    run_block(program, pixels, params, pixel, place, channel, 1);
  }
}

void lqc_fixed_point_avx512(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch) {
  const value_params params = value_params_of(pixels);
  (void)scratch;
  for (uint32_t p = 0; p < pixels->count; ++p) {
    size_t place = lqc_lane_place(pixels, p);
    size_t channel = 0;
    for (; program->channels - channel >= MAX_VECTORS * LANES; channel += MAX_VECTORS * LANES) {
      run_block(program, pixels, &params, p, place, channel, MAX_VECTORS);
    }
    if (channel < program->channels) {
      run_tail(program, pixels, &params, p, place, channel);
    }
  }
}
