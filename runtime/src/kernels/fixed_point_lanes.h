/* Fixed point over one type of lanes: LQC_LANE is int32_t or int64_t, LQC_ULANE the same without a sign, and
 * LQC_LANES(name) what a name becomes. Included once for each. Plain loops over channels, one for each step, which
 * compilers turn into vectors. */

#define LQC_DEFINE_COPY(name, type)                                                              \
  static void LQC_LANES(name)(uint32_t channels, LQC_LANE *restrict y, const type *restrict x) { \
    for (uint32_t c = 0; c < channels; ++c) {                                                    \
      y[c] = x[c];                                                                               \
    }                                                                                            \
  }
LQC_DEFINE_COPY(copy_int8, int8_t)
LQC_DEFINE_COPY(copy_int16, int16_t)
LQC_DEFINE_COPY(copy_int32, int32_t)
#undef LQC_DEFINE_COPY

#define LQC_DEFINE_SUMS(name, type)                                                                                \
  static void LQC_LANES(name)(const lqc_lane_pixels *pixels, uint32_t channels, LQC_LANE *restrict y,              \
                              const type *restrict sums) {                                                         \
    int32_t full = pixels->full, limit = pixels->limit, step = pixels->step_log2;                                  \
    int32_t half = step > 0 ? 1 << (step - 1) : 0, right = step > 0 ? step : 0, scale = step < 0 ? 1 << -step : 1; \
    if (limit == 0) {                                                                                              \
      for (uint32_t c = 0; c < channels; ++c) {                                                                    \
        y[c] = full - 2 * (int32_t)sums[c];                                                                        \
      }                                                                                                            \
      return;                                                                                                      \
    }                                                                                                              \
    for (uint32_t c = 0; c < channels; ++c) {                                                                      \
      int32_t rounded = ((full - 2 * (int32_t)sums[c]) * scale + half) >> right;                                   \
      rounded = rounded < limit ? rounded : limit;                                                                 \
      y[c] = rounded > -limit ? rounded : -limit;                                                                  \
    }                                                                                                              \
  }
LQC_DEFINE_SUMS(sums_narrow, uint16_t)
LQC_DEFINE_SUMS(sums_wide, uint32_t)
#undef LQC_DEFINE_SUMS

static void LQC_LANES(begin)(const lqc_lane_pixels *pixels, const void *values, uint32_t channels, LQC_LANE *y) {
  switch (pixels->source) {
  case LQC_LANES_INT8:
    LQC_LANES(copy_int8)(channels, y, values);
    break;
  case LQC_LANES_INT16:
    LQC_LANES(copy_int16)(channels, y, values);
    break;
  case LQC_LANES_INT32:
    LQC_LANES(copy_int32)(channels, y, values);
    break;
  case LQC_LANES_SUMS:
    LQC_LANES(sums_narrow)(pixels, channels, y, values);
    break;
  default:
    LQC_LANES(sums_wide)(pixels, channels, y, values);
    break;
  }
}

/* y * 2^shift, which fits. */
static inline LQC_LANE LQC_LANES(shifted)(LQC_LANE y, LQC_LANE shift) {
  return (LQC_LANE)((LQC_ULANE)y << shift);
}

static void LQC_LANES(do_step)(const lqc_lane_step *step, uint32_t channels, LQC_LANE *restrict y, const void *input) {
  const LQC_LANE *restrict multiplier = step->multiplier;
  const LQC_LANE *restrict offset = step->offset;
  const LQC_LANE *restrict pairs = step->pairs;
  const LQC_LANE y_scale = (LQC_LANE)1 << step->y_log2, x_scale = (LQC_LANE)1 << step->x_log2;
  const LQC_LANE *restrict shift = step->shift;
  const LQC_LANE *restrict operand_shift = step->operand_shift;
  const int8_t *restrict x8 = input;
  const int16_t *restrict x16 = input;
  switch (step->kind) {
  case LQC_LANE_RELU:
    for (uint32_t c = 0; c < channels; ++c) {
      y[c] = y[c] > 0 ? y[c] : 0;
    }
    break;
  case LQC_LANE_AFFINE:
    for (uint32_t c = 0; c < channels; ++c) {
      y[c] = y[c] * multiplier[c] + offset[c];
    }
    break;
  case LQC_LANE_ADD_INT8:
    for (uint32_t c = 0; c < channels; ++c) {
      y[c] = LQC_LANES(shifted)(y[c], shift[c]) + LQC_LANES(shifted)(x8[c], operand_shift[c]);
    }
    break;
  case LQC_LANE_ADD_INT16:
    for (uint32_t c = 0; c < channels; ++c) {
      y[c] = LQC_LANES(shifted)(y[c], shift[c]) + LQC_LANES(shifted)(x16[c], operand_shift[c]);
    }
    break;
  default:
    if (x8 == NULL) {
      for (uint32_t c = 0; c < channels; ++c) {
        y[c] = y[c] * y_scale * (int16_t)pairs[c] + offset[c];
      }
    } else {
      for (uint32_t c = 0; c < channels; ++c) {
        y[c] = y[c] * y_scale * (int16_t)pairs[c] + x8[c] * x_scale * (pairs[c] >> 16) + offset[c];
      }
    }
    break;
  }
}

static inline LQC_LANE LQC_LANES(clip)(LQC_LANE q, LQC_LANE limit) {
  q = q < limit ? q : limit;
  return q > -limit ? q : -limit;
}

/* >> of a negative number is a floor on every compiler this builds with. Clipping before the multiplication by `left`
 * changes nothing, as what it clips would be clipped after it. */
#define LQC_DEFINE_STORE(name, type, limit)                                                               \
  static void LQC_LANES(name)(const lqc_lane_store *store, uint32_t channels, const LQC_LANE *restrict y, \
                              type *restrict out) {                                                       \
    const LQC_LANE *restrict half = store->half;                                                          \
    const LQC_LANE *restrict right = store->right;                                                        \
    const LQC_LANE *restrict left = store->left;                                                          \
    if (left == NULL) {                                                                                   \
      for (uint32_t c = 0; c < channels; ++c) {                                                           \
        out[c] = (type)LQC_LANES(clip)((y[c] + half[c]) >> right[c], limit);                              \
      }                                                                                                   \
    } else {                                                                                              \
      for (uint32_t c = 0; c < channels; ++c) {                                                           \
        LQC_LANE q = LQC_LANES(clip)((y[c] + half[c]) >> right[c], limit);                                \
        out[c] = (type)LQC_LANES(clip)(q * left[c], limit);                                               \
      }                                                                                                   \
    }                                                                                                     \
  }
LQC_DEFINE_STORE(store_int8, int8_t, INT8_MAX)
LQC_DEFINE_STORE(store_int16, int16_t, INT16_MAX)
#undef LQC_DEFINE_STORE

/* One rounding, in the conversion; a product with a power of two is exact, as |y| <= 2^62 and 2^-62 <= scale <= 2^62.
 */
static void LQC_LANES(store_float)(const lqc_lane_store *store, uint32_t channels, const LQC_LANE *restrict y,
                                   float *restrict out) {
  const float *restrict scale = store->scale;
  for (uint32_t c = 0; c < channels; ++c) {
    out[c] = (float)y[c] * scale[c];
  }
}

static void LQC_LANES(store_bits)(const lqc_lane_store *store, uint32_t channels, const LQC_LANE *restrict y,
                                  uint64_t *out) {
  const LQC_LANE *restrict thresholds = store->thresholds;
  for (uint32_t first = 0; first < channels; first += LQC_WORD_BITS) {
    uint32_t bits = lqc_min_u32(channels - first, LQC_WORD_BITS);
    uint8_t bytes[LQC_WORD_BITS] = {0};
    for (uint32_t b = 0; b < bits; ++b) {
      bytes[b] = y[first + b] <= thresholds[first + b];
    }
    *out++ = pack_bytes(bytes) ^ (store->invert ? store->invert[first / LQC_WORD_BITS] : 0);
  }
}

static void LQC_LANES(run_store)(const lqc_lane_store *store, uint32_t channels, const LQC_LANE *y, void *out) {
  switch (store->dtype) {
  case LQC_INT8:
    LQC_LANES(store_int8)(store, channels, y, out);
    break;
  case LQC_INT16:
    LQC_LANES(store_int16)(store, channels, y, out);
    break;
  case LQC_FLOAT32:
    LQC_LANES(store_float)(store, channels, y, out);
    break;
  default:
    LQC_LANES(store_bits)(store, channels, y, out);
    break;
  }
}

static void LQC_LANES(run_program)(const lqc_lane_program *program, const lqc_lane_pixels *pixels, LQC_LANE *y) {
  const uint8_t *values = pixels->values;
  for (uint32_t p = 0; p < pixels->count; ++p, values += pixels->value_bytes) {
    size_t place = lqc_lane_place(pixels, p);
    LQC_LANES(begin)(pixels, values, program->channels, y);
    for (uint32_t i = 0; i < program->step_count; ++i) {
      const lqc_lane_step *step = &program->steps[i];
      uint32_t operand = step->operand;
      const uint8_t *input = operand > 0 ? pixels->inputs[operand] : NULL;
      LQC_LANES(do_step)(step, program->channels, y, input ? input + place * pixels->input_bytes[operand] : NULL);
    }
    for (uint32_t i = 0; i < program->store_count; ++i) {
      uint8_t *out = (uint8_t *)pixels->outputs[i] + place * pixels->output_bytes[i];
      LQC_LANES(run_store)(&program->stores[i], program->channels, y, out);
    }
  }
}
