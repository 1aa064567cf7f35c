/* What the fuzz targets share. */
#ifndef LQC_FUZZ_H
#define LQC_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Called by libFuzzer. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
/* libFuzzer's own, on bytes that mean nothing. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static inline uint64_t fuzz_hash(const uint8_t *data, size_t size) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < size; ++i) {
    hash = (hash ^ data[i]) * 0x100000001b3u;
  }
  return hash ^ hash >> 29;
}

#endif /* LQC_FUZZ_H */
