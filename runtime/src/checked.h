/* Sizes that cannot wrap: each helper gives 0 on overflow and leaves the result alone. */
#ifndef LQC_CHECKED_H
#define LQC_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool lqc_add_size(size_t a, size_t b, size_t *sum) {
  size_t value;
  if (__builtin_add_overflow(a, b, &value)) {
    return false;
  }
  *sum = value;
  return true;
}

static inline bool lqc_multiply_size(size_t a, size_t b, size_t *product) {
  size_t value;
  if (__builtin_mul_overflow(a, b, &value)) {
    return false;
  }
  *product = value;
  return true;
}

/* n rounded up to a multiple of a power of two. */
static inline bool lqc_align_size(size_t n, size_t alignment, size_t *aligned) {
  size_t value;
  if (!lqc_add_size(n, alignment - 1, &value)) {
    return false;
  }
  *aligned = value & ~(alignment - 1);
  return true;
}

/* A file's 64-bit number as a size of this machine. */
static inline bool lqc_size_from_u64(uint64_t n, size_t *size) {
  if (n > SIZE_MAX) {
    return false;
  }
  *size = (size_t)n;
  return true;
}

#endif /* LQC_CHECKED_H */
