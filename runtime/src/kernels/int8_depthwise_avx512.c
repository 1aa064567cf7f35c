/* Depthwise convolution of int8: the sums of 16 channels stay in a register for all taps. An element x is two halves of
 * 16 bits, x and its sign, a weight w is w and 0: VPDPWSSD adds x * w + sign * 0. Channels that are not there are
 * masked away, so nothing beyond an array is read or written. */
#include <immintrin.h>

#include "kernels_isa.h"

enum { LANES = 16, MAX_VECTORS = 4 };

LQC_INLINE __m512i int8_at(const int8_t *values, __mmask16 lanes) {
  return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, values));
}

/* `vectors` times 16 channels from `channel` on; all of them exist save in the last, which `last` masks. */
LQC_INLINE void sum_block(const lqc_depthwise_pixel *pixel, size_t channel, const uint32_t vectors, __mmask16 last) {
  const __m512i low_half = _mm512_set1_epi32(0xffff);
  __mmask16 lanes[MAX_VECTORS];
  __m512i sums[MAX_VECTORS];
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    lanes[v] = v + 1 == vectors ? last : (__mmask16)0xffff;
    sums[v] = _mm512_maskz_loadu_epi32(lanes[v], pixel->bias + channel + v * LANES);
  }
  const uint32_t columns = pixel->columns;
  for (uint32_t row = 0; row < pixel->rows; ++row) {
    const int8_t *x = pixel->input + row * pixel->row_stride + channel;
    const int8_t *w = pixel->weights + row * pixel->row_weights + channel;
    for (uint32_t column = 0; column < columns; ++column) {
      LQC_UNROLL
      for (uint32_t v = 0; v < vectors; ++v) {
        __m512i weight = _mm512_and_si512(int8_at(w + v * LANES, lanes[v]), low_half);
        sums[v] = _mm512_dpwssd_epi32(sums[v], int8_at(x + v * LANES, lanes[v]), weight);
      }
      x += pixel->column_stride;
      w += pixel->column_weights;
    }
  }
  LQC_UNROLL
  for (uint32_t v = 0; v < vectors; ++v) {
    _mm512_mask_storeu_epi32(pixel->sums + channel + v * LANES, lanes[v], sums[v]);
  }
}

void lqc_int8_depthwise_avx512(const lqc_depthwise_pixel *pixel) {
  const size_t channels = pixel->channels;
  if (pixel->out_channels != pixel->channels) { /* several outputs of each channel: in no network of larq-zoo */
    lqc_int8_depthwise_scalar(pixel);
    return;
  }
  size_t channel = 0;
  for (; channels - channel >= MAX_VECTORS * LANES; channel += MAX_VECTORS * LANES) {
    sum_block(pixel, channel, MAX_VECTORS, (__mmask16)0xffff);
  }
  for (; channel < channels; channel += LANES) {
    size_t left = channels - channel;
    sum_block(pixel, channel, 1, (__mmask16)lqc_low_mask(left < LANES ? (uint32_t)left : LANES));
  }
}
