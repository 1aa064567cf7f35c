/* Bitpacking: every ISA, scalar included, against the definition; inputs and outputs end at guard pages. Then the
 * selection of tables. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>

#include "kernels_testing.h"

enum { MAX_CHANNELS = 513, MAX_PIXELS = 3, MAX_SIGNS = 200 * 64 };

typedef struct arenas {
  guarded in, thresholds, invert, out;
} arenas;

/* Zeros of both signs, denormals, the ends of the range, and equal neighbours turn up often. */
static float random_float(uint64_t *seed) {
  static const float special[] = {0.0f, -0.0f, 1e-45f, -1e-45f, 3.4028235e38f, -3.4028235e38f, 1.0f, -1.0f};
  if (random_below(seed, 2)) {
    return special[random_below(seed, 8)];
  }
  return ((float)random_below(seed, 2001) - 1000.0f) / 8.0f;
}

static float random_threshold(uint64_t *seed) {
  uint32_t kind = random_below(seed, 8);
  return kind == 0 ? INFINITY : kind == 1 ? -INFINITY : random_float(seed);
}

static const uint64_t *random_invert(const arenas *memory, uint32_t channels, uint64_t *seed) {
  size_t words = (channels + 63) / 64;
  uint64_t *invert = guarded_last(&memory->invert, words * sizeof(*invert));
  for (size_t i = 0; i < words; ++i) {
    invert[i] = random_u64(seed);
  }
  invert[words - 1] &= last_word_mask(channels);
  return random_below(seed, 2) ? invert : NULL;
}

/* `bits` is one byte a channel, before inversion. */
static void check(const uint64_t *out, const uint8_t *bits, size_t pixels, uint32_t channels, const uint64_t *invert,
                  const char *what, lqc_isa isa) {
  size_t words = (channels + 63) / 64;
  for (size_t p = 0; p < pixels; ++p) {
    for (uint32_t i = 0; i < words * 64; ++i) {
      uint64_t expected = i < channels ? bits[p * channels + i] ^ (invert ? invert[i / 64] >> i % 64 & 1 : 0) : 0;
      if ((out[p * words + i / 64] >> i % 64 & 1) != expected) {
        FAIL("%s of %s: pixel %zu of %zu, channel %u of %u is %d, expected %d", what, lqc_isa_name(isa), p, pixels, i,
             channels, (int)(out[p * words + i / 64] >> i % 64 & 1), (int)expected);
      }
    }
  }
}

static void test_f32(arenas *memory, const lqc_kernels *table, uint32_t channels, size_t pixels, uint64_t *seed) {
  static uint8_t bits[MAX_PIXELS * MAX_CHANNELS];
  size_t n = pixels * channels, out_bytes = pixels * ((channels + 63) / 64) * sizeof(uint64_t);
  float *in = guarded_last(&memory->in, n * sizeof(*in));
  float *thresholds = guarded_last(&memory->thresholds, channels * sizeof(*thresholds));
  uint64_t *out = guarded_last(&memory->out, out_bytes);
  const uint64_t *invert = random_invert(memory, channels, seed);
  const int with_thresholds = (int)random_below(seed, 2);
  for (uint32_t c = 0; c < channels; ++c) {
    thresholds[c] = random_threshold(seed);
  }
  for (size_t i = 0; i < n; ++i) {
    in[i] = random_below(seed, 4) || isinf(thresholds[i % channels]) ? random_float(seed) : thresholds[i % channels];
    bits[i] = with_thresholds ? !(in[i] >= thresholds[i % channels]) : in[i] < 0.0f;
  }
  memset(out, 0x5a, out_bytes);
  table->bitpack_f32(out, in, pixels, channels, with_thresholds ? thresholds : NULL, invert);
  check(out, bits, pixels, channels, invert, with_thresholds ? "bitpack_f32 with thresholds" : "bitpack_f32",
        table->isa);
}

static void test_i8(arenas *memory, const lqc_kernels *table, uint32_t channels, size_t pixels, uint64_t *seed) {
  static uint8_t bits[MAX_PIXELS * MAX_CHANNELS];
  size_t n = pixels * channels, out_bytes = pixels * ((channels + 63) / 64) * sizeof(uint64_t);
  int8_t *in = guarded_last(&memory->in, n);
  int8_t *thresholds = guarded_last(&memory->thresholds, channels);
  uint64_t *out = guarded_last(&memory->out, out_bytes);
  const uint64_t *invert = random_invert(memory, channels, seed);
  const int with_thresholds = (int)random_below(seed, 2);
  for (uint32_t c = 0; c < channels; ++c) {
    uint32_t kind = random_below(seed, 8);
    thresholds[c] = (int8_t)(kind == 0 ? -128 : kind == 1 ? 127 : (int32_t)random_below(seed, 256) - 128);
  }
  for (size_t i = 0; i < n; ++i) {
    int32_t near = thresholds[i % channels] + (int32_t)random_below(seed, 3) - 1;
    in[i] =
        (int8_t)(near < -128 || near > 127 || random_below(seed, 2) ? (int32_t)random_below(seed, 256) - 128 : near);
    bits[i] = !(in[i] > (with_thresholds ? thresholds[i % channels] : -1));
  }
  memset(out, 0x5a, out_bytes);
  table->bitpack_i8(out, in, pixels, channels, with_thresholds ? thresholds : NULL, invert);
  check(out, bits, pixels, channels, invert, with_thresholds ? "bitpack_i8 with thresholds" : "bitpack_i8", table->isa);
}

/* Signs of whole words: many ordinary numbers, and one near zero among them, which loops over several words must not
   take for another. */
static void test_f32_signs(arenas *memory, const lqc_kernels *table, uint64_t *seed) {
  static const float tiny[] = {0.0f, -0.0f, 1e-45f, -1e-45f, 1e-38f, -1e-38f, 2.5e-38f, -2.5e-38f, -5e-38f};
  static uint8_t bits[MAX_SIGNS];
  for (size_t words = 1; words * 64 <= MAX_SIGNS; words += 1 + random_below(seed, 3)) {
    const size_t n = words * 64;
    float *in = guarded_last(&memory->in, n * sizeof(*in));
    uint64_t *out = guarded_last(&memory->out, words * sizeof(*out));
    for (size_t i = 0; i < n; ++i) {
      in[i] = ldexpf(random_below(seed, 2) ? 1.5f : -1.5f, (int)random_below(seed, 251) - 124);
    }
    if (random_below(seed, 4)) {
      in[random_below(seed, (uint32_t)n)] = tiny[random_below(seed, 9)];
    }
    for (size_t i = 0; i < n; ++i) {
      bits[i] = in[i] < 0.0f;
    }
    memset(out, 0x5a, words * sizeof(*out));
    table->bitpack_f32(out, in, words, 64, NULL, NULL);
    check(out, bits, words, 64, NULL, "bitpack_f32 of signs", table->isa);
  }
}

/* AUTO is the last of the available ISAs, save that the core decides between two of NEON; what is not available is
 * refused and leaves scalar. */
static void test_selection(const lqc_kernels *tables, size_t count) {
  lqc_kernels table;
  const lqc_kernels *best = &tables[count - 1];
  if (best->isa == LQC_ISA_NEON_IN_ORDER && !lqc_core_is_in_order()) {
    --best;
  }
  if (!lqc_kernels_select(&table, LQC_ISA_AUTO) || table.isa != best->isa || table.bconv != best->bconv) {
    FAIL("auto selects %s", lqc_isa_name(table.isa));
  }
  for (lqc_isa isa = LQC_ISA_AUTO; isa <= LQC_ISA_COUNT; ++isa) {
    int selected = lqc_kernels_select(&table, isa);
    if (selected != lqc_isa_available(isa)) {
      FAIL("isa %d: selected %d, available %d", (int)isa, selected, lqc_isa_available(isa));
    }
    if (!selected && table.isa != LQC_ISA_SCALAR) {
      FAIL("isa %d is refused but leaves %s", (int)isa, lqc_isa_name(table.isa));
    }
    if ((lqc_isa_name(isa) == NULL) != (isa >= LQC_ISA_COUNT)) {
      FAIL("isa %d: wrong name", (int)isa);
    }
  }
  static const struct {
    uint64_t midr;
    int in_order, credible;
  } cores[] = {{0x410fd034, 1, 1}, {0x410fd041, 1, 1}, {0x410fd083, 0, 1}, {0x414fd0b1, 0, 1},
               {0x410fd050, 0, 1}, {0x510fd034, 0, 1}, {0x410fc0f0, 0, 0}, {0, 0, 1}};
  /* A53, A35, A72, A76, A55, another maker's, A15 (of 32 bits), none */
  for (size_t i = 0; i < sizeof(cores) / sizeof(cores[0]); ++i) {
    if (lqc_midr_is_in_order(cores[i].midr) != cores[i].in_order ||
        lqc_midr_is_credible(cores[i].midr) != cores[i].credible) {
      FAIL("MIDR %#llx is taken for the wrong kind of core", (unsigned long long)cores[i].midr);
    }
  }
  const int probed = lqc_probe_is_in_order();
  if (probed != lqc_probe_is_in_order() || (probed != 0 && tables[count - 1].isa != LQC_ISA_NEON_IN_ORDER)) {
    FAIL("the probe changes its answer, or finds a core where there is none to find");
  }
  /* One list: every table's convolution is in it, once, and the wide one is its last. */
  size_t listed = 0;
  for (size_t t = 0; t < count; ++t) {
    const lqc_bconv_kernel *const expected[] = {tables[t].bconv, tables[t].bconv_pairs};
    for (size_t i = 0; i < 2; ++i) {
      if (expected[i] && lqc_bconv_kernel_at(listed++) != expected[i]) {
        FAIL("kernel %zu of the list is not %s of its table", listed - 1, expected[i]->name);
      }
    }
  }
  if (lqc_bconv_kernel_at(listed) != tables[0].bconv_wide || lqc_bconv_kernel_at(listed + 1) != NULL) {
    FAIL("the list of kernels does not end with the wide one");
  }
}

int main(void) {
  arenas memory = {guarded_new(MAX_SIGNS * sizeof(float)), guarded_new(4096), guarded_new(4096), guarded_new(4096)};
  lqc_kernels tables[LQC_ISA_COUNT];
  size_t count = tables_to_test(tables);
  test_selection(tables, count);
  for (size_t t = 0; t < count; ++t) {
    uint64_t seed = 11;
    test_f32_signs(&memory, &tables[t], &seed);
    for (uint32_t channels = 1; channels <= MAX_CHANNELS; channels += channels < 133 ? 1 : 19) {
      for (size_t pixels = 0; pixels <= MAX_PIXELS; ++pixels) {
        test_f32(&memory, &tables[t], channels, pixels, &seed);
        test_i8(&memory, &tables[t], channels, pixels, &seed);
      }
    }
  }
  printf("bitpack: ok, %zu instruction sets\n", count);
  return 0;
}
