/* A file that appears complete or not at all: written under another name in the same folder, then renamed. */
#ifndef LQC_ATOMIC_FILE_H
#define LQC_ATOMIC_FILE_H

#include <stdio.h>

/* Opens the temporary file of `path`. One at a time; removed if the process is ended by a signal that can be caught.
 * Returns NULL with what is wrong in `message`. */
FILE *atomic_open(const char *path, char *message, size_t room);

/* Flushes and puts the file in its place. Returns 0, or -1 with what is wrong in `message` and nothing left behind. */
int atomic_commit(char *message, size_t room);

/* Removes the temporary file, if there is one. */
void atomic_abandon(void);

#endif /* LQC_ATOMIC_FILE_H */
