/* Changes model files where they mean something. The places come from the schema (schema_walk.h). Most changes are
 * small and keep the file's frame, so that the checks behind the loader and the kernels see them too; and half of the
 * files are repaired: every tensor gets a place of its own, and every constant as many bytes as its shape takes. */
#include "fuzz.h"
#include "model_builder.h"
#include "schema_walk.h"

#define MOST_SITES 16384

typedef struct mutation {
  uint8_t *data;
  size_t size;
  const site *sites;
  size_t count;
  uint64_t seed;
} mutation;

static uint64_t read_at(const mutation *m, uint32_t position, uint32_t bytes) {
  uint64_t value = 0;
  memcpy(&value, m->data + position, bytes);
  return value;
}

static void write_at(const mutation *m, uint32_t position, uint32_t bytes, uint64_t value) {
  memcpy(m->data + position, &value, bytes);
}

static const site *random_site(mutation *m) {
  return &m->sites[random_below(&m->seed, (uint32_t)m->count)];
}

static uint32_t some_element(mutation *m, const site *place) {
  return place->position + place->bytes * random_below(&m->seed, place->count);
}

/* A number that may mean something in place of `value`. */
static uint64_t another_number(mutation *m, const site *place, uint64_t value) {
  static const uint32_t floats[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                    0xff800000, 0x7fc00000, 1,          0x7f7fffff};
  const site *other = random_site(m);
  switch (random_below(&m->seed, 9)) {
  case 0:
    return value + 1;
  case 1:
    return value - 1;
  case 2:
    return random_below(&m->seed, place->limit > 0 ? place->limit + 1 : 10);
  case 3:
    return (uint64_t)1 << random_below(&m->seed, 8 * place->bytes);
  case 4:
    return random_u64(&m->seed) >> random_below(&m->seed, 64);
  case 5:
    return value ^ (uint64_t)1 << random_below(&m->seed, 8 * place->bytes);
  case 6:
    return 0 - (uint64_t)random_below(&m->seed, 4);
  case 7: /* signed zeros and ones, infinities, NaN, the smallest and the largest */
    return place->bytes == 4 ? floats[random_below(&m->seed, sizeof(floats) / sizeof(floats[0]))] : value;
  default: /* what another place of the same size holds */
    return other->bytes == place->bytes && other->count > 0 ? read_at(m, some_element(m, other), other->bytes)
                                                            : value + 2;
  }
}

/* Lets two places of the same field, as two ops, change their targets, or lets one point where another one does. */
static void change_offset(mutation *m, const site *place) {
  for (int attempt = 0; attempt < 32; ++attempt) {
    const site *other = random_site(m);
    if (other != place && other->kind == SITE_OFFSET && other->table == place->table && other->field == place->field) {
      uint32_t first = (uint32_t)read_at(m, place->position, 4) + place->position;
      uint32_t second = (uint32_t)read_at(m, other->position, 4) + other->position;
      write_at(m, place->position, 4, second - place->position);
      if (random_bit(&m->seed)) {
        write_at(m, other->position, 4, first - other->position);
      }
      return;
    }
  }
  write_at(m, place->position, 4, another_number(m, place, read_at(m, place->position, 4)));
}

/* The same number in all shapes becomes another one: more or fewer channels, rows or columns, everywhere. */
static void change_all_shapes(mutation *m, const site *place) {
  uint32_t before = (uint32_t)read_at(m, some_element(m, place), 4);
  uint32_t after = random_bit(&m->seed) ? before + random_below(&m->seed, 5) - 2 : 1 + random_below(&m->seed, 140);
  for (size_t i = 0; i < m->count; ++i) {
    const site *shape = &m->sites[i];
    for (uint32_t e = 0; shape->kind == SITE_ELEMENTS && strcmp(shape->field, "shape") == 0 && e < shape->count; ++e) {
      if (read_at(m, shape->position + 4 * e, 4) == before) {
        write_at(m, shape->position + 4 * e, 4, after);
      }
    }
  }
}

static void change_site(mutation *m) {
  const site *place = random_site(m);
  bool frame = place->kind != SITE_SCALAR && place->kind != SITE_ELEMENTS;
  if (place->count == 0 || (frame && random_below(&m->seed, 4) != 0)) {
    return;
  }
  if (place->kind == SITE_OFFSET) {
    change_offset(m, place);
  } else if (place->kind == SITE_ELEMENTS && strcmp(place->field, "shape") == 0 && random_bit(&m->seed)) {
    change_all_shapes(m, place);
  } else {
    uint32_t position = some_element(m, place);
    write_at(m, position, place->bytes, another_number(m, place, read_at(m, position, place->bytes)));
  }
}

/* A Tensor or Constant, as its places name it. */
typedef struct array {
  uint32_t dtype, rank, shape[4], offset, data_count; /* the last two are positions; 0: none */
} array;

static void repair_array(const mutation *m, const array *a, uint64_t *arena) {
  size_t bytes = a->dtype < LQC_DTYPE_COUNT ? lqc_array_bytes((lqc_dtype)a->dtype, a->shape, a->rank) : 0;
  if (a->offset != 0 && bytes < UINT32_MAX) {
    write_at(m, a->offset, 8, *arena);
    *arena += ((uint64_t)bytes + 63) / 64 * 64;
  }
  if (a->data_count != 0 && a->data_count + 4 + (uint64_t)bytes <= m->size) {
    write_at(m, a->data_count, 4, bytes);
  }
}

static void repair(const mutation *m) {
  uint64_t arena = 0;
  uint32_t arena_bytes = 0;
  array a = {0};
  for (size_t i = 0; i < m->count; ++i) {
    const site *s = &m->sites[i];
    if (s->kind == SITE_VTABLE) {
      repair_array(m, &a, &arena);
      a = (array){0};
    } else if (strcmp(s->table, "Model") == 0) {
      arena_bytes = s->kind == SITE_SCALAR && strcmp(s->field, "arena_bytes") == 0 ? s->position : arena_bytes;
    } else if (strcmp(s->table, "Tensor") != 0 && strcmp(s->table, "Constant") != 0) {
      continue;
    } else if (s->kind == SITE_SCALAR && strcmp(s->field, "dtype") == 0) {
      a.dtype = m->data[s->position];
    } else if (s->kind == SITE_SCALAR && strcmp(s->field, "offset") == 0) {
      a.offset = s->position;
    } else if (s->kind == SITE_COUNT && strcmp(s->field, "data") == 0) {
      a.data_count = s->position;
    } else if (s->kind == SITE_ELEMENTS && strcmp(s->field, "shape") == 0) {
      a.rank = s->count < 4 ? s->count : 4;
      memcpy(a.shape, m->data + s->position, 4 * a.rank);
    }
  }
  repair_array(m, &a, &arena);
  if (arena_bytes != 0) {
    write_at(m, arena_bytes, 8, arena);
  }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  static site sites[MOST_SITES];
  mutation m = {.data = data, .size = size, .sites = sites, .seed = seed};
  if (random_below(&m.seed, 16) == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  m.count = walk_file(data, size, sites, MOST_SITES);
  if (m.count < 8) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  for (uint32_t changes = 1 + random_below(&m.seed, 6); changes > 0; --changes) {
    change_site(&m);
  }
  if (random_bit(&m.seed)) {
    m.count = walk_file(data, size, sites, MOST_SITES); /* the frame may have changed */
    repair(&m);
  }
  return size;
}
