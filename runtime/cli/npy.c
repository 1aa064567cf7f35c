#include "npy.h"

#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
#define MAGIC_BYTES 6
#define MAX_HEADER 65535u

static int fail(char *message, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, NPY_MESSAGE, format, arguments);
  va_end(arguments);
  return -1;
}

/* The header is a Python dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 28, 28, 1), } */
typedef struct cursor {
  const char *at;
} cursor;

static void skip_spaces(cursor *c) {
  while (isspace((unsigned char)*c->at)) {
    ++c->at;
  }
}

/* Takes `text` where it comes next. */
static bool take(cursor *c, const char *text) {
  skip_spaces(c);
  size_t length = strlen(text);
  if (strncmp(c->at, text, length) != 0) {
    return false;
  }
  c->at += length;
  return true;
}

/* Takes a string without escapes, of less than `room` characters. */
static bool take_string(cursor *c, char *text, size_t room) {
  skip_spaces(c);
  char quote = *c->at;
  if (quote != '\'' && quote != '"') {
    return false;
  }
  const char *end = strchr(c->at + 1, quote);
  if (end == NULL || (size_t)(end - c->at) > room) {
    return false;
  }
  size_t length = (size_t)(end - c->at) - 1;
  memcpy(text, c->at + 1, length);
  text[length] = '\0';
  c->at = end + 1;
  return true;
}

static bool take_number(cursor *c, size_t *number) {
  size_t value = 0;
  skip_spaces(c);
  if (!isdigit((unsigned char)*c->at)) {
    return false;
  }
  for (; isdigit((unsigned char)*c->at); ++c->at) {
    size_t digit = (size_t)(*c->at - '0');
    if (value > (SIZE_MAX - digit) / 10) {
      return false;
    }
    value = value * 10 + digit;
  }
  *number = value;
  return true;
}

static bool take_shape(cursor *c, npy_header *header) {
  if (!take(c, "(")) {
    return false;
  }
  for (header->rank = 0; !take(c, ")"); ++header->rank) {
    if (header->rank == NPY_MAX_RANK || !take_number(c, &header->shape[header->rank])) {
      return false;
    }
    if (!take(c, ",")) {
      ++header->rank;
      return take(c, ")");
    }
  }
  return true;
}

static int parse(const char *text, npy_header *header, char *message) {
  cursor c = {text};
  bool has_dtype = false, has_order = false, has_shape = false, fortran = false;
  bool good = take(&c, "{");
  while (good && !take(&c, "}")) {
    char key[32];
    good = take_string(&c, key, sizeof(key)) && take(&c, ":");
    if (good && strcmp(key, "descr") == 0) {
      skip_spaces(&c);
      if (*c.at == '[') {
        return fail(message, "holds structs; accepted are plain numbers");
      }
      good = has_dtype = take_string(&c, header->dtype, sizeof(header->dtype));
    } else if (good && strcmp(key, "fortran_order") == 0) {
      fortran = take(&c, "True");
      good = has_order = fortran || take(&c, "False");
    } else if (good && strcmp(key, "shape") == 0) {
      good = has_shape = take_shape(&c, header);
    } else {
      good = false;
    }
    good = good && (take(&c, ",") || *c.at == '}');
  }
  if (!good || !has_dtype || !has_order || !has_shape) {
    return fail(message, "has a .npy header that cannot be read: %.80s", text);
  }
  if (fortran) {
    return fail(message, "is in Fortran order; save numpy.ascontiguousarray(x)");
  }
  if (strchr(header->dtype, 'O') != NULL) {
    return fail(message, "holds Python objects (dtype '%s'); accepted are numbers", header->dtype);
  }
  return 0;
}

int npy_read_header(FILE *file, npy_header *header, char message[NPY_MESSAGE]) {
  unsigned char start[12];
  static char text[MAX_HEADER + 1];
  if (fread(start, 1, 10, file) != 10 || memcmp(start, MAGIC, MAGIC_BYTES) != 0) {
    return fail(message, "is not a .npy file");
  }
  size_t length = (size_t)start[8] | (size_t)start[9] << 8;
  if (start[6] == 2 || start[6] == 3) {
    if (fread(start + 10, 1, 2, file) != 2) {
      return fail(message, "is cut off inside its header");
    }
    length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
  } else if (start[6] != 1) {
    return fail(message, "has .npy version %u; accepted are 1, 2 and 3", (unsigned)start[6]);
  }
  if (length > MAX_HEADER) {
    return fail(message, "has a header of %zu bytes; at most %u are accepted", length, MAX_HEADER);
  }
  if (fread(text, 1, length, file) != length) {
    return fail(message, "is cut off inside its header");
  }
  text[length] = '\0';
  return parse(text, header, message);
}

int npy_write_header(FILE *file, const npy_header *header) {
  char text[128 + 24 * NPY_MAX_RANK];
  size_t room = sizeof(text), used;
  used = (size_t)snprintf(text, room, "{'descr': '%s', 'fortran_order': False, 'shape': (", header->dtype);
  for (size_t i = 0; i < header->rank; ++i) {
    used += (size_t)snprintf(text + used, room - used, "%zu%s", header->shape[i],
                             i + 1 < header->rank ? ", "
                             : header->rank == 1  ? ","
                                                  : "");
  }
  used += (size_t)snprintf(text + used, room - used, "), }");
  /* Spaces and a newline up to a multiple of 64, with the 10 bytes before. */
  while ((10 + used + 1) % 64 != 0) {
    text[used++] = ' ';
  }
  text[used++] = '\n';
  const unsigned char start[10] = {
      0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(used & 255), (unsigned char)(used >> 8)};
  return fwrite(start, 1, sizeof(start), file) == sizeof(start) && fwrite(text, 1, used, file) == used ? 0 : -1;
}
