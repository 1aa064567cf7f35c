/* The reader of .npy headers on any bytes; what it accepts is written and read again. */
#include "fuzz.h"
#include "hostile.h"
#include "npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  npy_header header, again;
  char message[NPY_MESSAGE];
  FILE *file = size > 0 ? fmemopen((void *)(uintptr_t)data, size, "rb") : NULL;
  if (file == NULL) {
    return 0;
  }
  int failed = npy_read_header(file, &header, message);
  fclose(file);
  if (failed) {
    EXPECT(strlen(message) > 0 && strlen(message) < sizeof(message), "no message");
    return 0;
  }
  for (size_t i = 0; header.dtype[i] != '\0'; ++i) {
    if (header.dtype[i] == '\'' || header.dtype[i] == '"') { /* inside the other kind of quotes: not written by us */
      return 0;
    }
  }
  char written[512];
  file = fmemopen(written, sizeof(written), "wb+");
  EXPECT(file != NULL && npy_write_header(file, &header) == 0, "an accepted header cannot be written");
  rewind(file);
  EXPECT(npy_read_header(file, &again, message) == 0, "a written header %s", message);
  fclose(file);
  EXPECT(strcmp(again.dtype, header.dtype) == 0 && again.rank == header.rank, "another dtype or rank");
  EXPECT(memcmp(again.shape, header.shape, header.rank * sizeof(size_t)) == 0, "another shape");
  return 0;
}
