/* NumPy's .npy files, as far as images and results need them: the header; the numbers behind it are the caller's. */
#ifndef LQC_NPY_H
#define LQC_NPY_H

#include <stdio.h>

#define NPY_MAX_RANK 8
#define NPY_MESSAGE 256

typedef struct npy_header {
  char dtype[16]; /* as NumPy writes it: "<f4" */
  size_t rank;
  size_t shape[NPY_MAX_RANK];
} npy_header;

/* Reads the header; the file is then at the first number. Refuses Fortran order and arrays of objects or structs.
 * Returns 0, or -1 with what is wrong in `message`. */
int npy_read_header(FILE *file, npy_header *header, char message[NPY_MESSAGE]);

/* Returns 0, or -1 where the file could not be written. */
int npy_write_header(FILE *file, const npy_header *header);

#endif /* LQC_NPY_H */
