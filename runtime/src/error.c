#include "error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

const char *lqc_status_message(lqc_status status) {
  static const char *const messages[] = {
#define LQC_STATUS_MESSAGE(name, message) message,
      LQC_STATUS_LIST(LQC_STATUS_MESSAGE)
#undef LQC_STATUS_MESSAGE
  };
  return (unsigned)status < LQC_STATUS_COUNT ? messages[status] : "not a status of larq_clip";
}

const char *lqc_version(void) {
  return LQC_VERSION;
}

typedef struct writer {
  char *text;
  size_t used;
  size_t room; /* without the terminator */
} writer;

static void put_char(writer *w, char c) {
  if (w->used < w->room) {
    w->text[w->used++] = c;
  }
}

static void put_string(writer *w, const char *text) {
  for (; *text; ++text) {
    unsigned char c = (unsigned char)*text;
    put_char(w, c < 0x20 || c == 0x7f ? '?' : *text);
  }
}

static void put_unsigned(writer *w, unsigned long long n) {
  char digits[24];
  size_t count = 0;
  do {
    digits[count++] = (char)('0' + n % 10);
    n /= 10;
  } while (n != 0);
  while (count > 0) {
    put_char(w, digits[--count]);
  }
}

static void put_signed(writer *w, long long n) {
  if (n < 0) {
    put_char(w, '-');
  }
  put_unsigned(w, n < 0 ? 0ULL - (unsigned long long)n : (unsigned long long)n);
}

/* Writes the argument of one conversion and returns the conversion's last character. */
static const char *put_conversion(writer *w, const char *conversion, va_list *arguments) {
  int longs = 0;
  bool size = false;
  for (;; ++conversion) {
    if (*conversion == 'l') {
      ++longs;
    } else if (*conversion == 'z') {
      size = true;
    } else {
      break;
    }
  }
  switch (*conversion) {
  case 's':
    put_string(w, va_arg(*arguments, const char *));
    break;
  case 'd':
    put_signed(w, longs == 2 ? va_arg(*arguments, long long) : va_arg(*arguments, int));
    break;
  case 'u':
    put_unsigned(w, size         ? va_arg(*arguments, size_t)
                    : longs == 2 ? va_arg(*arguments, unsigned long long)
                                 : va_arg(*arguments, unsigned));
    break;
  default:
    put_char(w, *conversion);
    break;
  }
  return conversion;
}

lqc_status lqc_fail(lqc_error *error, lqc_status status, const char *format, ...) {
  if (error) {
    writer w = {error->message, 0, sizeof(error->message) - 1};
    va_list arguments;
    error->status = status;
    if (status == LQC_ERROR_TRUNCATED || status == LQC_ERROR_MALFORMED) { /* a detail alone does not say whose fault */
      put_string(&w, lqc_status_message(status));
      put_string(&w, ": ");
    }
    va_start(arguments, format);
    for (; *format; ++format) {
      if (*format == '%') {
        format = put_conversion(&w, format + 1, &arguments);
      } else {
        put_char(&w, *format);
      }
    }
    va_end(arguments);
    error->message[w.used] = '\0';
  }
  return status;
}

lqc_status lqc_succeed(lqc_error *error) {
  if (error) {
    error->status = LQC_OK;
    error->message[0] = '\0';
  }
  return LQC_OK;
}
