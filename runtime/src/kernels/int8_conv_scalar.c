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

/* A run of a filter that does not look at all of it: `depth` elements of each `step`, from element `first` on. */
static void pack_parts(int8_t *to, const int8_t *filter, uint32_t taps, uint32_t depth, size_t first, size_t step,
                       const uint32_t group) {
  for (uint32_t t = 0; t < taps; ++t, first += step) {
    for (size_t i = first; i < first + depth; ++i) {
      to[i / group * LQC_INT8_LANES * group + i % group] = *filter++;
    }
  }
}

void lqc_int8_pack(const lqc_int8_kernel *kernel, void *packed, const lqc_int8_filters *filters, uint32_t runs) {
  const uint32_t taps = filters->taps / runs, outputs = filters->out_channels / filters->merged;
  const size_t of_run = (size_t)taps * filters->depth, step = (size_t)filters->merged * filters->depth;
  const size_t block_bytes = lqc_int8_block_bytes(runs, taps * step, kernel->multiple);
  const size_t run_bytes = LQC_INT8_LANES * lqc_round_up(taps * step, kernel->multiple);
  const int8_t *filter = filters->weights;
  memset(packed, 0, lqc_int8_packed_bytes(kernel, filters->out_channels, runs, taps * step));
  for (uint32_t c = 0; c < filters->out_channels; ++c) {
    uint32_t lane = c % LQC_INT8_LANES;
    uint8_t *block = (uint8_t *)packed + c / LQC_INT8_LANES * block_bytes;
    int8_t *to = (int8_t *)block + LQC_INT8_LANES * sizeof(int32_t) + lane * kernel->group;
    int64_t start = filters->bias ? filters->bias[c] : 0;
    if (kernel->offset != 0) {
      start -= kernel->offset * sum_filter(filter, runs * of_run);
    }
    for (uint32_t r = 0; r < runs; ++r, to += run_bytes, filter += of_run) {
      if (filters->merged > 1) {
        pack_parts(to, filter, taps, filters->depth, (size_t)(c / outputs) * filters->depth, step, kernel->group);
      } else if (kernel->group == 16) {
        pack_filter(to, filter, of_run, 16);
      } else if (kernel->group == 4) {
        pack_filter(to, filter, of_run, 4);
      } else if (kernel->group == 2) {
        pack_filter(to, filter, of_run, 2);
      } else {
        pack_filter(to, filter, of_run, 1);
      }
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
