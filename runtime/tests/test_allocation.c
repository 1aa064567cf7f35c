/* No allocation after init, and none in it with one thread: linked so that every call of an allocator from the library
 * and from here comes through the functions below (in a static build, from the C library too). */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <stdatomic.h>

#include "fixed_point_testing.h"

static atomic_size_t calls;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **memory, size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes);

void *__wrap_malloc(size_t bytes) {
  atomic_fetch_add(&calls, 1);
  return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes) {
  atomic_fetch_add(&calls, 1);
  return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes) {
  atomic_fetch_add(&calls, 1);
  return __real_realloc(memory, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
  atomic_fetch_add(&calls, 1);
  return __real_aligned_alloc(alignment, bytes);
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes) {
  atomic_fetch_add(&calls, 1);
  return __real_posix_memalign(memory, alignment, bytes);
}

/* Calls of allocators while a session is made, in memory that is there already, and while it runs. */
static void count_calls(const built_model *m, const lqc_options *options, size_t *of_init, size_t *of_runs) {
  test_session s = open_session(m, options); /* gives the size, and loads the model */
  lqc_error error;
  size_t bytes = 0;
  EXPECT(lqc_session_size(&s.model, options, &bytes, &error) == LQC_OK, "%s", error.message);
  void *memory = aligned_alloc(LQC_ALIGNMENT, bytes);
  lqc_session *session;
  size_t before = atomic_load(&calls);
  EXPECT(lqc_session_init(&session, &s.model, options, memory, bytes, &error) == LQC_OK, "%s", error.message);
  size_t after = atomic_load(&calls);
  for (size_t i = 0; i < lqc_model_input_count(&s.model); ++i) {
    lqc_tensor_info info;
    lqc_model_tensor_info(&s.model, lqc_model_input_tensor(&s.model, i), &info);
    memset(lqc_session_input(session, i), 0, info.bytes);
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT(lqc_session_run(session, &error) == LQC_OK, "%s", error.message);
  }
  *of_init = after - before;
  *of_runs = atomic_load(&calls) - after;
  lqc_session_destroy(session);
  free(memory);
  close_session(&s);
}

static void check(const built_model *m, const char *name) {
  for (int isa = LQC_ISA_AUTO; isa < LQC_ISA_COUNT; ++isa) {
    for (uint32_t threads = 1; threads <= 3 && threads <= lqc_pool_max_threads(); threads += 2) {
      const lqc_options options = {.threads = threads, .isa = (lqc_isa)isa, .profile = 1};
      size_t of_init = 0, of_runs = 0;
      if (!lqc_isa_available((lqc_isa)isa)) {
        continue;
      }
      count_calls(m, &options, &of_init, &of_runs);
      EXPECT(of_init == 0 || threads > 1, "%s: init with one thread allocates %zu times", name, of_init);
      EXPECT(of_runs == 0, "%s: 3 runs on %s with %u threads allocate %zu times", name, lqc_isa_name((lqc_isa)isa),
             threads, of_runs);
    }
  }
}

int main(void) {
  size_t before = atomic_load(&calls);
  void *volatile memory = malloc(1); /* else the compiler leaves both calls out */
  free(memory);
  EXPECT(atomic_load(&calls) == before + 1, "malloc is not wrapped");
  built_model m;
  integer_network(&m, 7);
  check(&m, "the integer network");
  model_end(&m);
  sample_network(&m, 3);
  check(&m, "the sample network");
  model_end(&m);
  return 0;
}
