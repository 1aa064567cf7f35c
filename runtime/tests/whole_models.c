#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "whole_models.h"

#include "guarded_ops.h"

void check_wrong(const wrong_model *wrong, void (*sample)(built_model *m, uint64_t seed)) {
  built_model m;
  lqc_model model;
  lqc_error error;
  size_t bytes = 12345;
  sample(&m, 7);
  wrong->break_it(&m);
  built_file file = build_file(&m);
  uint8_t *data = exact_copy(file.data, file.size);
  lqc_status status = lqc_model_load(&model, data, file.size, &error);
  if (status == LQC_OK) {
    status = lqc_session_size(&model, NULL, &bytes, &error);
  }
  EXPECT(status == wrong->status, "%s: status %d instead of %d: %s", wrong->what, (int)status, (int)wrong->status,
         status == LQC_OK ? "accepted" : error.message);
  EXPECT(strstr(error.message, wrong->word) != NULL, "%s: '%s' is not in: %s", wrong->what, wrong->word, error.message);
  EXPECT(bytes == 12345, "an output argument was changed");
  free(data);
  free(file.data);
  model_end(&m);
}

static test_session run(const built_model *m, const lqc_options *options) {
  test_session s = open_session(m, options);
  check_guarded_ops(&s.model, 5);
  lqc_error error;
  lqc_tensor_info info;
  float *image = lqc_session_input(s.session, 0);
  EXPECT(lqc_model_tensor_info(&s.model, m->inputs[0], &info) == LQC_OK, "input");
  for (int i = 0; i < (int)(info.bytes / sizeof(float)); ++i) {
    image[i] = (float)(i * 37 % 101 - 50) / 13.0f;
  }
  EXPECT(lqc_session_run(s.session, &error) == LQC_OK, "%s", error.message);
  return s;
}

void check_same_everywhere(void (*sample)(built_model *m, uint64_t seed)) {
  built_model m;
  sample(&m, 7);
  const lqc_options scalar = {.isa = LQC_ISA_SCALAR, .keep_tensors = 1};
  test_session first = run(&m, &scalar);
  for (int isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
    for (uint32_t threads = 1; threads <= 7 && threads <= lqc_pool_max_threads(); threads += 2) {
      if (!lqc_isa_available((lqc_isa)isa)) {
        continue;
      }
      const lqc_options options = {.threads = threads, .isa = (lqc_isa)isa, .keep_tensors = 1};
      test_session other = run(&m, &options);
      for (size_t t = 0; t < m.tensor_count; ++t) {
        lqc_tensor_info info;
        EXPECT(lqc_model_tensor_info(&first.model, t, &info) == LQC_OK, "tensor %zu", t);
        EXPECT(memcmp(lqc_session_tensor(first.session, t), lqc_session_tensor(other.session, t), info.bytes) == 0,
               "'%s' on %s with %u threads", info.name, lqc_isa_name((lqc_isa)isa), threads);
      }
      close_session(&other);
    }
  }
  close_session(&first);
  model_end(&m);
}

void check_plan(void (*sample)(built_model *m, uint64_t seed)) {
  built_model m;
  sample(&m, 7);
  const lqc_options keep = {.keep_tensors = 1};
  test_session first = run(&m, NULL), second = run(&m, &keep);
  for (size_t i = 0; i < m.output_count; ++i) {
    lqc_tensor_info info;
    lqc_model_tensor_info(&first.model, lqc_model_output_tensor(&first.model, i), &info);
    EXPECT(memcmp(lqc_session_output(first.session, i), lqc_session_output(second.session, i), info.bytes) == 0, "'%s'",
           info.name);
  }
  close_session(&first);
  close_session(&second);
  model_end(&m);
}
