/* Load, init and run of changed models, with options that the bytes decide. */
#include "fuzz.h"
#include "hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint64_t hash = fuzz_hash(data, size);
  /* What several threads reach differs from run to run, and with it what a fuzzer does next. */
  bool threads = hash % 8 == 0 && getenv("LQC_FUZZ_ONE_THREAD") == NULL;
  lqc_options options = {.threads = threads ? 3 : 1, .keep_tensors = hash >> 3 & 1, .profile = hash >> 4 & 1};
  lqc_isa isa = (lqc_isa)((hash >> 5) % LQC_ISA_COUNT);
  options.isa = lqc_isa_available(isa) ? isa : LQC_ISA_AUTO;
  use_file_as(data, size, &options, hash);
  return 0;
}
