/* Binary convolution kernels: scalar against a loop over bits, every other kernel against scalar. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "kernels_testing.h"

enum { MAX_RUNS = 64 };

typedef enum bit_pattern { RANDOM, ALL_EQUAL, ALL_DIFFER, PATTERN_COUNT } bit_pattern;

typedef struct bconv_case {
  uint32_t channels, words, out_channels, kernel_h, kernel_w, stride, pixels;
  bit_pattern pattern;
  int with_initial;
  int merge_rows; /* one run a kernel row, else one a tap */
  uint64_t taps;  /* bit t: tap t takes part */
} bconv_case;

/* All memory a kernel sees, each piece ending at a guard page. */
typedef struct arenas {
  guarded input, filters, offsets, runs, arranged, packed, initial, sums, expected;
} arenas;

static void print_case(const bconv_case *c, const char *kernel) {
  fprintf(stderr,
          "%s: channels %u, out_channels %u, kernel %ux%u, stride %u, pixels %u, pattern %d, initial %d, "
          "merged rows %d, taps %llx\n",
          kernel, c->channels, c->out_channels, c->kernel_h, c->kernel_w, c->stride, c->pixels, (int)c->pattern,
          c->with_initial, c->merge_rows, (unsigned long long)c->taps);
}

static void fill_bits(uint64_t *words, size_t pixels, const bconv_case *c, uint64_t value, uint64_t *seed) {
  for (size_t i = 0; i < pixels * c->words; ++i) {
    words[i] = c->pattern == RANDOM ? random_u64(seed) : value;
    if (i % c->words == c->words - 1) {
      words[i] &= last_word_mask(c->channels);
    }
  }
}

static uint32_t make_runs(lqc_run *runs, const bconv_case *c, uint32_t image_w) {
  uint32_t count = 0;
  for (uint32_t t = 0; t < c->kernel_h * c->kernel_w; ++t) {
    uint32_t x = t % c->kernel_w;
    if (!(c->taps >> t & 1)) {
      continue;
    }
    if (c->merge_rows && x > 0 && c->taps >> (t - 1) & 1) {
      runs[count - 1].words += c->words;
      continue;
    }
    runs[count++] = (lqc_run){(ptrdiff_t)((t / c->kernel_w * image_w + x) * c->words), t * c->words, c->words};
  }
  return count;
}

/* One number of the sums, from the definition. */
static uint32_t naive_sum(const bconv_case *c, const uint64_t *input, const uint64_t *filters, uint32_t image_w,
                          uint32_t pixel, uint32_t out) {
  uint32_t sum = 0;
  for (uint32_t t = 0; t < c->kernel_h * c->kernel_w; ++t) {
    if (!(c->taps >> t & 1)) {
      continue;
    }
    const uint64_t *x = input + (t / c->kernel_w * image_w + t % c->kernel_w + pixel * c->stride) * c->words;
    const uint64_t *w = filters + (out * c->kernel_h * c->kernel_w + t) * c->words;
    for (uint32_t channel = 0; channel < c->channels; ++channel) {
      sum += (x[channel / 64] >> channel % 64 & 1) != (w[channel / 64] >> channel % 64 & 1);
    }
  }
  return sum;
}

static uint32_t sum_at(const void *sums, int wide, size_t i) {
  return wide ? ((const uint32_t *)sums)[i] : ((const uint16_t *)sums)[i];
}

/* An epilogue that a kernel has in one with its sums: a pixel's output has `bytes` bytes. */
typedef struct fused_call {
  lqc_fused_bconv run;
  lqc_epilogue_params params;
  uint32_t missing;
  unsigned char *out;
  size_t bytes;
} fused_call;

/* Lays the case out in guarded memory and runs one kernel; the runs and their offsets end at guard pages too. fused
   NULL: the sums. */
static void run_kernel(const lqc_bconv_kernel *kernel, const bconv_case *c, arenas *memory, const uint64_t *input,
                       const uint64_t *filters, const lqc_run *runs, uint32_t run_count, void *sums,
                       const fused_call *fused) {
  uint32_t filter_words = c->kernel_h * c->kernel_w * c->words;
  size_t size = kernel->wide ? sizeof(uint32_t) : sizeof(uint16_t);
  size_t stride = padded_channels(c->out_channels);
  size_t packed_bytes = kernel->packed_bytes(c->out_channels, filter_words);
  if (packed_bytes == 0 || packed_bytes % LQC_ALIGNMENT != 0) {
    FAIL("%s: packed_bytes(%u, %u) is %zu", kernel->name, c->out_channels, filter_words, packed_bytes);
  }
  void *packed = guarded_last(&memory->packed, packed_bytes);
  kernel->pack(packed, filters, c->out_channels, filter_words);
  void *arranged = NULL;
  if (kernel->arrange) {
    arranged = guarded_last(&memory->arranged, kernel->arranged_bytes(run_count));
    kernel->arrange(arranged, runs, run_count);
  }
  unsigned char *initial = guarded_last(&memory->initial, stride * size);
  for (size_t i = 0; i < stride; ++i) {
    uint32_t value = (uint32_t)(i * 2654435761u >> 17) % 32768;
    if (kernel->wide) {
      ((uint32_t *)(void *)initial)[i] = value;
    } else {
      ((uint16_t *)(void *)initial)[i] = (uint16_t)value;
    }
  }
  for (uint32_t first = 0; first < c->pixels; first += kernel->max_pixels) {
    uint32_t pixels = c->pixels - first < kernel->max_pixels ? c->pixels - first : kernel->max_pixels;
    ptrdiff_t *offsets = guarded_last(&memory->offsets, LQC_MAX_TILE_PIXELS * sizeof(*offsets));
    for (uint32_t p = 0; p < pixels; ++p) {
      offsets[p] = (ptrdiff_t)((first + p) * c->stride * c->words);
    }
    lqc_bconv_tile tile = {
        .input = input,
        .pixel_offsets = offsets,
        .pixels = pixels,
        .runs = runs,
        .run_count = run_count,
        .arranged = arranged,
        .weights = packed,
        .filter_words = filter_words,
        .out_channels = c->out_channels,
        .initial = c->with_initial ? initial : NULL,
        .sums = (unsigned char *)sums + first * stride * size,
        .sums_stride = stride,
    };
    if (fused) {
      void *outputs[LQC_MAX_TILE_PIXELS];
      for (uint32_t p = 0; p < pixels; ++p) {
        outputs[p] = fused->out + (first + p) * fused->bytes;
      }
      tile.sums = NULL;
      fused->run(&tile, outputs, fused->missing, &fused->params);
    } else {
      kernel->accumulate(&tile);
    }
  }
}

/* threshold(), clip() and affine() of a kernel against those of scalar on the expected sums, which are at most K. */
static void test_fused(const lqc_bconv_kernel *kernel, const bconv_case *c, arenas *memory, const uint64_t *input,
                       const uint64_t *filters, const lqc_run *runs, uint32_t run_count, const uint16_t *expected,
                       uint64_t *seed) {
  static uint16_t limits[640];
  static _Alignas(8) unsigned char right[640 * sizeof(float)];
  static float multiplier[640], offset[640];
  static uint64_t invert[10];
  const uint32_t k = c->channels * c->kernel_h * c->kernel_w;
  uint32_t taps = 0;
  for (uint32_t t = 0; t < c->kernel_h * c->kernel_w; ++t) {
    taps += (uint32_t)(c->taps >> t) & 1;
  }
  lqc_kernels scalar;
  lqc_kernels_scalar(&scalar);
  for (uint32_t i = 0; i < padded_channels(c->out_channels); ++i) {
    uint32_t near = 2u * expected[i % c->out_channels] + random_below(seed, 3);
    limits[i] = (uint16_t)(i >= c->out_channels || random_below(seed, 8) == 0 ? UINT16_MAX
                           : random_below(seed, 8) == 0                       ? 0
                                                                              : near);
  }
  for (uint32_t i = 0; i < c->out_channels; i += 64) {
    invert[i / 64] = random_u64(seed) & (c->out_channels - i >= 64 ? ~(uint64_t)0 : last_word_mask(c->out_channels));
  }
  for (uint32_t i = 0; i < c->out_channels; ++i) {
    const float scale = perhaps_tiny_scale(seed);
    multiplier[i] = ((float)random_below(seed, 257) - 128.0f) / 96.0f * scale;
    offset[i] = ((float)random_below(seed, 1025) - 512.0f) * scale;
  }
  const lqc_fused_bconv kinds[] = {kernel->threshold, kernel->clip, kernel->affine};
  const size_t bytes[] = {(c->out_channels + 63) / 64 * sizeof(uint64_t), c->out_channels,
                          c->out_channels * sizeof(float)};
  for (int kind = 0; kind < 3; ++kind) {
    const int32_t clip = random_below(seed, 3) ? 127 : 1 + (int32_t)random_below(seed, 126);
    fused_call call = {.run = kinds[kind],
                       .params = {.channels = c->out_channels,
                                  .k = k,
                                  .limits = limits,
                                  .invert = random_below(seed, 2) ? invert : NULL,
                                  .step_log2 = (int32_t)random_below(seed, 18) - 2,
                                  .clip_limit = clip,
                                  .multiplier = multiplier,
                                  .offset = offset},
                       .missing = random_below(seed, 2) ? k - taps * c->channels : 0,
                       .bytes = bytes[kind]};
    if (kind == 2 && random_below(seed, 2)) {
      call.params.clip_limit = call.params.step_log2 = 0;
    }
    if (call.run == NULL) {
      continue;
    }
    call.out = guarded_last(&memory->sums, c->pixels * call.bytes);
    memset(call.out, 0xa5, c->pixels * call.bytes);
    run_kernel(kernel, c, memory, input, filters, runs, run_count, NULL, &call);
    for (uint32_t p = 0; p < c->pixels; ++p) {
      const uint16_t *sums = expected + p * padded_channels(c->out_channels);
      if (kind == 0) {
        scalar.threshold((uint64_t *)(void *)right, sums, call.missing, &call.params);
      } else if (kind == 1) {
        scalar.clip((int8_t *)right, sums, call.missing, &call.params);
      } else {
        scalar.affine((float *)(void *)right, sums, call.missing, &call.params);
      }
      if (memcmp(right, call.out + p * call.bytes, call.bytes) != 0) {
        print_case(c, kernel->name);
        FAIL("%s, pixel %u, missing %u, step 2^%d, limit %d: not what scalar makes of the sums",
             (const char *const[]){"threshold", "clip", "affine"}[kind], p, call.missing, call.params.step_log2,
             call.params.clip_limit);
      }
    }
  }
}

static void test_case(const bconv_case *c, arenas *memory, uint64_t *seed) {
  uint32_t image_w = (c->pixels - 1) * c->stride + c->kernel_w;
  uint32_t taps = c->kernel_h * c->kernel_w;
  size_t stride = padded_channels(c->out_channels);
  uint64_t *input = guarded_last(&memory->input, (size_t)image_w * c->kernel_h * c->words * sizeof(*input));
  uint64_t *filters = guarded_last(&memory->filters, (size_t)c->out_channels * taps * c->words * sizeof(*filters));
  fill_bits(input, (size_t)image_w * c->kernel_h, c, ~(uint64_t)0, seed);
  fill_bits(filters, (size_t)c->out_channels * taps, c, c->pattern == ALL_DIFFER ? 0 : ~(uint64_t)0, seed);
  lqc_run made[MAX_RUNS];
  uint32_t run_count = make_runs(made, c, image_w);
  lqc_run *runs = guarded_last(&memory->runs, run_count * sizeof(*runs));
  memcpy(runs, made, run_count * sizeof(*runs));

  const lqc_bconv_kernel *scalar = lqc_bconv_kernel_at(0);
  uint16_t *expected = guarded_last(&memory->expected, c->pixels * stride * sizeof(*expected));
  run_kernel(scalar, c, memory, input, filters, runs, run_count, expected, NULL);
  for (uint32_t i = 0; i < 8; ++i) {
    uint32_t p = random_below(seed, c->pixels), o = random_below(seed, c->out_channels);
    uint32_t initial = c->with_initial ? (uint32_t)((size_t)o * 2654435761u >> 17) % 32768 : 0;
    uint32_t sum = initial + naive_sum(c, input, filters, image_w, p, o);
    if (expected[p * stride + o] != sum) {
      print_case(c, scalar->name);
      FAIL("pixel %u, channel %u: %u, expected %u", p, o, expected[p * stride + o], sum);
    }
  }
  const lqc_bconv_kernel *kernel;
  for (size_t n = 1; (kernel = lqc_bconv_kernel_at(n)) != NULL; ++n) {
    if (kernel->tap_words > 1 && c->words % kernel->tap_words != 0) {
      continue;
    }
    size_t size = kernel->wide ? sizeof(uint32_t) : sizeof(uint16_t);
    void *sums = guarded_last(&memory->sums, c->pixels * stride * size);
    memset(sums, 0xa5, c->pixels * stride * size);
    run_kernel(kernel, c, memory, input, filters, runs, run_count, sums, NULL);
    for (uint32_t p = 0; p < c->pixels; ++p) {
      for (uint32_t o = 0; o < c->out_channels; ++o) {
        uint32_t sum = sum_at(sums, kernel->wide, p * stride + o);
        if (sum != expected[p * stride + o]) {
          print_case(c, kernel->name);
          FAIL("pixel %u, channel %u: %u, expected %u", p, o, sum, expected[p * stride + o]);
        }
      }
    }
    if (!c->with_initial) {
      test_fused(kernel, c, memory, input, filters, runs, run_count, expected, seed);
    }
  }
}

static bconv_case make_case(uint32_t channels, uint32_t out_channels, uint32_t kernel_h, uint32_t kernel_w,
                            uint32_t pixels) {
  return (bconv_case){
      .channels = channels,
      .words = (channels + 63) / 64,
      .out_channels = out_channels,
      .kernel_h = kernel_h,
      .kernel_w = kernel_w,
      .stride = 1,
      .pixels = pixels,
      .pattern = RANDOM,
      .with_initial = 0,
      .merge_rows = 1,
      .taps = ((uint64_t)1 << kernel_h * kernel_w) - 1,
  };
}

static void test_shapes(arenas *memory, uint64_t *seed) {
  static const uint32_t sizes[][2] = {{1, 1}, {3, 3}, {2, 3}, {5, 5}, {1, 7}};
  for (size_t i = 0; i < TEST_CHANNELS_COUNT; ++i) {
    for (size_t o = 0; o < TEST_CHANNELS_COUNT; ++o) {
      for (int pattern = 0; pattern < PATTERN_COUNT; ++pattern) {
        size_t s = (i + o + (size_t)pattern) % 5;
        if (test_channels[i] == 512 && sizes[s][0] == 5) {
          s = 1;
        }
        bconv_case c = make_case(test_channels[i], test_channels[o], sizes[s][0], sizes[s][1],
                                 1 + random_below(seed, LQC_MAX_TILE_PIXELS));
        c.pattern = (bit_pattern)pattern;
        c.with_initial = (int)random_below(seed, 2);
        c.merge_rows = (int)random_below(seed, 2);
        c.stride = 1 + random_below(seed, 2);
        test_case(&c, memory, seed);
        c.taps &= random_u64(seed); /* as at a border, or none at all */
        test_case(&c, memory, seed);
      }
    }
  }
}

static void test_every_tile(arenas *memory, uint64_t *seed) {
  for (uint32_t pixels = 1; pixels <= LQC_MAX_TILE_PIXELS + 1; ++pixels) {
    for (uint32_t out = 1; out <= 130; out += out < 70 ? 1 : 13) {
      bconv_case c = make_case(1 + random_below(seed, 200), out, 1, 3, pixels);
      test_case(&c, memory, seed);
    }
  }
  bconv_case none = make_case(64, 64, 3, 3, 5);
  none.taps = 0;
  test_case(&none, memory, seed);
  none.with_initial = 1;
  test_case(&none, memory, seed);
}

/* The taps of every region of an image that a kernel of 3x3 or 5x5 can have, 64 and 192 channels: kernels may meet the
 * odd words of two runs together, where their filters' words follow each other and where they do not. */
static void test_regions(arenas *memory, uint64_t *seed) {
  static const uint32_t pixels[] = {1, 2, 14, 15, 16};
  for (uint32_t size = 3; size <= 5; size += 2) {
    for (uint32_t rows = 0; rows < size * size; ++rows) {
      for (uint32_t columns = 0; columns < size * size; ++columns) {
        if (rows / size > rows % size || columns / size > columns % size) {
          continue; /* first / size to first % size, both included */
        }
        bconv_case c = make_case(random_below(seed, 2) ? 64 : 192, 1 + random_below(seed, 72), size, size,
                                 pixels[random_below(seed, 5)]);
        c.stride = 1 + random_below(seed, 2);
        c.merge_rows = random_below(seed, 4) > 0; /* not: as with a dilation */
        for (uint32_t t = 0; t < size * size; ++t) {
          if (t / size < rows / size || t / size > rows % size || t % size < columns / size ||
              t % size > columns % size) {
            c.taps &= ~((uint64_t)1 << t);
          }
        }
        test_case(&c, memory, seed);
      }
    }
  }
}

/* Every number of words in a run up to 80 with all bits different: byte lanes would overflow at 32 words. Then the
 * largest K. */
static void test_saturating(arenas *memory, uint64_t *seed) {
  for (uint32_t words = 1; words <= 80; ++words) {
    bconv_case c = make_case(words * 64, 9, 1, 1, 5);
    c.pattern = ALL_DIFFER;
    test_case(&c, memory, seed);
    c = make_case(words * 64 / 3 + 1, 41, 1, 3, 3);
    c.pattern = ALL_DIFFER;
    c.merge_rows = 0;
    test_case(&c, memory, seed);
  }
  for (int pattern = 0; pattern < PATTERN_COUNT; ++pattern) {
    bconv_case c = make_case(LQC_BCONV_MAX_K, 41, 1, 1, 6);
    c.pattern = (bit_pattern)pattern;
    test_case(&c, memory, seed);
    c.with_initial = 1;
    test_case(&c, memory, seed);
    c = make_case(LQC_BCONV_MAX_K / 25, 33, 5, 5, 3);
    c.pattern = (bit_pattern)pattern;
    test_case(&c, memory, seed);
  }
}

/* Sums beyond 16 bits: only the wide kernel. */
static void test_wide(void) {
  enum { WORDS = 2000, OUT = 3 };
  static uint64_t input[WORDS], filters[OUT * WORDS];
  const lqc_bconv_kernel *kernel = NULL;
  for (size_t n = 0; lqc_bconv_kernel_at(n) != NULL; ++n) {
    kernel = lqc_bconv_kernel_at(n)->wide ? lqc_bconv_kernel_at(n) : kernel;
  }
  if (kernel == NULL || kernel->packed_bytes(OUT, WORDS) > sizeof(filters) + LQC_ALIGNMENT) {
    FAIL("the list of kernels has no wide one");
  }
  for (size_t i = 0; i < WORDS; ++i) {
    filters[WORDS + i] = ~(uint64_t)0;
    filters[2 * WORDS + i] = (uint64_t)0xff << 56;
  }
  static _Alignas(LQC_ALIGNMENT) uint64_t packed[OUT * WORDS + LQC_ALIGNMENT];
  kernel->pack(packed, filters, OUT, WORDS);
  uint32_t initial[LQC_SUMS_MULTIPLE] = {7, 70000, 1}, sums[LQC_SUMS_MULTIPLE];
  static const ptrdiff_t offsets[LQC_MAX_TILE_PIXELS];
  lqc_run run = {0, 0, WORDS};
  lqc_bconv_tile tile = {
      .input = input,
      .pixel_offsets = offsets,
      .pixels = 1,
      .runs = &run,
      .run_count = 1,
      .weights = packed,
      .filter_words = WORDS,
      .out_channels = OUT,
      .initial = initial,
      .sums = sums,
      .sums_stride = LQC_SUMS_MULTIPLE,
  };
  kernel->accumulate(&tile);
  if (sums[0] != 7 || sums[1] != 70000 + 64 * WORDS || sums[2] != 1 + 8 * WORDS) {
    FAIL("%s: sums %u %u %u", kernel->name, sums[0], sums[1], sums[2]);
  }
}

static void test_packed_bytes(void) {
  const lqc_bconv_kernel *kernel;
  for (size_t n = 0; (kernel = lqc_bconv_kernel_at(n)) != NULL; ++n) {
    if (kernel->max_pixels < 1 || kernel->max_pixels > LQC_MAX_TILE_PIXELS) {
      FAIL("%s: max_pixels is %u", kernel->name, kernel->max_pixels);
    }
    if (kernel->packed_bytes(UINT32_MAX, UINT32_MAX) != 0) {
      FAIL("%s: packed_bytes does not report its overflow", kernel->name);
    }
  }
}

int main(void) {
  arenas memory = {guarded_new(1 << 20), guarded_new(4 << 20), guarded_new(4096),
                   guarded_new(4096),    guarded_new(1 << 16), guarded_new(16 << 20),
                   guarded_new(1 << 16), guarded_new(1 << 18), guarded_new(1 << 18)};
  uint64_t seed = 2026;
  test_packed_bytes();
  test_every_tile(&memory, &seed);
  test_regions(&memory, &seed);
  test_shapes(&memory, &seed);
  test_saturating(&memory, &seed);
  test_wide();
  printf("bconv kernels: ok\n");
  return 0;
}
