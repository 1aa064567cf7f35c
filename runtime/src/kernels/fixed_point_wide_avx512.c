/* Fixed point in lanes of 64 bits: 64 channels, or 8 at the end, go through all steps and stores in registers. Arrays
 * of lanes are padded, so whole vectors of them are read; inputs and outputs are read and written through masks. */
#include <immintrin.h>
#include <string.h>

#include "kernels_isa.h"

enum { LANES = 8, MAX_VECTORS = 8 };

/* 8 channels from `channel` on: a mask of those that exist. */
LQC_INLINE __mmask8 lanes_of(size_t channels, size_t channel, const uint32_t vectors) {
  return vectors == MAX_VECTORS
             ? (__mmask8)~0
             : (__mmask8)lqc_low_mask(channels - channel < LANES ? (uint32_t)(channels - channel) : LANES);
}

LQC_INLINE __m512i lanes_at(const void *lanes, size_t channel) {
  return _mm512_loadu_si512((const int64_t *)lanes + channel);
}

LQC_INLINE __m256i int32_at(const void *values, size_t channel) {
  return _mm256_loadu_si256((const __m256i *)((const int32_t *)values + channel));
}

LQC_INLINE __m512i int8_at(const void *values, size_t channel, __mmask8 lanes) {
  return _mm512_cvtepi8_epi64(_mm_maskz_loadu_epi8(lanes, (const int8_t *)values + channel));
}

LQC_INLINE __m512i int16_at(const void *values, size_t channel, __mmask8 lanes) {
  return _mm512_cvtepi16_epi64(_mm_maskz_loadu_epi16(lanes, (const int16_t *)values + channel));
}

/* From popcounts to v. With a clip and step_log2 = s > 0, v before it is, with h = full + 2^(s-1),
 * (h - 2p) >> s = ((h >> 1) - p) >> (s - 1). Else it is full - 2p, shifted to the left. */
typedef struct value_params {
  __m256i full, high, low;
  __m128i right, left;
  int halves, clips;
} value_params;

LQC_INLINE value_params value_params_of(const lqc_lane_pixels *pixels) {
  int32_t step = pixels->step_log2, limit = pixels->limit;
  int halves = limit != 0 && step > 0;
  int32_t full = halves ? (pixels->full + (1 << (step - 1))) >> 1 : pixels->full;
  return (value_params){.full = _mm256_set1_epi32(full),
                        .high = _mm256_set1_epi32(limit),
                        .low = _mm256_set1_epi32(-limit),
                        .right = _mm_cvtsi32_si128(halves ? step - 1 : 0),
                        .left = _mm_cvtsi32_si128(step < 0 ? -step : 0),
                        .halves = halves,
                        .clips = limit != 0};
}

LQC_INLINE __m256i value_of(const value_params *params, __m256i p) {
  __m256i a = _mm256_sub_epi32(params->full, p);
  if (params->halves) {
    a = _mm256_sra_epi32(a, params->right);
  } else {
    a = _mm256_sub_epi32(a, p);
  }
  if (params->clips) {
    a = params->halves ? a : _mm256_sll_epi32(a, params->left);
    a = _mm256_max_epi32(_mm256_min_epi32(a, params->high), params->low);
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
    LQC_BEGIN(_mm512_cvtepi32_epi64(int32_at(values, c)))
  case LQC_LANES_SUMS:
    LQC_BEGIN(_mm512_cvtepi32_epi64(
        value_of(params, _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)((const uint16_t *)values + c))))))
  default:
    LQC_BEGIN(_mm512_cvtepi32_epi64(value_of(params, int32_at(values, c))))
  }
}

LQC_INLINE void do_step(const lqc_lane_step *step, const void *input, size_t channels, size_t channel,
                        const uint32_t vectors, int first, __m512i *y) {
  switch (step->kind) {
  case LQC_LANE_RELU:
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      y[v] = _mm512_max_epi64(y[v], _mm512_setzero_si512());
    }
    break;
  case LQC_LANE_AFFINE:
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      size_t c = channel + v * LANES;
      __m512i m = lanes_at(step->multiplier, c);
      /* What starts fits 32 bits, as multipliers do: a product of halves, a third of the work. */
      __m512i product = first ? _mm512_mul_epi32(y[v], m) : _mm512_mullo_epi64(y[v], m);
      y[v] = _mm512_add_epi64(product, lanes_at(step->offset, c));
    }
    break;
  default:
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      size_t c = channel + v * LANES;
      __mmask8 lanes = lanes_of(channels, c, vectors);
      __m512i x = step->kind == LQC_LANE_ADD_INT8 ? int8_at(input, c, lanes) : int16_at(input, c, lanes);
      y[v] = _mm512_add_epi64(_mm512_sllv_epi64(y[v], lanes_at(step->shift, c)),
                              _mm512_sllv_epi64(x, lanes_at(step->operand_shift, c)));
    }
    break;
  }
}

LQC_INLINE __m512i shifted(const lqc_lane_store *store, size_t c, __m512i y) {
  return _mm512_srav_epi64(_mm512_add_epi64(y, lanes_at(store->half, c)), lanes_at(store->right, c));
}

LQC_INLINE __m512i clipped(const lqc_lane_store *store, size_t c, __m512i q, int64_t limit) {
  const __m512i high = _mm512_set1_epi64(limit), low = _mm512_set1_epi64(-limit);
  q = _mm512_max_epi64(_mm512_min_epi64(q, high), low);
  if (store->left) {
    q = _mm512_mullo_epi64(q, lanes_at(store->left, c));
    q = _mm512_max_epi64(_mm512_min_epi64(q, high), low);
  }
  return q;
}

/* 64 channels to int8 by saturating conversions, which also take -128. Packs work in quarters of a vector, whose order
 * is then put right. */
LQC_INLINE void store_64_bytes(int8_t *out, const __m512i *wide) {
  __m512i q[MAX_VECTORS / 2];
  LQC_UNROLL
  for (uint32_t v = 0; v < MAX_VECTORS / 2; ++v) {
    __m256i low = _mm512_cvtsepi64_epi32(wide[2 * v]), high = _mm512_cvtsepi64_epi32(wide[2 * v + 1]);
    q[v] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  bytes = _mm512_max_epi8(bytes, _mm512_set1_epi8(-INT8_MAX));
  _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, bytes));
}

LQC_INLINE void store_int8(const lqc_lane_store *store, int8_t *out, size_t channels, size_t channel,
                           const uint32_t vectors, const __m512i *y) {
  if (vectors == 1) {
    _mm512_mask_cvtepi64_storeu_epi8(out + channel, lanes_of(channels, channel, vectors),
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
    __mmask8 below = _mm512_mask_cmple_epi64_mask(lanes_of(channels, c, vectors), y[v], lanes_at(store->thresholds, c));
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
    __mmask8 lanes = lanes_of(channels, c, vectors);
    if (store->dtype == LQC_INT16) {
      _mm512_mask_cvtepi64_storeu_epi16((int16_t *)out + c, lanes,
                                        clipped(store, c, shifted(store, c, y[v]), INT16_MAX));
    } else {
      _mm256_mask_storeu_ps((float *)out + c, lanes,
                            _mm256_mul_ps(_mm512_cvtepi64_ps(y[v]), _mm256_loadu_ps(store->scale + c)));
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
    do_step(step, input, program->channels, channel, vectors, i == 0, y);
  }
  for (uint32_t i = 0; i < program->store_count; ++i) {
    uint8_t *out = (uint8_t *)pixels->outputs[i] + place * pixels->output_bytes[i];
    do_store(&program->stores[i], out, program->channels, channel, vectors, y);
  }
}

/* The last block of a pixel: 8 channels at a time. */
static void run_tail(const lqc_lane_program *program, const lqc_lane_pixels *pixels, const value_params *params,
                     uint32_t pixel, size_t place, size_t channel) {
  for (uint32_t i = 0; i < program->store_count; ++i) { /* bits are written 8 at a time, a word has 64 */
    if (program->stores[i].dtype == LQC_BIT) {
      uint8_t *out = (uint8_t *)pixels->outputs[i] + place * pixels->output_bytes[i];
      memset(out + channel / 8, 0, sizeof(uint64_t));
    }
  }
  for (; channel < program->channels; channel += LANES) {
    run_block(program, pixels, params, pixel, place, channel, 1);
  }
}

void lqc_fixed_point_wide_avx512(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch) {
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
