/* A depthwise kernel of LANES channels a vector whose sum_block(pixel, channel, vectors) makes the sums of up to
 * MAX_VECTORS vectors of channels, all of which exist. Private to kernels/. */
#ifndef LQC_INT8_DEPTHWISE_H
#define LQC_INT8_DEPTHWISE_H

#include "kernels_isa.h"

#define LQC_DEFINE_INT8_DEPTHWISE(name)                                                 \
  void name(const lqc_depthwise_pixel *pixel) {                                         \
    const size_t channels = pixel->channels;                                            \
    size_t channel = 0;                                                                 \
    if (channels < LANES || pixel->out_channels != pixel->channels) {                   \
      lqc_int8_depthwise_scalar(pixel);                                                 \
      return;                                                                           \
    }                                                                                   \
    for (; channels - channel >= MAX_VECTORS * LANES; channel += MAX_VECTORS * LANES) { \
      sum_block(pixel, channel, MAX_VECTORS);                                           \
    }                                                                                   \
    if (channels - channel >= LANES) {                                                  \
      sum_block(pixel, channel, 1);                                                     \
      channel += LANES;                                                                 \
    }                                                                                   \
    if (channel < channels) { /* some channels twice */                                 \
      sum_block(pixel, channels - LANES, 1);                                            \
    }                                                                                   \
  }

#endif /* LQC_INT8_DEPTHWISE_H */
