/* Filling an lqc_error without the C library's formatted output, which may allocate. */
#ifndef LQC_ERROR_H
#define LQC_ERROR_H

#include "larq_clip.h"

#if defined(__GNUC__)
#  define LQC_PRINTF_LIKE(text, first) __attribute__((format(printf, text, first)))
#else
#  define LQC_PRINTF_LIKE(text, first)
#endif

/* Returns `status`, and describes it where error is not NULL. Conversions: %s %d %u %zu %llu %lld. Control characters
 * of strings become '?', so that a message stays on one line whatever names a file holds; what does not fit is cut. */
lqc_status lqc_fail(lqc_error *error, lqc_status status, const char *format, ...) LQC_PRINTF_LIKE(3, 4);

/* Returns LQC_OK and clears *error where it is not NULL. */
lqc_status lqc_succeed(lqc_error *error);

/* Returns from the calling function what `call` returns, unless it is LQC_OK. */
#define LQC_TRY(call)             \
  do {                            \
    lqc_status lqc_try_ = (call); \
    if (lqc_try_ != LQC_OK) {     \
      return lqc_try_;            \
    }                             \
  } while (0)

#endif /* LQC_ERROR_H */
