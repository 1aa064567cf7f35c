/* Every place of a model file that means something: its offsets, field lists, counts and numbers, found by the schema.
 */
#ifndef LQC_SCHEMA_WALK_H
#define LQC_SCHEMA_WALK_H

#include <stddef.h>
#include <stdint.h>

typedef enum schema_kind {
  SCHEMA_SCALAR,
  SCHEMA_STRUCT, /* `bytes` counts its words of 32 bits */
  SCHEMA_STRING,
  SCHEMA_VECTOR,
  SCHEMA_TABLE,
  SCHEMA_TABLES,
  SCHEMA_UNION /* the field before it is its type */
} schema_kind;

typedef struct schema_field {
  const char *name;
  schema_kind kind;
  uint32_t bytes; /* of a scalar, or of an element of a vector */
  uint32_t limit; /* values of an enum or members of a union; 0: a number */
  int child;      /* of a TABLE and of TABLES: index into schema_tables */
} schema_field;

typedef struct schema_table {
  const char *name;
  const schema_field *fields;
  size_t field_count;
} schema_table;

typedef enum site_kind {
  SITE_OFFSET,  /* 32 bits, to something behind it */
  SITE_VTABLE,  /* 32 bits, distance to the table's field list */
  SITE_SIZE,    /* 16 bits: bytes of a table or of its field list, or a field's place in the table */
  SITE_COUNT,   /* 32 bits: elements of a vector */
  SITE_SCALAR,  /* a field, or a word of a struct */
  SITE_ELEMENTS /* of a vector of numbers, or a string's characters */
} site_kind;

typedef struct site {
  site_kind kind;
  uint32_t position, bytes, count; /* `count` numbers of `bytes` bytes, one except for ELEMENTS */
  uint32_t limit;                  /* as of schema_field */
  const char *table, *field;
} site;

/* Fills sites[0 .. room) with the places found and returns how many. Whatever the bytes are, it reads only inside them
 * and ends: what does not lie inside the file is not followed, and at most `room` places are looked at. */
size_t walk_file(const uint8_t *data, size_t size, site *sites, size_t room);

#endif /* LQC_SCHEMA_WALK_H */
