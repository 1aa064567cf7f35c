/* Files with one thing wrong, at every place where something can be: each offset, field list, count and number of
 * three sample networks gets values that point outside, backwards, between, at one another, or overflow a product.
 * Besides, whole attacks: shapes whose bytes overflow, ops in another order, tensors in one another's place.
 *
 * What must not happen is an access outside the file or the session, undefined behaviour, or a wrong result: a file
 * that is accepted although its ops or places were changed gives the outputs of the file before. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "hostile.h"
#include "schema_walk.h"

#define MOST_SITES 8192

typedef struct sample {
  built_model m;
  built_file file;
  site sites[MOST_SITES];
  size_t site_count;
  uint64_t digest;
} sample;

static void open_sample(sample *s, void (*build)(built_model *m, uint64_t seed)) {
  build(&s->m, 7);
  s->file = build_file(&s->m);
  s->site_count = walk_file(s->file.data, s->file.size, s->sites, MOST_SITES);
  EXPECT(s->site_count > 500 && s->site_count < MOST_SITES, "%zu sites", s->site_count);
  hostile_use used = use_file(s->file.data, s->file.size);
  EXPECT(used.ran, "status %d", (int)used.status);
  s->digest = used.digest;
}

static bool has_site(const sample *s, const char *field, uint32_t words) {
  uint32_t found = 0;
  for (size_t i = 0; i < s->site_count; ++i) {
    found += s->sites[i].kind == SITE_SCALAR && strcmp(s->sites[i].field, field) == 0;
  }
  return found > 0 && found % words == 0;
}

static void close_sample(sample *s) {
  free(s->file.data);
  model_end(&s->m);
}

/* ---- One number ------------------------------------------------------------------------------------------------- */

static uint64_t read_number(const uint8_t *data, uint32_t bytes) {
  uint64_t value = 0;
  memcpy(&value, data, bytes); /* little-endian, as all machines this builds for */
  return value;
}

static void try_value(const sample *s, uint32_t position, uint32_t bytes, uint64_t value) {
  uint64_t before = read_number(s->file.data + position, bytes);
  memcpy(s->file.data + position, &value, bytes);
  use_file(s->file.data, s->file.size);
  memcpy(s->file.data + position, &before, bytes);
}

/* Beside the value, beside every power of two, and beside what overflows when it is multiplied by 3, 4, 5, 8 or 64. */
static void attack_number(const sample *s, uint32_t position, uint32_t bytes) {
  uint64_t value = read_number(s->file.data + position, bytes),
           all = bytes < 8 ? ((uint64_t)1 << 8 * bytes) - 1 : UINT64_MAX;
  for (uint32_t bit = 0; bit < 8 * bytes; bit += bit < 8 || bytes < 4 ? 1 : 4) {
    try_value(s, position, bytes, (uint64_t)1 << bit);
    try_value(s, position, bytes, ((uint64_t)1 << bit) - 1);
    try_value(s, position, bytes, value ^ (uint64_t)1 << bit);
  }
  static const uint32_t factors[] = {1, 3, 4, 5, 8, 64};
  for (size_t i = 0; i < sizeof(factors) / sizeof(factors[0]); ++i) {
    try_value(s, position, bytes, all / factors[i]);
    try_value(s, position, bytes, all / factors[i] + 1);
  }
  try_value(s, position, bytes, value + 1);
  try_value(s, position, bytes, value - 1);
  try_value(s, position, bytes, 0 - value);
  try_value(s, position, bytes, 1000000000);
  if (bytes == 4) { /* +-infinity; a NaN was among `all` */
    try_value(s, position, bytes, 0x7f800000);
    try_value(s, position, bytes, 0xff800000);
  }
}

/* Outside, backwards, between, and at what other offsets point to. */
static void attack_offset(const sample *s, const site *place, uint64_t *seed) {
  uint32_t position = place->position, size = (uint32_t)s->file.size, value;
  memcpy(&value, s->file.data + position, 4);
  const uint32_t values[] = {0,
                             1,
                             2,
                             3,
                             4,
                             8,
                             value + 1,
                             value - 1,
                             value + 2,
                             value - 2,
                             value + 4,
                             value - 4,
                             value + 8,
                             value - 8,
                             size - position,
                             size - position - 1,
                             size - position - 2,
                             size - position - 4,
                             size - position - 8,
                             size - position + 4,
                             0 - position,
                             0 - value,
                             0x7fffffff,
                             0x80000000,
                             0x80000004,
                             0xffffffff,
                             0xfffffffc,
                             0 - size};
  for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); ++i) {
    try_value(s, position, 4, values[i]);
  }
  for (int i = 0; i < 12; ++i) {
    const site *other = &s->sites[random_below(seed, (uint32_t)s->site_count)];
    try_value(s, position, 4, place->kind == SITE_VTABLE ? position - other->position : other->position - position);
  }
}

/* Elements up to the end of the file, one fewer, one more. */
static void attack_count(const sample *s, const site *place) {
  uint32_t room = (uint32_t)s->file.size - place->position - 4;
  for (uint32_t element = 1; element <= 8; element *= 2) {
    for (uint32_t beside = 0; beside < 3; ++beside) {
      try_value(s, place->position, 4, room / element + beside - 1);
    }
  }
}

/* A table that says it is as large as can be, and its fields at the end of the file and behind. */
static void attack_table(const sample *s, const site *size) {
  const uint16_t largest = 0xfffc;
  uint32_t table = size[-2].position, end = (uint32_t)s->file.size - table;
  uint64_t before = read_number(s->file.data + size->position, 2);
  memcpy(s->file.data + size->position, &largest, 2);
  for (const site *slot = size + 1; slot < s->sites + s->site_count && slot->kind != SITE_VTABLE; ++slot) {
    for (uint32_t place = end - 8; slot->kind == SITE_SIZE && place <= end + 8 && place < largest; place += 4) {
      try_value(s, slot->position, 2, place);
    }
  }
  memcpy(s->file.data + size->position, &before, 2);
}

static void attack_site(const sample *s, const site *place, uint64_t *seed) {
  if (place->kind == SITE_COUNT) {
    attack_count(s, place);
  } else if (place->kind == SITE_SIZE && place[-1].kind == SITE_SIZE && place[-2].kind == SITE_VTABLE) {
    attack_table(s, place);
  }
  if (place->kind == SITE_OFFSET || place->kind == SITE_VTABLE) {
    attack_offset(s, place, seed);
  } else if (place->bytes == 1 && place->kind == SITE_SCALAR) { /* enums, all values */
    for (uint32_t value = 0; value < 256; ++value) {
      try_value(s, place->position, 1, value);
    }
  } else {
    uint32_t count = place->bytes > 1 || place->count < 4 ? place->count : 4;
    for (uint32_t i = 0; i < count; ++i) {
      attack_number(s, place->position + i * place->bytes, place->bytes);
    }
  }
}

/* ---- Shapes ----------------------------------------------------------------------------------------------------- */

/* One op on images of a shape: what is accepted has its memory counted without overflow. */
static void attack_shape(lqc_op_kind kind, lqc_dtype in, lqc_dtype out, const uint32_t *shape, int *accepted) {
  built_model m;
  lqc_model model;
  size_t bytes;
  model_start(&m);
  m.inputs[m.input_count++] = add_tensor(&m, "x", in, 1, 1, 1);
  m.outputs[m.output_count++] = add_tensor(&m, "y", out, 1, 1, 1);
  memcpy(m.tensors[0].shape, shape, 12);
  memcpy(m.tensors[1].shape, shape, 12);
  add_op(&m, make_op(kind, "op", 0, 1));
  const double sizes[] = {1.0 / 8, 1, 2, 4, 4};
  double pixels = (double)shape[0] * shape[1], each = pixels * shape[2];
  double most = each * sizes[in] + each * sizes[out];
  uint64_t first = (uint64_t)shape[0] * shape[1] * shape[2] * 8; /* wraps, as a careless reader's product would */
  const uint64_t arenas[] = {(uint64_t)1 << 62, ~(uint64_t)0, first, (uint32_t)first, 64, 0};
  for (size_t i = 0; i < sizeof(arenas) / sizeof(arenas[0]); ++i) {
    m.arena_bytes = arenas[i];
    m.tensors[1].offset = arenas[i] / 128 * 64;
    built_file file = build_file(&m);
    for (int keep = 0; keep < 2; ++keep) {
      const lqc_options options = {.keep_tensors = keep};
      if (lqc_model_load(&model, file.data, file.size, NULL) == LQC_OK &&
          lqc_session_size(&model, &options, &bytes, NULL) == LQC_OK) {
        EXPECT((double)bytes >= most, "op %d, shape %u x %u x %u: %zu bytes hold %.0f", (int)kind, shape[0], shape[1],
               shape[2], bytes, most);
        ++*accepted;
      }
    }
    use_file(file.data, file.size);
    free(file.data);
  }
  model_end(&m);
}

static void test_shapes(void) {
  static const uint32_t sizes[] = {0,     1,        3,        1000,           46341,    65535,      65536,
                                   65537, 1u << 20, 1u << 24, (1u << 24) + 1, 1u << 31, 0xffffffff, 1000000000};
  static const lqc_dtype dtypes[] = {LQC_BIT, LQC_INT8, LQC_INT16, LQC_FLOAT32};
  const uint32_t count = sizeof(sizes) / sizeof(sizes[0]);
  int accepted = 0;
  for (int kind = 1; kind < LQC_OP_KIND_COUNT; ++kind) {
    for (uint32_t d = 0; d < 16; ++d) {
      for (uint32_t i = (uint32_t)kind + d; i < count * count * count;
           i += 97) { /* no divisor of 14: every pair of sizes */
        const uint32_t shape[3] = {sizes[i % count], sizes[i / count % count], sizes[i / count / count]};
        attack_shape((lqc_op_kind)kind, dtypes[d % 4], dtypes[d / 4], shape, &accepted);
      }
    }
  }
  EXPECT(accepted > 10, "only %d shapes were accepted", accepted);
}

/* ---- Order and places ------------------------------------------------------------------------------------------- */

static bool is_accepted(const sample *s, const char *what, uint32_t a, uint32_t b) {
  built_file file = build_file(&s->m);
  hostile_use used = use_file(file.data, file.size);
  free(file.data);
  EXPECT(!used.ran || used.digest == s->digest, "%s %u and %u: another result", what, a, b);
  return used.ran;
}

static void test_order(sample *s) {
  int accepted = 0, refused = 0;
  for (uint32_t a = 0; a < s->m.op_count; ++a) {
    for (uint32_t b = 0; b < a; ++b) {
      lqc_op first = s->m.ops[a].op, second = s->m.ops[b].op;
      s->m.ops[a].op = second;
      s->m.ops[b].op = first;
      *(is_accepted(s, "ops", a, b) ? &accepted : &refused) += 1;
      s->m.ops[a].op = first;
      s->m.ops[b].op = second;
    }
  }
  EXPECT(accepted > 0 && refused > 10, "%d orders accepted, %d refused", accepted, refused);
}

/* Each tensor in the place of each other one, or half over it. */
static void test_places(sample *s) {
  int accepted = 0, refused = 0;
  for (uint32_t a = 0; a < s->m.tensor_count; ++a) {
    uint64_t own = s->m.tensors[a].offset;
    for (uint32_t b = 0; b < s->m.tensor_count; ++b) {
      for (int shift = -1; shift <= 1; ++shift) {
        s->m.tensors[a].offset = s->m.tensors[b].offset + (uint64_t)(64 * (int64_t)shift);
        *(is_accepted(s, "tensors", a, b) ? &accepted : &refused) += 1;
      }
    }
    s->m.tensors[a].offset = own;
  }
  EXPECT(accepted > 10 && refused > 10, "%d places accepted, %d refused", accepted, refused);
}

int main(void) {
  static sample s;
  static void (*const samples[])(built_model *m, uint64_t seed) = {sample_network, integer_network, plain_network};
  for (size_t n = 0; n < sizeof(samples) / sizeof(samples[0]); ++n) {
    uint64_t seed = 11;
    open_sample(&s, samples[n]);
    EXPECT(has_site(&s, "window", 8) && (samples[n] != plain_network || has_site(&s, "activation", 2)),
           "the words of a struct are not attacked");
    for (size_t i = 0; i < s.site_count; ++i) {
      attack_site(&s, &s.sites[i], &seed);
    }
    EXPECT(use_file(s.file.data, s.file.size).digest == s.digest, "the file was not restored");
    test_order(&s);
    test_places(&s);
    close_sample(&s);
  }
  test_shapes();
  return 0;
}
