/* Fixed point in 512-bit vectors of lanes: 64 channels, or a vector of them at the end, go through all steps and stores
 * in registers. Arrays of lanes are padded, so whole vectors of them are read; inputs and outputs are read and written
 * through masks.
 *
 * Included once by the file of each width of lanes, which defines before
 *   LQC_LANE, LQC_MASK                a lane's type, and that of a mask of a vector of them
 *   LANES, MAX_VECTORS                lanes of a vector, vectors of 64 channels
 *   LQC_OP(op)                        the intrinsic of op over lanes
 *   LQC_VALUE, LQC_VALUE_OP(op)       a vector of LANES sums in 32 bits, and the intrinsic of op over it
 *   load_16(), load_32(), widen()     sums of 16 and 32 bits, and lanes from sums
 *   signed_16()                       lanes from int16 under a mask
 *   multiply(), multiply_pair()       steps AFFINE and PAIR
 *   at_most()                         mask of y <= threshold
 *   store_8(), store_16(), store_f32()  a vector, narrowed, under a mask
 *   store_64_bytes()                  64 channels, clipped to +-127
 * Private to kernels/. */
/* A vector of channels from `channel` on: a mask of those that exist. */
LQC_INLINE LQC_MASK lanes_of(size_t channels, size_t channel, const uint32_t vectors) {
  return vectors == MAX_VECTORS
             ? (LQC_MASK)~0
             : (LQC_MASK)lqc_low_mask(channels - channel < LANES ? (uint32_t)(channels - channel) : LANES);
}

LQC_INLINE __m512i lanes_at(const void *lanes, size_t channel) {
  return _mm512_loadu_si512((const LQC_LANE *)lanes + channel);
}

LQC_INLINE __m512i int8_at(const void *values, size_t channel, LQC_MASK lanes) {
  return LQC_OP(cvtepi8)(_mm_maskz_loadu_epi8(lanes, (const int8_t *)values + channel));
}

/* From popcounts to v. With a clip and step_log2 = s > 0, v before it is, with h = full + 2^(s-1),
 * (h - 2p) >> s = ((h >> 1) - p) >> (s - 1). Else it is full - 2p, shifted to the left. */
typedef struct value_params {
  LQC_VALUE full, high, low;
  __m128i right, left;
  int halves, clips;
} value_params;

LQC_INLINE value_params value_params_of(const lqc_lane_pixels *pixels) {
  int32_t step = pixels->step_log2, limit = pixels->limit;
  int halves = limit != 0 && step > 0;
  int32_t full = halves ? (pixels->full + (1 << (step - 1))) >> 1 : pixels->full;
  return (value_params){.full = LQC_VALUE_OP(set1)(full),
                        .high = LQC_VALUE_OP(set1)(limit),
                        .low = LQC_VALUE_OP(set1)(-limit),
                        .right = _mm_cvtsi32_si128(halves ? step - 1 : 0),
                        .left = _mm_cvtsi32_si128(step < 0 ? -step : 0),
                        .halves = halves,
                        .clips = limit != 0};
}

LQC_INLINE LQC_VALUE value_of(const value_params *params, LQC_VALUE p) {
  LQC_VALUE a = LQC_VALUE_OP(sub)(params->full, p);
  if (params->halves) {
    a = LQC_VALUE_OP(sra)(a, params->right);
  } else {
    a = LQC_VALUE_OP(sub)(a, p);
  }
  if (params->clips) {
    a = params->halves ? a : LQC_VALUE_OP(sll)(a, params->left);
    a = LQC_VALUE_OP(max)(LQC_VALUE_OP(min)(a, params->high), params->low);
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
    LQC_BEGIN(signed_16(lanes_of(channels, c, vectors), (const int16_t *)values + c))
  case LQC_LANES_INT32:
    LQC_BEGIN(widen(load_32((const int32_t *)values + c)))
  case LQC_LANES_SUMS:
    LQC_BEGIN(widen(value_of(params, load_16((const uint16_t *)values + c))))
  default:
    LQC_BEGIN(widen(value_of(params, load_32((const int32_t *)values + c))))
  }
}

LQC_INLINE void do_step(const lqc_lane_step *step, const void *input, size_t channels, size_t channel,
                        const uint32_t vectors, bool first, __m512i *y) {
  switch (step->kind) {
  case LQC_LANE_RELU:
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      y[v] = LQC_OP(max)(y[v], _mm512_setzero_si512());
    }
    break;
  case LQC_LANE_AFFINE:
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      size_t c = channel + v * LANES;
      y[v] = LQC_OP(add)(multiply(y[v], lanes_at(step->multiplier, c), first), lanes_at(step->offset, c));
    }
    break;
  case LQC_LANE_PAIR:
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      size_t c = channel + v * LANES;
      __m512i x = input ? int8_at(input, c, lanes_of(channels, c, vectors)) : _mm512_setzero_si512();
      y[v] = multiply_pair(step, y[v], x, lanes_at(step->pairs, c), lanes_at(step->offset, c));
    }
    break;
  default:
    LQC_UNROLL
    for (uint32_t v = 0; v < vectors; ++v) {
      size_t c = channel + v * LANES;
      LQC_MASK lanes = lanes_of(channels, c, vectors);
      __m512i x =
          step->kind == LQC_LANE_ADD_INT8 ? int8_at(input, c, lanes) : signed_16(lanes, (const int16_t *)input + c);
      y[v] =
          LQC_OP(add)(LQC_OP(sllv)(y[v], lanes_at(step->shift, c)), LQC_OP(sllv)(x, lanes_at(step->operand_shift, c)));
    }
    break;
  }
}

LQC_INLINE __m512i shifted(const lqc_lane_store *store, size_t c, __m512i y) {
  return LQC_OP(srav)(LQC_OP(add)(y, lanes_at(store->half, c)), lanes_at(store->right, c));
}

LQC_INLINE __m512i clipped(const lqc_lane_store *store, size_t c, __m512i q, LQC_LANE limit) {
  const __m512i high = LQC_OP(set1)(limit), low = LQC_OP(set1)(-limit);
  q = LQC_OP(max)(LQC_OP(min)(q, high), low);
  if (store->left) {
    q = LQC_OP(mullo)(q, lanes_at(store->left, c));
    q = LQC_OP(max)(LQC_OP(min)(q, high), low);
  }
  return q;
}

LQC_INLINE void store_int8(const lqc_lane_store *store, int8_t *out, size_t channels, size_t channel,
                           const uint32_t vectors, const __m512i *y) {
  if (vectors == 1) {
    store_8(out + channel, lanes_of(channels, channel, vectors),
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
    LQC_MASK below = at_most(lanes_of(channels, c, vectors), y[v], lanes_at(store->thresholds, c));
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
    LQC_MASK lanes = lanes_of(channels, c, vectors);
    if (store->dtype == LQC_INT16) {
      store_16((int16_t *)out + c, lanes, clipped(store, c, shifted(store, c, y[v]), INT16_MAX));
    } else {
      store_f32((float *)out + c, lanes, y[v], store->scale + c);
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

/* The last block of a pixel: a vector of channels at a time. */
static void run_tail(const lqc_lane_program *program, const lqc_lane_pixels *pixels, const value_params *params,
                     uint32_t pixel, size_t place, size_t channel) {
  for (uint32_t i = 0; i < program->store_count; ++i) { /* bits are written a vector at a time, a word has 64 */
    if (program->stores[i].dtype == LQC_BIT) {
      uint8_t *out = (uint8_t *)pixels->outputs[i] + place * pixels->output_bytes[i];
      memset(out + channel / 8, 0, sizeof(uint64_t));
    }
  }
  for (; channel < program->channels; channel += LANES) {
    run_block(program, pixels, params, pixel, place, channel, 1);
  }
}

static void run_program(const lqc_lane_program *program, const lqc_lane_pixels *pixels) {
  const value_params params = value_params_of(pixels);
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
