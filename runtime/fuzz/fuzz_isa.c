/* Every tensor of changed models, on random inputs, is the same for scalar code and for each instruction set here; in
 * one of four models also op by op, with guard pages beside every tensor. */
#include "fuzz.h"
#include "guarded_ops.h"
#include "hostile.h"

static void check_guarded(const uint8_t *data, size_t size, uint64_t seed) {
  lqc_model model;
  lqc_error error;
  uint8_t *copy = exact_copy(data, size);
  EXPECT(lqc_model_load(&model, copy, size, &error) == LQC_OK, "%s", error.message);
  check_guarded_ops(&model, seed);
  free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint64_t seed = fuzz_hash(data, size);
  lqc_options options = {.isa = LQC_ISA_SCALAR, .keep_tensors = 1};
  hostile_use scalar = use_file_as(data, size, &options, seed);
  if (!scalar.ran) {
    return 0;
  }
  for (int isa = LQC_ISA_SCALAR + 1; isa < LQC_ISA_COUNT; ++isa) {
    if (lqc_isa_available((lqc_isa)isa)) {
      options.isa = (lqc_isa)isa;
      hostile_use other = use_file_as(data, size, &options, seed);
      EXPECT(!other.ran || other.digest == scalar.digest, "%s differs from scalar code", lqc_isa_name((lqc_isa)isa));
      EXPECT(other.status == LQC_OK, "%s: status %d", lqc_isa_name((lqc_isa)isa), (int)other.status);
    }
  }
  if (seed % 4 == 0) {
    check_guarded(data, size, seed);
  }
  return 0;
}
