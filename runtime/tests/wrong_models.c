#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "wrong_models.h"

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
