/* Headers of .npy files: what is written can be read; what is damaged or not meant for us is refused. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "npy.h"

#include "model_builder.h"

static int read_bytes(const void *bytes, size_t size, npy_header *header, char *message) {
  FILE *file = tmpfile();
  EXPECT(file != NULL && fwrite(bytes, 1, size, file) == size, "a temporary file");
  rewind(file);
  int failed = npy_read_header(file, header, message);
  fclose(file);
  return failed;
}

/* Version 1 with this dictionary. */
static int read_text(const char *text, npy_header *header, char *message) {
  char bytes[600] = "\x93NUMPY\x01";
  size_t length = strlen(text);
  bytes[8] = (char)(length & 255);
  bytes[9] = (char)(length >> 8);
  memcpy(bytes + 10, text, length);
  return read_bytes(bytes, 10 + length, header, message);
}

static void test_round_trip(void) {
  for (size_t rank = 0; rank <= NPY_MAX_RANK; ++rank) {
    npy_header header = {"<f4", rank, {3, 0, 28, 1234567, 1, 2, 3, SIZE_MAX}}, again;
    char message[NPY_MESSAGE], bytes[512];
    FILE *file = tmpfile();
    EXPECT(file != NULL && npy_write_header(file, &header) == 0 && ftell(file) % 64 == 0, "rank %zu", rank);
    rewind(file);
    size_t size = fread(bytes, 1, sizeof(bytes), file);
    rewind(file);
    EXPECT(npy_read_header(file, &again, message) == 0 && (size_t)ftell(file) == size, "rank %zu: %s", rank, message);
    EXPECT(again.rank == rank && memcmp(again.shape, header.shape, rank * sizeof(size_t)) == 0, "rank %zu", rank);
    EXPECT(strcmp(again.dtype, "<f4") == 0, "%s", again.dtype);
    fclose(file);
    for (size_t cut = 0; cut < size; cut += 7) {
      EXPECT(read_bytes(bytes, cut, &again, message) == -1, "rank %zu cut at %zu", rank, cut);
    }
  }
}

static void test_damaged(void) {
  static const char *const refused[] = {
      "",
      "{",
      "{}",
      "{'descr': '<f4', 'fortran_order': False}",
      "{'descr': '<f4', 'fortran_order': True, 'shape': (1,)}",
      "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
      "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1,2,3,4,5,6,7,8,9)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}",
      "{'descr': '<f4', 'fortran_order': False 'shape': (1,)}",
      "{'descr': 'a very long dtype', 'fortran_order': False, 'shape': (1,)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
      "{'descr': '<f4, 'fortran_order': False, 'shape': (1,)}",
  };
  npy_header header;
  char message[NPY_MESSAGE];
  for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); ++i) {
    EXPECT(read_text(refused[i], &header, message) == -1 && message[0], "%s", refused[i]);
  }
  const char *good = "{\"shape\": (7,), \"descr\": \"|i1\", \"fortran_order\": False}";
  EXPECT(read_text(good, &header, message) == 0 && header.rank == 1 && header.shape[0] == 7, "%s", message);
  EXPECT(read_bytes("\x93NUMPY\x04\x00\x00\x00", 10, &header, message) == -1, "version 4");
  EXPECT(read_bytes("\x93NUMPY\x02\x00\xff\xff\xff\x7f", 12, &header, message) == -1, "a header of 2 GiB");
}

int main(void) {
  test_round_trip();
  test_damaged();
  return 0;
}
