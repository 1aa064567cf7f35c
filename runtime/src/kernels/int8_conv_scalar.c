/* int8 convolution in plain loops, and the packing that all kernels share. Preparing has proven that no sum, with the
 * bias or without, leaves int32. */
#include "int8_gather.h"

size_t lqc_int8_packed_bytes(const lqc_int8_kernel *kernel, uint32_t out_channels, uint32_t runs, size_t size) {
  if (size > SIZE_MAX / LQC_INT8_LANES / 2 / runs) {
    return 0;
  }
  return lqc_packed_bytes((out_channels + LQC_INT8_LANES - 1) / LQC_INT8_LANES, 1,
                          lqc_int8_block_bytes(runs, size, kernel->multiple));
}

/* One filter, element i to to[i / group * lanes * group + i % group]; inlined with a constant group. */
LQC_INLINE void pack_filter(int8_t *to, const int8_t *filter, size_t size, const uint32_t group) {
  size_t i = 0;
  for (; i + group <= size; i += group, to += LQC_INT8_LANES * group) {
    memcpy(to, filter + i, group);
  }
  for (; i < size; ++i) {
    *to++ = filter[i];
  }
}

static int64_t sum_filter(const int8_t *filter, size_t size) {
  int64_t sum = 0;
  for (size_t i = 0; i < size; ++i) {
    sum += filter[i];
  }
  return sum;
}

void lqc_int8_pack(const lqc_int8_kernel *kernel, void *packed, const int8_t *filters, const int32_t *bias,
                   uint32_t out_channels, uint32_t runs, size_t size) {
  const size_t block_bytes = lqc_int8_block_bytes(runs, size, kernel->multiple);
  const size_t run_bytes = LQC_INT8_LANES * lqc_round_up(size, kernel->multiple);
  memset(packed, 0, lqc_int8_packed_bytes(kernel, out_channels, runs, size));
  for (uint32_t c = 0; c < out_channels; ++c, filters += runs * size) {
    uint32_t lane = c % LQC_INT8_LANES;
    uint8_t *block = (uint8_t *)packed + c / LQC_INT8_LANES * block_bytes;
    int8_t *to = (int8_t *)block + LQC_INT8_LANES * sizeof(int32_t) + lane * kernel->group;
    for (uint32_t r = 0; r < runs; ++r, to += run_bytes) {
      if (kernel->group == 4) {
        pack_filter(to, filters + r * size, size, 4);
      } else if (kernel->group == 2) {
        pack_filter(to, filters + r * size, size, 2);
      } else {
        pack_filter(to, filters + r * size, size, 1);
      }
    }
    int64_t start = bias ? bias[c] : 0;
    if (kernel->offset != 0) {
      start -= kernel->offset * sum_filter(filters, runs * size);
    }
    uint32_t wrapped = (uint32_t)start; /* the kernel's sum wraps back */
    memcpy(block + lane * sizeof(wrapped), &wrapped, sizeof(wrapped));
  }
}

LQC_DEFINE_GATHER(int8_t, memcpy)

static void accumulate(const lqc_int8_tile *tile) {
  const int8_t *block = tile->weights;
  for (uint32_t first = 0; first < tile->out_channels; first += LQC_INT8_LANES) {
    uint32_t lanes = lqc_min_u32(tile->out_channels - first, LQC_INT8_LANES);
    for (uint32_t p = 0; p < tile->pixels; ++p) {
      const int8_t *x = (const int8_t *)tile->patches + p * tile->patch_bytes;
      const int8_t *w = block + LQC_INT8_LANES * sizeof(int32_t);
      int32_t sums[LQC_INT8_LANES];
      memcpy(sums, block, sizeof(sums));
      for (size_t i = 0; i < tile->size; ++i, w += LQC_INT8_LANES) {
        for (uint32_t c = 0; c < LQC_INT8_LANES; ++c) {
          sums[c] += x[i] * w[c];
        }
      }
      memcpy(tile->sums + p * tile->sums_stride + first, sums, lanes * sizeof(int32_t));
    }
    block += lqc_int8_block_bytes(1, tile->size, 1);
  }
}

const lqc_int8_kernel lqc_int8_conv_scalar = {
    .name = "int8_conv2d_scalar",
    .isa = LQC_ISA_SCALAR,
    .group = 1,
    .multiple = 1,
    .element_bytes = 1,
    .gather = gather,
    .accumulate = accumulate,
};
