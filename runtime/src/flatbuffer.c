#include "flatbuffer.h"

#include <string.h>

/* All positions are below 2^31 and all sums are made in 64 bits, so nothing here can wrap. */

static uint16_t read_u16(const uint8_t *p) {
  uint16_t value;
  memcpy(&value, p, sizeof(value));
  return value;
}

static uint32_t read_u32(const uint8_t *p) {
  uint32_t value;
  memcpy(&value, p, sizeof(value));
  return value;
}

static bool inside(lqc_buffer buffer, uint64_t position, uint64_t bytes) {
  return position <= buffer.size && bytes <= buffer.size - position;
}

/* Fills position, vtable and their sizes of a table whose type and index are set. */
static lqc_status open_table(lqc_table *t, uint64_t position) {
  if (!inside(t->buffer, position, 4)) {
    return lqc_fail(t->error, LQC_ERROR_TRUNCATED, "%s %u lies at byte %llu, outside the file of %u bytes", t->type,
                    t->index, (unsigned long long)position, t->buffer.size);
  }
  if (position % 4 != 0) {
    return lqc_fail(t->error, LQC_ERROR_MALFORMED, "%s %u lies at byte %llu, not a multiple of 4", t->type, t->index,
                    (unsigned long long)position);
  }
  t->position = (uint32_t)position;
  int64_t vtable = (int64_t)position - (int32_t)read_u32(t->buffer.data + position);
  if (vtable < 0 || !inside(t->buffer, (uint64_t)vtable, 4)) {
    return lqc_fail(t->error, LQC_ERROR_TRUNCATED, "the field list of %s %u lies at byte %lld, outside the file",
                    t->type, t->index, (long long)vtable);
  }
  t->vtable = (uint32_t)vtable;
  t->vtable_bytes = read_u16(t->buffer.data + vtable);
  t->bytes = read_u16(t->buffer.data + vtable + 2);
  if (vtable % 2 != 0 || t->vtable_bytes < 4 || t->vtable_bytes % 2 != 0 || t->bytes < 4) {
    return lqc_fail(t->error, LQC_ERROR_MALFORMED, "the field list of %s %u at byte %lld is not one (sizes %u and %u)",
                    t->type, t->index, (long long)vtable, (unsigned)t->vtable_bytes, (unsigned)t->bytes);
  }
  if (!inside(t->buffer, t->vtable, t->vtable_bytes) || !inside(t->buffer, position, t->bytes)) {
    return lqc_fail(t->error, LQC_ERROR_TRUNCATED, "%s %u at byte %llu reaches beyond the end of the file", t->type,
                    t->index, (unsigned long long)position);
  }
  return LQC_OK;
}

lqc_status lqc_root_table(lqc_buffer buffer, const char *type, lqc_table *table, lqc_error *error) {
  *table = (lqc_table){.buffer = buffer, .error = error, .type = type};
  return open_table(table, read_u32(buffer.data));
}

/* Offset of the field in the table, 0 where absent. */
static uint16_t field_offset(const lqc_table *t, lqc_field field) {
  uint32_t place = 4u + 2u * field.slot;
  return place + 2 <= t->vtable_bytes ? read_u16(t->buffer.data + t->vtable + place) : 0;
}

bool lqc_table_has(const lqc_table *table, lqc_field field) {
  return field_offset(table, field) != 0;
}

static lqc_status fail_field(const lqc_table *t, lqc_field field, lqc_status status, const char *problem) {
  return lqc_fail(t->error, status, "field '%s' of %s %u %s", field.name, t->type, t->index, problem);
}

/* Where the field's `bytes` bytes start, checked; 0 where absent. */
static lqc_status field_position(const lqc_table *t, lqc_field field, uint32_t bytes, uint32_t alignment,
                                 uint32_t *position) {
  uint32_t offset = field_offset(t, field);
  *position = 0;
  if (offset == 0) {
    return LQC_OK;
  }
  if (offset < 4 || offset + bytes > t->bytes) {
    return fail_field(t, field, LQC_ERROR_TRUNCATED, "lies outside its table");
  }
  if ((t->position + offset) % alignment != 0) {
    return fail_field(t, field, LQC_ERROR_MALFORMED, "is not aligned for its type");
  }
  *position = t->position + offset;
  return LQC_OK;
}

static lqc_status fail_missing(const lqc_table *t, lqc_field field) {
  return fail_field(t, field, LQC_ERROR_MALFORMED, "is required and missing");
}

lqc_status lqc_table_scalar(const lqc_table *table, lqc_field field, void *value, uint32_t bytes) {
  uint32_t position;
  LQC_TRY(field_position(table, field, bytes, bytes, &position));
  if (position != 0) {
    memcpy(value, table->buffer.data + position, bytes);
  }
  return LQC_OK;
}

lqc_status lqc_table_struct(const lqc_table *table, lqc_field field, void *value, uint32_t bytes) {
  uint32_t position;
  LQC_TRY(field_position(table, field, bytes, 4, &position));
  if (position == 0) {
    return fail_missing(table, field);
  }
  memcpy(value, table->buffer.data + position, bytes);
  return LQC_OK;
}

/* Follows the offset stored in a field to its target; *target is 0 where the field is absent and not required. */
static lqc_status follow(const lqc_table *t, lqc_field field, bool required, uint64_t *target) {
  uint32_t position;
  LQC_TRY(field_position(t, field, 4, 4, &position));
  *target = 0;
  if (position == 0) {
    return required ? fail_missing(t, field) : LQC_OK;
  }
  *target = (uint64_t)position + read_u32(t->buffer.data + position);
  if (!inside(t->buffer, *target, 4)) {
    return fail_field(t, field, LQC_ERROR_TRUNCATED, "points outside the file");
  }
  if (*target % 4 != 0) {
    return fail_field(t, field, LQC_ERROR_MALFORMED, "points to a place that is not a multiple of 4");
  }
  return LQC_OK;
}

lqc_status lqc_table_vector(const lqc_table *table, lqc_field field, uint32_t element_bytes, bool required,
                            lqc_vector *vector) {
  uint64_t target;
  LQC_TRY(follow(table, field, required, &target));
  *vector = (lqc_vector){NULL, 0, 0};
  if (target == 0) {
    return LQC_OK;
  }
  uint32_t count = read_u32(table->buffer.data + target);
  if (!inside(table->buffer, target + 4, (uint64_t)count * element_bytes)) {
    return lqc_fail(table->error, LQC_ERROR_TRUNCATED,
                    "field '%s' of %s %u says it has %u elements, which do not fit into the file", field.name,
                    table->type, table->index, count);
  }
  if ((target + 4) % element_bytes != 0) {
    return fail_field(table, field, LQC_ERROR_MALFORMED, "is not aligned for its elements");
  }
  *vector = (lqc_vector){table->buffer.data + target + 4, count, (uint32_t)target + 4};
  return LQC_OK;
}

lqc_status lqc_table_string(const lqc_table *table, lqc_field field, bool required, const char **string) {
  lqc_vector text;
  LQC_TRY(lqc_table_vector(table, field, 1, required, &text));
  *string = (const char *)text.data;
  if (text.data == NULL) {
    return LQC_OK;
  }
  if (!inside(table->buffer, (uint64_t)text.position + text.count, 1)) {
    return fail_field(table, field, LQC_ERROR_TRUNCATED, "has no terminating zero inside the file");
  }
  if (text.data[text.count] != 0) {
    return fail_field(table, field, LQC_ERROR_MALFORMED, "is a string without a terminating zero");
  }
  return LQC_OK;
}

lqc_status lqc_table_table(const lqc_table *table, lqc_field field, const char *type, lqc_table *child) {
  uint64_t target;
  LQC_TRY(follow(table, field, true, &target));
  *child = (lqc_table){.buffer = table->buffer, .error = table->error, .type = type, .index = table->index};
  return open_table(child, target);
}

lqc_status lqc_vector_table(lqc_buffer buffer, const lqc_vector *vector, uint32_t i, const char *type, lqc_table *table,
                            lqc_error *error) {
  uint32_t position = vector->position + 4 * i;
  *table = (lqc_table){.buffer = buffer, .error = error, .type = type, .index = i};
  return open_table(table, (uint64_t)position + read_u32(buffer.data + position));
}

uint32_t lqc_vector_u32(const lqc_vector *vector, uint32_t i) {
  return read_u32(vector->data + 4 * (size_t)i);
}
