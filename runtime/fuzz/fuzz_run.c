/* Load, init and run of changed models, with options that the bytes decide. */
#include "fuzz.h"
#include "hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint64_t hash = fuzz_hash(data, size);
  lqc_options options = {.threads = hash % 8 == 0 ? 3 : 1, .keep_tensors = hash >> 3 & 1, .profile = hash >> 4 & 1};
  lqc_isa isa = (lqc_isa)((hash >> 5) % LQC_ISA_COUNT);
  options.isa = lqc_isa_available(isa) ? isa : LQC_ISA_AUTO;
  use_file_as(data, size, &options, hash);
  return 0;
}
