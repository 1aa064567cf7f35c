#if defined(__linux__) && !defined(__ANDROID__)
#  define _GNU_SOURCE /* NOLINT: for affinity */
#  define LQC_AFFINITY 1
#endif

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

/* Who waits spins for SPIN_NANOSECONDS, then parks in a condition variable. Between the works of a run it is the next
 * op that is waited for, some microseconds, and waking a parked thread would take longer than many an op; between runs
 * a session may wait for any time, on a device with few cores, of which spinning would take one each.
 *
 * Shares are fixed, who does them is not: each is done by the thread of its index, or, where that has not begun it when
 * the caller has done its own, by the caller. So the first ops of a run do not wait for a thread that is still waking
 * up. The thread of a share that is done so finds it claimed, whenever it comes, and waits for the next generation.
 *
 * Threads are not bound to cores, but workers are kept off the caller's: who is woken is often put where he who wakes
 * him runs, on virtual machines nearly always, and there the two would spin in each other's way until the scheduler
 * balances, which takes longer than many a network. */
#  include <pthread.h>
#  include <sched.h>
#  include <signal.h>
#  include <stdatomic.h>

#  include "clock.h"

#  define SPIN_NANOSECONDS 200000u

typedef struct worker {
  lqc_pool *pool;
  uint32_t index;
  pthread_t thread;
  atomic_uint claimed; /* the last generation whose share `index` somebody has begun */
} worker;

struct lqc_pool {
  uint32_t threads;
  pthread_mutex_t mutex;
  pthread_cond_t work_ready, work_done;
  /* Who parks says so, then looks again, and whoever changes what he waits for looks whether somebody parks; one of
     both sees the other, as all atomics are sequentially consistent. Parking is done under the mutex. */
  atomic_uint parked_workers, caller_parks;
  atomic_uint calls;      /* to spin again, as work comes soon */
  atomic_uint generation; /* of the work below */
  atomic_uint unfinished; /* shares of it but the caller's */
  atomic_bool stopping;
  /* Written while no share is unfinished, before the generation is; read by who has claimed a share. */
  lqc_work work;
  const void *context;
  size_t count;
#  if LQC_AFFINITY
  cpu_set_t allowed; /* where the thread that made the session may run */
  int caller;        /* the core that workers keep off; -1: none yet */
#  endif
  worker workers[]; /* [threads - 1] */
};

uint32_t lqc_pool_max_threads(void) {
  return LQC_MAX_THREADS;
}

size_t lqc_pool_bytes(uint32_t threads) {
  return sizeof(lqc_pool) + (threads - 1) * sizeof(worker);
}

#  if LQC_AFFINITY
static void find_allowed(lqc_pool *pool) {
  pool->caller = -1;
  if (pthread_getaffinity_np(pthread_self(), sizeof(pool->allowed), &pool->allowed) != 0) {
    CPU_ZERO(&pool->allowed); /* of more cores than the set has; then no core is kept free */
  }
}

/* Where there is one core alone, or none is known, the kernel refuses, and all stays as it was. */
static void keep_apart(lqc_pool *pool) {
  const int core = sched_getcpu();
  if (core == pool->caller || core < 0 || core >= CPU_SETSIZE) {
    return;
  }
  cpu_set_t others = pool->allowed;
  CPU_CLR((size_t)core, &others);
  for (uint32_t i = 0; i < pool->threads - 1; ++i) {
    (void)pthread_setaffinity_np(pool->workers[i].thread, sizeof(others), &others);
  }
  pool->caller = core;
}
#  else
static void find_allowed(lqc_pool *pool) {
  (void)pool;
}

static void keep_apart(lqc_pool *pool) {
  (void)pool;
}
#  endif

static inline void relax(void) {
#  if defined(__x86_64__)
  __builtin_ia32_pause();
#  elif defined(__aarch64__)
  __asm__ volatile("yield");
#  endif
}

/* Waits a while for *value to differ from `old`, or, unless NULL, for *stopping. */
static void spin(const atomic_uint *value, uint32_t old, const atomic_bool *stopping) {
  const uint64_t end = lqc_nanoseconds() + SPIN_NANOSECONDS;
  do {
    for (int i = 0; i < 32; ++i) {
      if (atomic_load(value) != old || (stopping && atomic_load(stopping))) {
        return;
      }
      relax();
    }
  } while (lqc_nanoseconds() < end);
}

static bool has_work(lqc_pool *pool, uint32_t done) {
  return atomic_load(&pool->generation) != done || atomic_load(&pool->stopping);
}

/* The generation after `done`, or `done` where the pool stops. */
static uint32_t wait_for_work(lqc_pool *pool, uint32_t done) {
  for (;;) {
    spin(&pool->generation, done, &pool->stopping);
    if (has_work(pool, done)) {
      return atomic_load(&pool->stopping) ? done : atomic_load(&pool->generation);
    }
    pthread_mutex_lock(&pool->mutex);
    const uint32_t calls = atomic_load(&pool->calls);
    atomic_fetch_add(&pool->parked_workers, 1);
    while (!has_work(pool, done) && atomic_load(&pool->calls) == calls) {
      pthread_cond_wait(&pool->work_ready, &pool->mutex);
    }
    atomic_fetch_sub(&pool->parked_workers, 1);
    pthread_mutex_unlock(&pool->mutex);
  }
}

/* Whether share `w->index` of a generation is left to whom asks. All shares of the generation before are claimed; a
 * thread that comes too late, with an old generation, finds a later one here. */
static bool claim(worker *w, uint32_t generation) {
  uint32_t before = generation - 1;
  return atomic_compare_exchange_strong(&w->claimed, &before, generation);
}

static void wait_for_workers(lqc_pool *pool) {
  for (uint32_t left; (left = atomic_load(&pool->unfinished)) > 0;) {
    spin(&pool->unfinished, left, NULL);
    if (atomic_load(&pool->unfinished) == left) {
      pthread_mutex_lock(&pool->mutex);
      atomic_store(&pool->caller_parks, 1);
      while (atomic_load(&pool->unfinished) > 0) {
        pthread_cond_wait(&pool->work_done, &pool->mutex);
      }
      atomic_store(&pool->caller_parks, 0);
      pthread_mutex_unlock(&pool->mutex);
    }
  }
}

static void wake(lqc_pool *pool, pthread_cond_t *condition) {
  pthread_mutex_lock(&pool->mutex);
  pthread_cond_broadcast(condition);
  pthread_mutex_unlock(&pool->mutex);
}

/* Behind what they wait for. */
static void wake_parked(lqc_pool *pool) {
  if (atomic_load(&pool->parked_workers) > 0) {
    wake(pool, &pool->work_ready);
  }
}

static void *worker_main(void *argument) {
  worker *self = argument;
  lqc_pool *pool = self->pool;
  for (uint32_t done = 0, next; (next = wait_for_work(pool, done)) != done; done = next) {
    if (!claim(self, next)) {
      continue;
    }
    do_share(pool->work, pool->context, pool->count, self->index, pool->threads);
    if (atomic_fetch_sub(&pool->unfinished, 1) == 1 && atomic_load(&pool->caller_parks)) {
      wake(pool, &pool->work_done);
    }
  }
  return NULL;
}

/* Ends and joins the first `started` workers, then destroys what start made. */
static void stop_workers(lqc_pool *pool, uint32_t started) {
  atomic_store(&pool->stopping, true);
  wake(pool, &pool->work_ready);
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
  atomic_init(&pool->parked_workers, 0);
  atomic_init(&pool->caller_parks, 0);
  atomic_init(&pool->calls, 0);
  atomic_init(&pool->generation, 0);
  atomic_init(&pool->unfinished, 0);
  atomic_init(&pool->stopping, false);
  find_allowed(pool);
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
    atomic_init(&w->claimed, 0);
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
  if (pool->threads == 1 || count == 1) {
    do_share(work, context, count, 0, 1);
    return;
  }
  keep_apart(pool);
  pool->work = work;
  pool->context = context;
  pool->count = count;
  atomic_store(&pool->unfinished, pool->threads - 1);
  const uint32_t generation = atomic_fetch_add(&pool->generation, 1) + 1;
  wake_parked(pool);
  do_share(work, context, count, 0, pool->threads);
  for (uint32_t t = pool->threads - 1; t > 0; --t) {
    if (claim(&pool->workers[t - 1], generation)) {
      do_share(work, context, count, t, pool->threads);
      atomic_fetch_sub(&pool->unfinished, 1);
    }
  }
  wait_for_workers(pool);
}

void lqc_pool_call(lqc_pool *pool) {
  if (pool->threads == 1) {
    return;
  }
  keep_apart(pool);
  atomic_fetch_add(&pool->calls, 1);
  wake_parked(pool);
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

void lqc_pool_call(lqc_pool *pool) {
  (void)pool;
}

void lqc_pool_stop(lqc_pool *pool) {
  (void)pool;
}

#endif
