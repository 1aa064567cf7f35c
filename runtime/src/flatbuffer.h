/* Reading a FlatBuffer that may be damaged or hostile.
 *
 * Every function checks that what it returns lies inside the buffer and is aligned for its type, in time that does not
 * depend on the file's content; so a table can be read at any time, before or after the whole file was checked.
 * Messages name the table's type, its index and the field. */
#ifndef LQC_FLATBUFFER_H
#define LQC_FLATBUFFER_H

#include <stdbool.h>

#include "error.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#  error "the runtime reads its little-endian files in place: big-endian machines are not supported"
#endif

typedef struct lqc_buffer {
  const uint8_t *data;
  uint32_t size;
} lqc_buffer;

/* A field of a table: its position in the schema (unions count twice) and its name. */
typedef struct lqc_field {
  uint16_t slot;
  const char *name;
} lqc_field;

typedef struct lqc_table {
  lqc_buffer buffer;
  lqc_error *error;
  const char *type; /* for messages: "Tensor" */
  uint32_t index;
  uint32_t position, vtable;
  uint16_t bytes, vtable_bytes;
} lqc_table;

typedef struct lqc_vector {
  const uint8_t *data; /* NULL where an optional vector is absent */
  uint32_t count;
  uint32_t position; /* of the first element */
} lqc_vector;

/* The root table; `size` bytes hold at least a root offset and an identifier. */
lqc_status lqc_root_table(lqc_buffer buffer, const char *type, lqc_table *table, lqc_error *error);

/* Whether the file gives the field a value. */
bool lqc_table_has(const lqc_table *table, lqc_field field);

/* A number of `bytes` bytes, copied to *value; where the field is absent, *value stays (the default). */
lqc_status lqc_table_scalar(const lqc_table *table, lqc_field field, void *value, uint32_t bytes);

/* A struct of `bytes` bytes of uint32_t, copied to *value; absent is an error. */
lqc_status lqc_table_struct(const lqc_table *table, lqc_field field, void *value, uint32_t bytes);

/* A vector of scalars of `element_bytes`, or of tables (element_bytes 4). */
lqc_status lqc_table_vector(const lqc_table *table, lqc_field field, uint32_t element_bytes, bool required,
                            lqc_vector *vector);

/* A terminated string; NULL where an optional one is absent. */
lqc_status lqc_table_string(const lqc_table *table, lqc_field field, bool required, const char **string);

/* A table inside a field; absent is an error. */
lqc_status lqc_table_table(const lqc_table *table, lqc_field field, const char *type, lqc_table *child);

/* Element i < vector->count of a vector of tables. */
lqc_status lqc_vector_table(lqc_buffer buffer, const lqc_vector *vector, uint32_t i, const char *type, lqc_table *table,
                            lqc_error *error);

uint32_t lqc_vector_u32(const lqc_vector *vector, uint32_t i);

#endif /* LQC_FLATBUFFER_H */
