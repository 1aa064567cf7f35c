#include "printable.h"

#include <stddef.h>
#include <stdio.h>

/* Bytes of the printable character at `text`; 0 where there is none. The ranges are those of RFC 3629, section 4. */
static size_t character_bytes(const char *text) {
  const unsigned char *c = (const unsigned char *)text;
  if (c[0] < 0x80) {
    return c[0] >= 0x20 && c[0] != 0x7f;
  }
  size_t bytes = c[0] >= 0xf0 ? 4 : c[0] >= 0xe0 ? 3 : 2;
  unsigned low = c[0] == 0xc2 ? 0xa0 : c[0] == 0xe0 ? 0xa0 : c[0] == 0xf0 ? 0x90 : 0x80; /* C2 80 to 9F: control */
  unsigned high = c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
  if (c[0] < 0xc2 || c[0] > 0xf4 || c[1] < low || c[1] > high) {
    return 0;
  }
  for (size_t i = 2; i < bytes; ++i) {
    if (c[i] < 0x80 || c[i] > 0xbf) {
      return 0;
    }
  }
  return bytes;
}

void make_printable(char *text) {
  while (*text != '\0') {
    size_t bytes = character_bytes(text);
    if (bytes == 0) {
      *text = '?';
    }
    text += bytes > 0 ? bytes : 1;
  }
}

static void print(const char *text, int json) {
  while (*text != '\0') {
    size_t bytes = character_bytes(text);
    if (json && (*text == '"' || *text == '\\')) {
      putchar('\\');
    }
    if (bytes > 0) {
      fwrite(text, 1, bytes, stdout);
    } else if (json && (unsigned char)*text < 0x80) {
      printf("\\u%04x", (unsigned)*text);
    } else {
      putchar('?');
    }
    text += bytes > 0 ? bytes : 1;
  }
}

void print_printable(const char *text) {
  print(text, 0);
}

void print_json_string(const char *text) {
  putchar('"');
  print(text, 1);
  putchar('"');
}
