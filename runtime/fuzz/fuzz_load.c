/* The loader on any bytes. */
#include "fuzz.h"
#include "hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  lqc_model model;
  lqc_error error;
  lqc_tensor_info info;
  uint8_t *copy = exact_copy(data, size);
  lqc_status status = lqc_model_load(&model, copy, size, &error);
  EXPECT(status == error.status && (status == LQC_OK) == (error.message[0] == '\0'), "status %d: %s", (int)status,
         error.message);
  if (status == LQC_OK) {
    for (size_t i = 0; i < lqc_model_tensor_count(&model); ++i) {
      EXPECT(lqc_model_tensor_info(&model, i, &info) == LQC_OK && strlen(info.name) < size, "tensor %zu", i);
    }
    EXPECT(lqc_model_input_tensor(&model, 0) < lqc_model_tensor_count(&model), "input");
    EXPECT(lqc_model_output_tensor(&model, 0) < lqc_model_tensor_count(&model), "output");
  }
  free(copy);
  return 0;
}
