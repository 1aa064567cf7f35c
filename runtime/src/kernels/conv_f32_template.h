/* float32 convolution. Included once for each instruction set, which its compiler options choose; LQC_ISA(name) is what
 * a name becomes, LQC_VECTOR the floats of a vector, and LQC_PIXELS x LQC_VECTORS the sums that stay in registers:
 * enough of them to hide how long an addition takes, as each sum is one chain. LQC_PIXELS is 2, 4 or 8. Where compilers
 * make no vectors of this arithmetic, LQC_OWN_ARITHMETIC is 1, and multiply_add(), store_sums(), finish() and add_tap()
 * are there already; where not all tiles may be computed so, LQC_TAKES(tile) says which. */
#include <string.h>

#include "kernels_isa.h"

typedef float wide __attribute__((vector_size(4 * LQC_VECTOR)));
typedef float narrow __attribute__((vector_size(16)));

#if !LQC_OWN_ARITHMETIC
#  define multiply_add(sum, x, w) ((sum) + (x) * (w))
#  define store_sums(out, sums, count) memcpy(out, sums, (count) * sizeof(*(sums)))

/* `count` neighbours in memory: sums + bias, clipped. */
LQC_INLINE void finish(const lqc_conv_tile *t, float *out, uint32_t first, uint32_t count) {
  for (uint32_t c = 0; c < count; ++c) {
    float sum = t->bias ? out[c] + t->bias[first + c] : out[c];
    sum = sum < t->low ? t->low : sum;
    out[c] = sum > t->high ? t->high : sum;
  }
}

/* The products of one tap; a pixel of the output is in the first cache. */
static void add_tap(float *restrict sums, const float *restrict x, const float *restrict w, uint32_t channels) {
  for (uint32_t c = 0; c < channels; ++c) {
    sums[c] += x[c] * w[c];
  }
}
#endif

/* Defines NAME(t, p, pixels, first): channels [first, first + vectors * lanes of the type) of output pixels
 * [p, p + pixels). Inlined with constants, so that the sums stay in registers. */
#define LQC_DEFINE_TILE(name, type, vectors)                                                        \
  LQC_INLINE void name(const lqc_conv_tile *t, size_t p, uint32_t pixels, uint32_t first) {         \
    enum { LANES = sizeof(type) / sizeof(float) };                                                  \
    type sums[LQC_PIXELS][vectors] = {{{0}}};                                                       \
    for (uint32_t i = 0; i < t->rows; ++i) {                                                        \
      for (uint32_t j = 0; j < t->columns; ++j) {                                                   \
        const float *x = t->input + i * t->row_stride + j * t->column_stride + p * t->pixel_stride; \
        const float *w = t->weights + i * t->row_weights + j * t->column_weights + first;           \
        for (uint32_t k = 0; k < t->depth; ++k, w += t->weight_stride) {                            \
          LQC_UNROLL                                                                                \
          for (uint32_t v = 0; v < (vectors); ++v) {                                                \
            type weight;                                                                            \
            memcpy(&weight, w + v * LANES, sizeof(weight));                                         \
            LQC_UNROLL                                                                              \
            for (uint32_t q = 0; q < pixels; ++q) {                                                 \
              sums[q][v] = multiply_add(sums[q][v], x[q * t->pixel_stride + k], weight);            \
            }                                                                                       \
          }                                                                                         \
        }                                                                                           \
      }                                                                                             \
    }                                                                                               \
    LQC_UNROLL                                                                                      \
    for (uint32_t q = 0; q < pixels; ++q) {                                                         \
      float *out = t->out + (p + q) * t->out_stride + first;                                        \
      store_sums(out, sums[q], vectors);                                                            \
      finish(t, out, first, (vectors) * LANES);                                                     \
    }                                                                                               \
  }
LQC_DEFINE_TILE(wide_tile, wide, LQC_VECTORS)
#if LQC_VECTOR > 4
LQC_DEFINE_TILE(single_tile, wide, 1)
#endif
LQC_DEFINE_TILE(narrow_tile, narrow, 1)

static void one_channel(const lqc_conv_tile *t, size_t p, uint32_t channel) {
  float sum = 0.0f;
  for (uint32_t i = 0; i < t->rows; ++i) {
    for (uint32_t j = 0; j < t->columns; ++j) {
      const float *x = t->input + i * t->row_stride + j * t->column_stride + p * t->pixel_stride;
      const float *w = t->weights + i * t->row_weights + j * t->column_weights + channel;
      for (uint32_t k = 0; k < t->depth; ++k, w += t->weight_stride) {
        sum += x[k] * *w;
      }
    }
  }
  float *out = t->out + p * t->out_stride + channel;
  *out = sum;
  finish(t, out, channel, 1);
}

/* Defines NAME(t, first): the channels of a tile of all pixels, as many at once as there are. */
#define LQC_DEFINE_BLOCK(name, tile)                         \
  static void name(const lqc_conv_tile *t, uint32_t first) { \
    size_t p = 0;                                            \
    for (; p + LQC_PIXELS <= t->pixels; p += LQC_PIXELS) {   \
      tile(t, p, LQC_PIXELS, first);                         \
    }                                                        \
    if (LQC_PIXELS > 4 && p + 4 <= t->pixels) {              \
      tile(t, p, LQC_PIXELS > 4 ? 4 : 1, first);             \
      p += 4;                                                \
    }                                                        \
    if (LQC_PIXELS > 2 && p + 2 <= t->pixels) {              \
      tile(t, p, LQC_PIXELS > 2 ? 2 : 1, first);             \
      p += 2;                                                \
    }                                                        \
    if (p < t->pixels) {                                     \
      tile(t, p, 1, first);                                  \
    }                                                        \
  }
LQC_DEFINE_BLOCK(wide_block, wide_tile)
#if LQC_VECTOR > 4
LQC_DEFINE_BLOCK(single_block, single_tile)
#endif
LQC_DEFINE_BLOCK(narrow_block, narrow_tile)

void LQC_ISA(lqc_conv_f32)(const lqc_conv_tile *t) {
#ifdef LQC_TAKES
  if (!LQC_TAKES(t, t->depth)) {
    lqc_conv_f32_scalar(t);
    return;
  }
#endif
  const uint32_t wide_channels = LQC_VECTORS * LQC_VECTOR, narrow_channels = 4;
  uint32_t first = 0;
  for (; first + wide_channels <= t->channels; first += wide_channels) {
    wide_block(t, first);
  }
#if LQC_VECTOR > 4
  for (; first + LQC_VECTOR <= t->channels; first += LQC_VECTOR) {
    single_block(t, first);
  }
#endif
  for (; first + narrow_channels <= t->channels; first += narrow_channels) {
    narrow_block(t, first);
  }
  for (; first < t->channels; ++first) {
    for (size_t p = 0; p < t->pixels; ++p) {
      one_channel(t, p, first);
    }
  }
}

void LQC_ISA(lqc_depthwise_f32)(const lqc_conv_tile *t) {
#ifdef LQC_TAKES
  if (!LQC_TAKES(t, t->channels)) {
    lqc_depthwise_f32_scalar(t);
    return;
  }
#endif
  for (size_t p = 0; p < t->pixels; ++p) {
    float *out = t->out + p * t->out_stride;
    memset(out, 0, t->channels * sizeof(float));
    for (uint32_t i = 0; i < t->rows; ++i) {
      for (uint32_t j = 0; j < t->columns; ++j) {
        add_tap(out, t->input + i * t->row_stride + j * t->column_stride + p * t->pixel_stride,
                t->weights + i * t->row_weights + j * t->column_weights, t->channels);
      }
    }
    finish(t, out, 0, t->channels);
  }
}
