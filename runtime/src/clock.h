/* A clock that only goes forward. */
#ifndef LQC_CLOCK_H
#define LQC_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t lqc_nanoseconds(void) {
  struct timespec now;
#if defined(CLOCK_MONOTONIC)
  clock_gettime(CLOCK_MONOTONIC, &now);
#else
  timespec_get(&now, TIME_UTC);
#endif
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif /* LQC_CLOCK_H */
