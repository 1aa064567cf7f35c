#include "bconv2d.h"

/* From the threshold on v to a limit on 2p + missing.
 *
 * 1. v > T in terms of a. Without a clip v = a, so A = T in "a > A". With one, v = clip(r, +-L), r = floor(a/s + 1/2),
 *    s = 2^step_log2:
 *      T >= L: v > T never holds. T < -L: always. Otherwise -L <= T < L, where clip(r) > T <=> r > T, and since T is an
 *      integer, r >= T + 1 <=> a/s + 1/2 >= T + 1 <=> a >= s (T + 1/2) <=> a > A, A = ceil(s (T + 1/2)) - 1, as a is
 *      an integer too. With s = 2^e:
 *        e >= 1: s (T + 1/2) = 2^e T + 2^(e-1) is an integer: A = that - 1.
 *        e <= 0: s (T + 1/2) = (2T + 1) / 2^(1-e), odd over even, never an integer: A = floor of it; e = 0 gives T.
 * 2. a = K - missing - 2p, so the bit for -1, a <= A, is 2p + missing >= K - A.
 * 3. 2p + missing lies in [0, 2K]: limits below 0 are as good as 0 (always -1) and those above 2K as `highest`
 *    (never -1). */
uint32_t lqc_threshold_limit(int32_t threshold, uint32_t k, uint32_t clip_limit, int32_t step_log2, uint32_t highest) {
  int64_t t = threshold, a = t;
  if (clip_limit != 0) {
    if (t >= (int64_t)clip_limit) {
      return 0;
    }
    if (t < -(int64_t)clip_limit) {
      return highest;
    }
    a = step_log2 > 0 ? t * ((int64_t)1 << step_log2) + ((int64_t)1 << (step_log2 - 1)) - 1
                      : (2 * t + 1) >> (1 - step_log2);
  }
  int64_t limit = (int64_t)k - a;
  return limit<0 ? 0 : limit>(int64_t) highest ? highest : (uint32_t)limit;
}

void lqc_copy_bits(uint64_t *out, const uint64_t *in, uint32_t first, uint32_t count) {
  uint32_t shift = first % 64;
  in += first / 64;
  for (; count > 0; ++in) {
    uint32_t bits = count < 64 ? count : 64;
    uint64_t word = in[0] >> shift;
    if (shift > 0 && shift + bits > 64) {
      word |= in[1] << (64 - shift);
    }
    *out++ = bits < 64 ? word & (((uint64_t)1 << bits) - 1) : word;
    count -= bits;
  }
}

/* Sums of neighbouring bits, then pairs, nibbles and bytes: without a popcount instruction, which init does not ask
 * for. */
uint32_t lqc_count_bits(const uint64_t *words, size_t count) {
  uint32_t sum = 0;
  for (size_t i = 0; i < count; ++i) {
    uint64_t word = words[i] - (words[i] >> 1 & 0x5555555555555555u);
    word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
    word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    sum += (uint32_t)(word * 0x0101010101010101u >> 56);
  }
  return sum;
}

/* ---- Running -------------------------------------------------------------------------------------------------- */

typedef struct bconv_work {
  const lqc_node *node;
  const lqc_bconv_state *state;
  const lqc_runner *runner;
  const uint64_t *input; /* of group 0 */
} bconv_work;

/* One item is one row of the image. */
static void gather_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const bconv_work *work = context;
  const lqc_bconv_state *s = work->state;
  size_t pixels = s->columns.size, in_words = lqc_words(s->in_channels);
  (void)thread;
  for (uint32_t g = 0; g < s->groups; ++g) {
    const uint64_t *in = (const uint64_t *)work->node->input + begin * pixels * in_words;
    uint64_t *out =
        (uint64_t *)work->runner->shared_scratch + g * s->input_group_words + begin * pixels * s->input_pixel_words;
    for (size_t p = 0; p < (end - begin) * pixels; ++p, in += in_words, out += s->input_pixel_words) {
      lqc_copy_bits(out, in, g * s->group_inputs, s->group_inputs);
    }
  }
}

/* Appends the sums of group g to those of the groups before it: [pixels][joined_stride]. */
static void join_sums(const lqc_bconv_state *s, uint32_t g, uint32_t pixels, const void *sums, void *joined) {
  for (uint32_t p = 0; p < pixels; ++p) {
    size_t from = p * s->sums_stride, to = p * s->joined_stride + (size_t)g * s->group_outputs;
    for (uint32_t c = 0; c < s->group_outputs; ++c) {
      if (s->kernel->wide) {
        ((uint32_t *)joined)[to + c] = ((const uint32_t *)sums)[from + c];
      } else {
        ((uint16_t *)joined)[to + c] = ((const uint16_t *)sums)[from + c];
      }
    }
  }
}

static void write_pixel(const lqc_bconv_state *s, void *out, const void *sums, uint32_t missing) {
  const lqc_kernels *k = s->kernels;
  switch (s->epilogue) {
  case LQC_THRESHOLD:
    if (s->kernel->wide) {
      k->threshold_wide(out, sums, missing, &s->params);
    } else {
      k->threshold(out, sums, missing, &s->params);
    }
    break;
  case LQC_CLIP:
    if (s->kernel->wide) {
      k->clip_wide(out, sums, missing, &s->params);
    } else {
      k->clip(out, sums, missing, &s->params);
    }
    break;
  default:
    if (s->kernel->wide) {
      k->affine_wide(out, sums, missing, &s->params);
    } else {
      k->affine(out, sums, missing, &s->params);
    }
    break;
  }
}

/* Where the first tap of a region lies for output pixel (row, column): words from the input's start. 0 where no tap is
 * inside, as such a region has no runs. */
static ptrdiff_t place_of(const lqc_bconv_state *s, const lqc_region *region, uint32_t row, uint32_t column) {
  if (region->run_count == 0) {
    return 0;
  }
  int64_t y = lqc_axis_start(&s->rows, row) + (int64_t)region->row_taps.first * s->rows.dilation;
  int64_t x = lqc_axis_start(&s->columns, column) + (int64_t)region->column_taps.first * s->columns.dilation;
  return (ptrdiff_t)(((size_t)y * s->columns.size + (size_t)x) * s->input_pixel_words);
}

/* What a thread keeps between accumulating and writing a tile. */
typedef struct tile_scratch {
  uint8_t *sums, *joined; /* of one group, of all */
  void *fixed;            /* lqc_bconv_fixed_scratch() */
} tile_scratch;

/* Output pixels from one of a region on. */
typedef struct cursor {
  uint32_t row, column; /* within the region */
} cursor;

/* Output pixels of a tile, which the cursor leaves behind: where their first taps are in the input, and either their
 * numbers in the output, or, `places` NULL, where they are there. */
static inline void place_tile(const lqc_bconv_state *s, const lqc_region *region, cursor *at, uint32_t pixels,
                              ptrdiff_t *offsets, size_t *places, void **outputs, uint8_t *output) {
  const ptrdiff_t step = region->run_count == 0 ? 0 : (ptrdiff_t)(s->columns.stride * s->input_pixel_words);
  const size_t out_step = s->output_pixel_bytes; /* compilers would read it again after every pixel */
  for (uint32_t p = 0;;) {
    const uint32_t row = region->first_row + at->row, x = region->first_column + at->column;
    const uint32_t left = region->columns - at->column, count = pixels - p < left ? pixels - p : left;
    ptrdiff_t offset = place_of(s, region, row, x);
    size_t place = (size_t)row * s->columns.out + x;
    uint8_t *out = output + place * out_step;
    for (const uint32_t end = p + count; p < end; ++p, offset += step) {
      offsets[p] = offset;
      if (places) {
        places[p] = place++;
      } else {
        outputs[p] = out;
        out += out_step;
      }
    }
    if (count < left) {
      at->column += count;
      return;
    }
    *at = (cursor){at->row + 1, 0};
    if (p == pixels) {
      return;
    }
  }
}

/* Weights of the next layer, which a thread fetches in equal shares with its tiles. */
typedef struct soon_needed {
  const uint8_t *bytes;
  size_t left, share; /* bytes, in all and with the next tile */
} soon_needed;

static soon_needed needed_after(const lqc_node *node, size_t tiles) {
  if (node->next == NULL) {
    return (soon_needed){NULL, 0, 0};
  }
  const size_t bytes = node->next->weights_bytes, share = (bytes / LQC_ALIGNMENT / tiles + 1) * LQC_ALIGNMENT;
  return (soon_needed){node->next->weights, bytes, share < bytes ? share : bytes};
}

static void run_tile(const bconv_work *work, const lqc_region *region, cursor *at, uint32_t pixels,
                     const soon_needed *soon, const tile_scratch *scratch) {
  const lqc_bconv_state *s = work->state;
  ptrdiff_t offsets[LQC_MAX_TILE_PIXELS];
  size_t places[LQC_MAX_TILE_PIXELS];
  void *outputs[LQC_MAX_TILE_PIXELS];
  if (s->fused) {
    place_tile(s, region, at, pixels, offsets, NULL, outputs, work->node->output);
  } else {
    place_tile(s, region, at, pixels, offsets, places, NULL, work->node->output);
  }
  for (uint32_t g = 0; g < s->groups; ++g) {
    const uint8_t *initial = region->initial;
    const lqc_bconv_tile tile = {
        .input = work->input + g * s->input_group_words,
        .pixel_offsets = offsets,
        .pixels = pixels,
        .runs = region->runs,
        .run_count = region->run_count,
        .arranged = region->arranged,
        .weights = s->packed + g * s->packed_bytes,
        .filter_words = s->filter_words,
        .out_channels = s->group_outputs,
        .soon = soon->bytes,
        .soon_bytes = soon->share,
        .initial = initial ? initial + g * s->sums_stride * s->sum_bytes : NULL,
        .sums = scratch->sums,
        .sums_stride = s->sums_stride,
    };
    if (s->fused) {
      s->fused(&tile, outputs, region->missing, &s->params);
      return;
    }
    s->kernel->accumulate(&tile);
    if (s->groups > 1) {
      join_sums(s, g, pixels, scratch->sums, scratch->joined);
    }
  }
  const uint8_t *row_sums = s->groups > 1 ? scratch->joined : scratch->sums;
  if (s->epilogue == LQC_FIXED_POINT) {
    lqc_run_bconv_fixed(s, work->node, places, pixels, row_sums, region->missing, scratch->fixed);
    return;
  }
  for (uint32_t p = 0; p < pixels; ++p, row_sums += s->joined_stride * s->sum_bytes) {
    uint8_t *out = (uint8_t *)work->node->output + places[p] * s->output_pixel_bytes;
    write_pixel(s, out, row_sums, region->missing);
  }
}

/* The region that holds a cost: the last one whose first cost is not behind it. */
static const lqc_region *find_region(const lqc_bconv_state *s, size_t cost) {
  size_t low = 0, high = s->region_count;
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    if (s->regions[middle].first_cost <= cost) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return &s->regions[low];
}

/* The tile of a region nearest to a cost; that of all tiles is behind the last one. */
static size_t tile_at(const lqc_region *region, size_t cost) {
  return region->first_tile + (cost - region->first_cost + region->tile_cost / 2) / region->tile_cost;
}

/* One item is one unit of cost, so that shares take the same time, although tiles at borders have fewer taps. */
static void run_tiles(const void *context, uint32_t thread, size_t begin, size_t end) {
  const bconv_work *work = context;
  const lqc_bconv_state *s = work->state;
  uint32_t max_pixels = s->kernel->max_pixels;
  tile_scratch scratch = {.sums = work->runner->thread_scratch + thread * work->runner->thread_scratch_bytes};
  scratch.joined = scratch.sums + max_pixels * s->sums_stride * s->sum_bytes;
  scratch.fixed = scratch.joined + (s->groups > 1 ? max_pixels * s->joined_stride * s->sum_bytes : 0);
  const lqc_region *region = find_region(s, begin);
  size_t tile = tile_at(region, begin);
  const size_t end_tile = tile_at(find_region(s, end), end);
  if (tile == end_tile) {
    return;
  }
  soon_needed soon = needed_after(work->node, end_tile - tile);
  uint32_t first = (uint32_t)(tile - region->first_tile) * region->tile_pixels;
  cursor at = {first / region->columns, first % region->columns};
  for (; tile < end_tile; ++tile) {
    if (first >= region->pixels) {
      ++region;
      first = 0;
      at = (cursor){0, 0};
    }
    const uint32_t left = region->pixels - first, pixels = left < region->tile_pixels ? left : region->tile_pixels;
    run_tile(work, region, &at, pixels, &soon, &scratch);
    first += pixels;
    if (soon.left > 0) {
      soon.bytes += soon.share;
      soon.left -= soon.share;
      soon.share = soon.left < soon.share ? soon.left : soon.share;
    }
  }
}

void lqc_run_bconv2d(const lqc_node *node, const lqc_runner *runner) {
  const lqc_bconv_state *s = node->state;
  bconv_work work = {node, s, runner, s->gathers ? runner->shared_scratch : node->input};
  if (s->gathers) {
    lqc_pool_run(runner->pool, gather_rows, &work, s->rows.size);
  }
  lqc_pool_run(runner->pool, run_tiles, &work, s->cost);
}
