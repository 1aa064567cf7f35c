/* Load, init and run of changed models, with options that the bytes decide. */
#include "fuzz.h"
#include "hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint64_t hash = fuzz_hash(data, size);
  const lqc_options options = {
      .threads = hash % 8 == 0 ? 3 : 1, .keep_tensors = hash >> 3 & 1, .profile = hash >> 4 & 1};
  use_file_as(data, size, &options, hash);
  return 0;
}
