/* A few threads that wait for work. Work is `count` independent items; share t of n is always the items
 * [count * t / n, count * (t + 1) / n), with the scratch memory of thread t, so a result never depends on timing. */
#ifndef LQC_POOL_H
#define LQC_POOL_H

#include <stddef.h>

#include "error.h"

typedef struct lqc_pool lqc_pool;

/* Does items [begin, end), the share of thread `thread`. */
typedef void (*lqc_work)(const void *context, uint32_t thread, size_t begin, size_t end);

/* Most threads that this build supports: LQC_MAX_THREADS, or 1. */
uint32_t lqc_pool_max_threads(void);
/* Bytes of a pool of `threads` threads, the caller's included. */
size_t lqc_pool_bytes(uint32_t threads);
/* Starts threads - 1 threads. memory is aligned to LQC_ALIGNMENT. On failure none is left running. */
lqc_status lqc_pool_start(lqc_pool *pool, uint32_t threads, lqc_error *error);
/* Work comes soon: threads that sleep had better wake up meanwhile. */
void lqc_pool_call(lqc_pool *pool);
/* Returns when all items are done. */
void lqc_pool_run(lqc_pool *pool, lqc_work work, const void *context, size_t count);
void lqc_pool_stop(lqc_pool *pool);

#endif /* LQC_POOL_H */
