#include "pool.h"

#include <stdbool.h>

static size_t share_start(size_t count, uint32_t thread, uint32_t threads) {
  return (size_t)((uint64_t)(count / threads) * thread + (uint64_t)(count % threads) * thread / threads);
}

static void do_share(lqc_work work, const void *context, size_t count, uint32_t thread, uint32_t threads) {
  size_t begin = share_start(count, thread, threads);
  size_t end = share_start(count, thread + 1, threads);
  if (begin < end) {
    work(context, thread, begin, end);
  }
}

#if LQC_THREADS

/* Between the works of a run, and between runs, workers park in a condition variable and do not spin: a session may
 * wait for its next image for any time, on a device with few cores, of which spinning would take one each. Waking costs
 * some microseconds an op. Threads are not bound to cores; the share of each is fixed by its index, so that results,
 * and which memory a thread touches, do not depend on who wakes first. */
#  include <pthread.h>
#  include <signal.h>

typedef struct worker {
  lqc_pool *pool;
  uint32_t index;
  pthread_t thread;
} worker;

struct lqc_pool {
  uint32_t threads;
  pthread_mutex_t mutex;
  pthread_cond_t work_ready, work_done;
  /* Guarded by mutex. */
  uint64_t generation; /* of the work below; a worker does each generation once */
  uint32_t unfinished; /* workers */
  bool stopping;
  lqc_work work;
  const void *context;
  size_t count;
  worker workers[]; /* [threads - 1] */
};

uint32_t lqc_pool_max_threads(void) {
  return LQC_MAX_THREADS;
}

size_t lqc_pool_bytes(uint32_t threads) {
  return sizeof(lqc_pool) + (threads - 1) * sizeof(worker);
}

static void *worker_main(void *argument) {
  worker *self = argument;
  lqc_pool *pool = self->pool;
  uint64_t done = 0;
  pthread_mutex_lock(&pool->mutex);
  for (;;) {
    while (!pool->stopping && pool->generation == done) {
      pthread_cond_wait(&pool->work_ready, &pool->mutex);
    }
    if (pool->stopping) {
      break;
    }
    done = pool->generation;
    lqc_work work = pool->work;
    const void *context = pool->context;
    size_t count = pool->count;
    pthread_mutex_unlock(&pool->mutex);
    do_share(work, context, count, self->index, pool->threads);
    pthread_mutex_lock(&pool->mutex);
    if (--pool->unfinished == 0) {
      pthread_cond_signal(&pool->work_done);
    }
  }
  pthread_mutex_unlock(&pool->mutex);
  return NULL;
}

/* Ends and joins the first `started` workers, then destroys what start made. */
static void stop_workers(lqc_pool *pool, uint32_t started) {
  pthread_mutex_lock(&pool->mutex);
  pool->stopping = true;
  pthread_cond_broadcast(&pool->work_ready);
  pthread_mutex_unlock(&pool->mutex);
  for (uint32_t i = 0; i < started; ++i) {
    pthread_join(pool->workers[i].thread, NULL);
  }
  pthread_cond_destroy(&pool->work_done);
  pthread_cond_destroy(&pool->work_ready);
  pthread_mutex_destroy(&pool->mutex);
}

lqc_status lqc_pool_start(lqc_pool *pool, uint32_t threads, lqc_error *error) {
  pool->threads = threads;
  if (threads == 1) {
    return LQC_OK;
  }
  pool->generation = 0;
  pool->unfinished = 0;
  pool->stopping = false;
  if (pthread_mutex_init(&pool->mutex, NULL) != 0) {
    return lqc_fail(error, LQC_ERROR_THREADS, "a mutex could not be made");
  }
  if (pthread_cond_init(&pool->work_ready, NULL) != 0) {
    pthread_mutex_destroy(&pool->mutex);
    return lqc_fail(error, LQC_ERROR_THREADS, "a condition variable could not be made");
  }
  if (pthread_cond_init(&pool->work_done, NULL) != 0) {
    pthread_cond_destroy(&pool->work_ready);
    pthread_mutex_destroy(&pool->mutex);
    return lqc_fail(error, LQC_ERROR_THREADS, "a condition variable could not be made");
  }
  /* Signals belong to the application's threads: workers inherit a mask that blocks them all. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  uint32_t started = 0;
  int failure = 0;
  while (started < threads - 1 && failure == 0) {
    worker *w = &pool->workers[started];
    w->pool = pool;
    w->index = started + 1;
    failure = pthread_create(&w->thread, NULL, worker_main, w);
    started += failure == 0;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failure != 0) {
    stop_workers(pool, started);
    return lqc_fail(error, LQC_ERROR_THREADS, "thread %u of %u could not be started (errno %d); ask for fewer threads",
                    started + 2, threads, failure);
  }
  return LQC_OK;
}

void lqc_pool_run(lqc_pool *pool, lqc_work work, const void *context, size_t count) {
  if (pool->threads == 1) {
    do_share(work, context, count, 0, 1);
    return;
  }
  pthread_mutex_lock(&pool->mutex);
  pool->work = work;
  pool->context = context;
  pool->count = count;
  pool->unfinished = pool->threads - 1;
  ++pool->generation;
  pthread_cond_broadcast(&pool->work_ready);
  pthread_mutex_unlock(&pool->mutex);
  do_share(work, context, count, 0, pool->threads);
  pthread_mutex_lock(&pool->mutex);
  while (pool->unfinished > 0) {
    pthread_cond_wait(&pool->work_done, &pool->mutex);
  }
  pthread_mutex_unlock(&pool->mutex);
}

void lqc_pool_stop(lqc_pool *pool) {
  if (pool->threads > 1) {
    stop_workers(pool, pool->threads - 1);
    pool->threads = 1;
  }
}

#else /* one thread: no POSIX threads needed */

struct lqc_pool {
  uint32_t threads;
};

uint32_t lqc_pool_max_threads(void) {
  return 1;
}

size_t lqc_pool_bytes(uint32_t threads) {
  (void)threads;
  return sizeof(lqc_pool);
}

lqc_status lqc_pool_start(lqc_pool *pool, uint32_t threads, lqc_error *error) {
  (void)error;
  pool->threads = threads;
  return LQC_OK;
}

void lqc_pool_run(lqc_pool *pool, lqc_work work, const void *context, size_t count) {
  (void)pool;
  do_share(work, context, count, 0, 1);
}

void lqc_pool_stop(lqc_pool *pool) {
  (void)pool;
}

#endif
