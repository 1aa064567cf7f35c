/* Epilogues: scalar against the definitions in kernels.h, every other ISA against scalar. Outputs end at a guard page
 * and so do the padded inputs. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "kernels_testing.h"

enum { MAX_CHANNELS = 512, STEP_MIN = -6, STEP_MAX = 14 };

typedef struct arenas {
  guarded sums, sums_wide, limits, limits_wide, invert, multiplier, offset, out, expected;
} arenas;

typedef struct epilogue_case {
  lqc_epilogue_params params;
  uint32_t missing;
  uint16_t *sums;
  uint32_t *sums_wide;
} epilogue_case;

static void fail_case(const epilogue_case *c, const char *what, lqc_isa isa, uint32_t channel) {
  const lqc_epilogue_params *p = &c->params;
  FAIL("%s of %s differs at channel %u of %u: k %u, missing %u, p %u, limit %u, invert %d, step_log2 %d, clip_limit %d",
       what, lqc_isa_name(isa), channel, p->channels, p->k, c->missing, c->sums[channel], p->limits[channel],
       p->invert != NULL, p->step_log2, p->clip_limit);
}

/* Lays out a case of so many channels, its padding filled with numbers that would show. */
static epilogue_case new_case(arenas *memory, uint32_t channels, uint64_t *seed) {
  size_t padded = padded_channels(channels), words = padded / 64;
  uint64_t *invert = guarded_last(&memory->invert, words * sizeof(*invert));
  float *multiplier = guarded_last(&memory->multiplier, padded * sizeof(*multiplier));
  float *offset = guarded_last(&memory->offset, padded * sizeof(*offset));
  uint16_t *limits = guarded_last(&memory->limits, padded * sizeof(*limits));
  uint32_t *limits_wide = guarded_last(&memory->limits_wide, padded * sizeof(*limits_wide));
  epilogue_case c = {.sums = guarded_last(&memory->sums, padded * sizeof(*c.sums)),
                     .sums_wide = guarded_last(&memory->sums_wide, padded * sizeof(*c.sums_wide))};
  const int tiny = random_below(seed, 3) == 0;
  for (size_t i = 0; i < padded; ++i) {
    c.sums[i] = (uint16_t)random_u64(seed);
    limits[i] = 65535;
    limits_wide[i] = 65535;
    multiplier[i] = (float)((int32_t)random_below(seed, 2000001) - 1000000) * 1.7e-5f;
    offset[i] = (float)((int32_t)random_below(seed, 2000001) - 1000000) * 3.1e-4f;
    const float scale = tiny ? perhaps_tiny_scale(seed) : 1.0f;
    multiplier[i] *= scale;
    offset[i] *= scale;
  }
  for (size_t i = 0; i < words; ++i) {
    invert[i] = random_u64(seed);
  }
  invert[words - 1] &= last_word_mask(channels);
  c.params = (lqc_epilogue_params){.channels = channels,
                                   .limits = limits,
                                   .limits_wide = limits_wide,
                                   .invert = random_below(seed, 4) ? invert : NULL,
                                   .multiplier = multiplier,
                                   .offset = offset,
                                   .step_log2 = 0,
                                   .clip_limit = 127};
  return c;
}

/* floor(n / 2^shift) for any sign, without shifting negative numbers. */
static int64_t floor_div_pow2(int64_t n, int shift) {
  int64_t d = (int64_t)1 << shift, q = n / d;
  return n % d < 0 ? q - 1 : q;
}

/* v from its definition: floor(a / 2^step + 1/2) = floor((2a + 2^step) / 2^(step + 1)). */
static int64_t defined_value(const epilogue_case *c, uint32_t channel) {
  const lqc_epilogue_params *p = &c->params;
  int64_t a = (int64_t)p->k - c->missing - 2 * (int64_t)c->sums_wide[channel];
  if (p->clip_limit == 0) {
    return a;
  }
  int64_t v = p->step_log2 >= 0 ? floor_div_pow2(2 * a + ((int64_t)1 << p->step_log2), p->step_log2 + 1)
                                : a * ((int64_t)1 << -p->step_log2);
  return v < -p->clip_limit ? -p->clip_limit : v > p->clip_limit ? p->clip_limit : v;
}

static void check_threshold(const epilogue_case *c, arenas *memory, const lqc_kernels *tables, size_t count) {
  const uint32_t channels = c->params.channels;
  const size_t words = (channels + 63) / 64, bytes = words * sizeof(uint64_t);
  uint64_t *expected = guarded_last(&memory->expected, bytes), *out = guarded_last(&memory->out, bytes);
  for (size_t w = 0; w < words; ++w) {
    expected[w] = c->params.invert ? c->params.invert[w] : 0;
    for (uint32_t i = (uint32_t)w * 64; i < channels && i < w * 64 + 64; ++i) {
      expected[w] ^= (uint64_t)(2u * c->sums[i] + c->missing >= c->params.limits[i]) << i % 64;
    }
  }
  for (size_t t = 0; t < count; ++t) {
    for (int wide = 0; wide < 2; ++wide) {
      memset(out, 0x5a, bytes);
      if (wide) {
        tables[t].threshold_wide(out, c->sums_wide, c->missing, &c->params);
      } else {
        tables[t].threshold(out, c->sums, c->missing, &c->params);
      }
      for (uint32_t i = 0; i < words * 64; ++i) {
        if ((out[i / 64] ^ expected[i / 64]) >> i % 64 & 1) {
          fail_case(c, wide ? "threshold_wide" : "threshold", tables[t].isa, i);
        }
      }
    }
  }
}

static void check_clip(const epilogue_case *c, arenas *memory, const lqc_kernels *tables, size_t count) {
  const uint32_t channels = c->params.channels;
  int8_t *out = guarded_last(&memory->out, channels);
  for (size_t t = 0; t < count; ++t) {
    for (int wide = 0; wide < 2; ++wide) {
      memset(out, 0x5a, channels);
      if (wide) {
        tables[t].clip_wide(out, c->sums_wide, c->missing, &c->params);
      } else {
        tables[t].clip(out, c->sums, c->missing, &c->params);
      }
      for (uint32_t i = 0; i < channels; ++i) {
        if (out[i] != defined_value(c, i)) {
          fail_case(c, wide ? "clip_wide" : "clip", tables[t].isa, i);
        }
      }
    }
  }
}

static void check_affine(const epilogue_case *c, arenas *memory, const lqc_kernels *tables, size_t count) {
  const uint32_t channels = c->params.channels;
  float *out = guarded_last(&memory->out, channels * sizeof(*out));
  for (size_t t = 0; t < count; ++t) {
    for (int wide = 0; wide < 2; ++wide) {
      memset(out, 0x5a, channels * sizeof(*out));
      if (wide) {
        tables[t].affine_wide(out, c->sums_wide, c->missing, &c->params);
      } else {
        tables[t].affine(out, c->sums, c->missing, &c->params);
      }
      for (uint32_t i = 0; i < channels; ++i) {
        /* The product of two float32 is exact in double, so this rounds once a step: a fused operation would differ. */
        double scale = 1.0;
        for (int s = c->params.step_log2; s != 0; s += s > 0 ? -1 : 1) {
          scale *= s > 0 ? 2.0 : 0.5;
        }
        volatile float product = (float)((double)c->params.multiplier[i] * ((double)defined_value(c, i) * scale));
        volatile float sum = product + c->params.offset[i];
        float expected = sum;
        if (memcmp(&out[i], &expected, sizeof(expected)) != 0) {
          fail_case(c, wide ? "affine_wide" : "affine", tables[t].isa, i);
        }
      }
    }
  }
}

static void set_sum(epilogue_case *c, uint32_t channel, uint32_t p) {
  c->sums[channel] = (uint16_t)p;
  c->sums_wide[channel] = p;
}

static void set_limit(const epilogue_case *c, uint32_t channel, uint32_t limit) {
  ((uint16_t *)(uintptr_t)c->params.limits)[channel] = (uint16_t)limit;
  ((uint32_t *)(uintptr_t)c->params.limits_wide)[channel] = limit;
}

/* Every (p, missing, limit) of small K. */
static void test_exhaustive(arenas *memory, const lqc_kernels *tables, size_t count, uint64_t *seed) {
  static const uint32_t ks[] = {1, 2, 9, 27};
  for (size_t i = 0; i < sizeof(ks) / sizeof(ks[0]); ++i) {
    uint32_t k = ks[i];
    epilogue_case c = new_case(memory, k + 1, seed);
    c.params.k = k;
    for (c.missing = 0; c.missing <= k; ++c.missing) {
      for (uint32_t limit = 0; limit <= 2 * k + 1; ++limit) {
        for (uint32_t p = 0; p <= k; ++p) {
          set_sum(&c, p, p <= k - c.missing ? p : 0);
          set_limit(&c, p, limit);
        }
        check_threshold(&c, memory, tables, count);
      }
      for (c.params.clip_limit = 1; c.params.clip_limit <= 127; c.params.clip_limit += k < 27 ? 1 : 42) {
        for (c.params.step_log2 = STEP_MIN; c.params.step_log2 <= 4; ++c.params.step_log2) {
          check_clip(&c, memory, tables, count);
        }
      }
    }
  }
}

/* Every accumulator |a| <= K at the largest K and its neighbour, all steps, limits at both ends. */
static void test_whole_range(arenas *memory, const lqc_kernels *tables, size_t count, uint64_t *seed) {
  static const int32_t clip_limits[] = {1, 7, 126, 127};
  for (uint32_t missing = 0; missing < 2; ++missing) {
    epilogue_case c = new_case(memory, MAX_CHANNELS, seed);
    c.params.k = LQC_BCONV_MAX_K;
    c.missing = missing;
    for (uint32_t first = 0; first <= c.params.k - missing; first += MAX_CHANNELS) {
      for (uint32_t i = 0; i < MAX_CHANNELS; ++i) {
        uint32_t p = first + i <= c.params.k - missing ? first + i : c.params.k - missing;
        set_sum(&c, i, p);
        set_limit(&c, i, i % 4 == 0 ? 0 : i % 4 == 1 ? 65535 : 2 * p + missing + i % 4 - 2); /* equal or above */
      }
      check_threshold(&c, memory, tables, count);
      uint32_t turn = first / MAX_CHANNELS;
      c.params.clip_limit = clip_limits[turn % 4];
      for (c.params.step_log2 = STEP_MIN; c.params.step_log2 <= STEP_MAX; ++c.params.step_log2) {
        check_clip(&c, memory, tables, count);
      }
      c.params.step_log2 = STEP_MIN + (int32_t)(turn % 21);
      check_affine(&c, memory, tables, count);
      c.params.clip_limit = 32767;
      check_affine(&c, memory, tables, count);
      c.params.clip_limit = 0;
      c.params.step_log2 = 0;
      check_affine(&c, memory, tables, count);
    }
  }
}

/* Accumulators around +-clip_limit and around ties, and thresholds there. */
static void test_edges(arenas *memory, const lqc_kernels *tables, size_t count, uint64_t *seed) {
  for (uint32_t k = 4607; k <= 4608; ++k) {
    for (int32_t step = STEP_MIN; step <= 5; ++step) {
      for (int32_t clip_limit = 1; clip_limit <= 127; clip_limit += 21) {
        epilogue_case c = new_case(memory, 64, seed);
        c.params.k = k;
        c.missing = random_below(seed, 3) * 512;
        c.params.step_log2 = step;
        c.params.clip_limit = clip_limit;
        int32_t edge = step >= 0 ? clip_limit << step : clip_limit >> -step;
        for (int32_t i = 0; i < 64; ++i) {
          int32_t a = (i < 32 ? edge : -edge) + i % 32 - 16;
          int32_t p = ((int32_t)k - (int32_t)c.missing - a) / 2;
          set_sum(&c, (uint32_t)i, p < 0 ? 0 : (uint32_t)p);
          /* +1 <=> a > T is 2p + missing < k - T */
          set_limit(&c, (uint32_t)i, (uint32_t)((int32_t)k - (i < 32 ? 127 : -127) + i % 3 - 1));
        }
        check_threshold(&c, memory, tables, count);
        check_clip(&c, memory, tables, count);
        check_affine(&c, memory, tables, count);
      }
    }
  }
}

static void test_shapes(arenas *memory, const lqc_kernels *tables, size_t count, uint64_t *seed) {
  for (uint32_t channels = 1; channels <= MAX_CHANNELS; channels += channels < 133 ? 1 : 37) {
    for (int turn = 0; turn < 4; ++turn) {
      epilogue_case c = new_case(memory, channels, seed);
      c.params.k = 1 + random_below(seed, LQC_BCONV_MAX_K);
      c.missing = random_below(seed, c.params.k + 1);
      c.params.step_log2 = STEP_MIN + (int32_t)random_below(seed, STEP_MAX - STEP_MIN + 1);
      c.params.clip_limit = 1 + (int32_t)random_below(seed, 127);
      for (uint32_t i = 0; i < channels; ++i) {
        set_sum(&c, i, random_below(seed, c.params.k - c.missing + 1));
        set_limit(&c, i, random_below(seed, 2 * c.params.k + 2));
      }
      check_threshold(&c, memory, tables, count);
      check_clip(&c, memory, tables, count);
      check_affine(&c, memory, tables, count);
    }
  }
}

/* Beyond 16 bits. */
static void test_wide(arenas *memory, const lqc_kernels *scalar, uint64_t *seed) {
  epilogue_case c = new_case(memory, 3, seed);
  c.params.k = 200000;
  c.params.invert = NULL;
  c.missing = 1000;
  uint32_t sums[] = {0, 99500, 199000}, limits[] = {1001, 200000, 399001};
  for (uint32_t i = 0; i < 3; ++i) {
    c.sums_wide[i] = sums[i];
    ((uint32_t *)(uintptr_t)c.params.limits_wide)[i] = limits[i];
  }
  uint64_t word;
  scalar->threshold_wide(&word, c.sums_wide, c.missing, &c.params);
  int8_t clipped[3];
  scalar->clip_wide(clipped, c.sums_wide, c.missing, &c.params);
  if (word != 2 || clipped[0] != 127 || clipped[1] != 0 || clipped[2] != -127) {
    FAIL("wide: bits %llx, clipped %d %d %d", (unsigned long long)word, clipped[0], clipped[1], clipped[2]);
  }
}

int main(void) {
  arenas memory = {guarded_new(4096), guarded_new(4096), guarded_new(4096), guarded_new(4096), guarded_new(4096),
                   guarded_new(4096), guarded_new(4096), guarded_new(4096), guarded_new(4096)};
  lqc_kernels tables[LQC_ISA_COUNT];
  size_t count = tables_to_test(tables);
  uint64_t seed = 7;
  test_shapes(&memory, tables, count, &seed);
  test_exhaustive(&memory, tables, count, &seed);
  test_edges(&memory, tables, count, &seed);
  test_whole_range(&memory, tables, count, &seed);
  test_wide(&memory, &tables[0], &seed);
  printf("epilogues: ok, %zu instruction sets\n", count);
  return 0;
}
