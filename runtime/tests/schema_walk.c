#include "schema_walk.h"

#include <stdbool.h>
#include <string.h>

#include "schema_tables.h" /* generated */

#define MOST_TABLES 4096
#define UNION_COUNT (sizeof(schema_union) / sizeof(schema_union[0]))

typedef struct found_table {
  uint64_t position;
  int table;
} found_table;

typedef struct walker {
  const uint8_t *data;
  size_t size;
  site *sites;
  size_t count, room;
  found_table tables[MOST_TABLES]; /* found, visited from the first to the last */
  size_t table_count;
} walker;

static uint32_t number_at(const walker *w, uint64_t position, uint32_t bytes) {
  uint32_t value = 0;
  memcpy(&value, w->data + position, bytes);
  return value;
}

static bool inside(const walker *w, uint64_t position, uint64_t bytes) {
  return position <= w->size && bytes <= w->size - position;
}

/* False where the place is outside the file or no room is left. */
static bool add_site(walker *w, site_kind kind, uint64_t position, uint32_t bytes, uint32_t count, uint32_t limit,
                     const char *table, const char *field) {
  if (w->count == w->room || !inside(w, position, (uint64_t)bytes * count)) {
    return false;
  }
  w->sites[w->count++] = (site){kind, (uint32_t)position, bytes, count, limit, table, field};
  return true;
}

static void add_table(walker *w, uint64_t position, int table) {
  if (w->table_count < MOST_TABLES) {
    w->tables[w->table_count++] = (found_table){position, table};
  }
}

static void visit_vector(walker *w, uint64_t position, const char *table, const schema_field *field) {
  if (!add_site(w, SITE_COUNT, position, 4, 1, 0, table, field->name)) {
    return;
  }
  uint32_t count = number_at(w, position, 4);
  if (field->kind != SCHEMA_TABLES) {
    add_site(w, SITE_ELEMENTS, position + 4, field->kind == SCHEMA_STRING ? 1 : field->bytes, count, 0, table,
             field->name);
    return;
  }
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t element = position + 4 + 4 * (uint64_t)i;
    if (!add_site(w, SITE_OFFSET, element, 4, 1, 0, table, field->name)) {
      return;
    }
    add_table(w, element + number_at(w, element, 4), field->child);
  }
}

/* `type`: where the field before, perhaps the type of a union, lies; 0 for none. */
static void visit_field(walker *w, uint64_t position, uint64_t type, const char *table, const schema_field *field) {
  if (field->kind == SCHEMA_SCALAR) {
    add_site(w, SITE_SCALAR, position, field->bytes, 1, field->limit, table, field->name);
    return;
  }
  if (field->kind == SCHEMA_STRUCT) {
    for (uint32_t i = 0; i < field->bytes; ++i) {
      add_site(w, SITE_SCALAR, position + 4 * i, 4, 1, 0, table, field->name);
    }
    return;
  }
  if (!add_site(w, SITE_OFFSET, position, 4, 1, 0, table, field->name)) {
    return;
  }
  uint64_t target = position + number_at(w, position, 4);
  if (field->kind == SCHEMA_TABLE) {
    add_table(w, target, field->child);
  } else if (field->kind == SCHEMA_UNION) {
    uint32_t member = type != 0 ? w->data[type] : 0;
    if (member >= 1 && member <= UNION_COUNT) {
      add_table(w, target, schema_union[member - 1]);
    }
  } else {
    visit_vector(w, target, table, field);
  }
}

static void visit_table(walker *w, uint64_t position, const schema_table *table) {
  if (!add_site(w, SITE_VTABLE, position, 4, 1, 0, table->name, "its field list")) {
    return;
  }
  int64_t vtable = (int64_t)position - (int32_t)number_at(w, position, 4);
  if (vtable < 0 || !inside(w, (uint64_t)vtable, 4)) {
    return;
  }
  uint64_t list = (uint64_t)vtable, before = 0;
  uint32_t bytes = number_at(w, list, 2);
  add_site(w, SITE_SIZE, list, 2, 1, 0, table->name, "bytes of its field list");
  add_site(w, SITE_SIZE, list + 2, 2, 1, 0, table->name, "bytes");
  for (size_t i = 0; i < table->field_count && 4 + 2 * i + 2 <= bytes; ++i) {
    if (!add_site(w, SITE_SIZE, list + 4 + 2 * i, 2, 1, 0, table->name, table->fields[i].name)) {
      return;
    }
    uint32_t offset = number_at(w, list + 4 + 2 * i, 2);
    uint64_t place = offset != 0 && inside(w, position + offset, 1) ? position + offset : 0;
    if (place != 0) {
      visit_field(w, place, before, table->name, &table->fields[i]);
    }
    before = place;
  }
}

size_t walk_file(const uint8_t *data, size_t size, site *sites, size_t room) {
  static walker w; /* too large for a stack; tests have one thread */
  w = (walker){.data = data, .size = size, .sites = sites, .room = room};
  if (size > UINT32_MAX || !add_site(&w, SITE_OFFSET, 0, 4, 1, 0, "file", "root")) {
    return 0;
  }
  add_table(&w, number_at(&w, 0, 4), SCHEMA_Model);
  for (size_t i = 0; i < w.table_count && w.count < room; ++i) {
    visit_table(&w, w.tables[i].position, &schema_tables[w.tables[i].table]);
  }
  return w.count;
}
