/* What the int8 convolutions share. Gathering a patch: LQC_DEFINE_GATHER(element, copy) defines gather() of a kernel
 * whose patches hold `element`s, where copy(to, from, bytes) converts a run of at least one byte of input and reads
 * nothing beyond. Private to kernels/. */
#ifndef LQC_INT8_GATHER_H
#define LQC_INT8_GATHER_H

#include <string.h>

#include "kernels_isa.h"

#define LQC_DEFINE_GATHER(element, copy)                                                                    \
  static void gather(void *patch, const lqc_int8_gather *taps) {                                            \
    for (uint32_t i = 0; i < taps->rows; ++i) {                                                             \
      const int8_t *from = taps->input + i * taps->row_stride;                                              \
      element *to = (element *)patch + taps->place + i * taps->place_row;                                   \
      for (uint32_t j = 0; j < taps->columns; ++j, from += taps->column_stride, to += taps->place_column) { \
        copy(to, from, taps->run);                                                                          \
      }                                                                                                     \
    }                                                                                                       \
  }

/* Bytes of packed weights of LQC_INT8_LANES filters. */
static inline size_t lqc_int8_block_bytes(uint32_t runs, size_t size, size_t multiple) {
  return LQC_INT8_LANES * (sizeof(int32_t) + runs * lqc_round_up(size, multiple));
}

/* accumulate() of a kernel whose tile_of(tile, weights, channel, pixels) makes the sums of a block, inlined with a
   constant number of pixels. */
#define LQC_DEFINE_INT8_ACCUMULATE(multiple)                                                                      \
  static void accumulate(const lqc_int8_tile *tile) {                                                             \
    const int8_t *weights = tile->weights;                                                                        \
    const size_t block_bytes = lqc_int8_block_bytes(tile->runs, tile->size, multiple);                            \
    for (uint32_t channel = 0; channel < tile->out_channels; channel += LQC_INT8_LANES, weights += block_bytes) { \
      LQC_SWITCH_PIXELS(tile->pixels, tile_of, tile, weights, channel)                                            \
    }                                                                                                             \
  }

#endif /* LQC_INT8_GATHER_H */
