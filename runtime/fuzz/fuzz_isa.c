/* Every tensor of changed models, on random inputs, is the same for scalar code and for each instruction set here. */
#include "fuzz.h"
#include "hostile.h"

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
  return 0;
}
