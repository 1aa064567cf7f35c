#define _XOPEN_SOURCE 700 /* realpath */
#include "atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ATTEMPTS 100

static char target[PATH_MAX], temporary[PATH_MAX + 32];
static FILE *open_file;
static volatile sig_atomic_t exists; /* temporary names a file of ours */

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT, SIGXCPU, SIGXFSZ};

static void remove_and_end(int number) {
  if (exists) {
    unlink(temporary);
  }
  signal(number, SIG_DFL);
  raise(number);
}

static void catch_signals(void) {
  struct sigaction action;
  memset(&action, 0, sizeof(action));
  action.sa_handler = remove_and_end;
  for (size_t i = 0; i < sizeof(ending_signals) / sizeof(ending_signals[0]); ++i) {
    struct sigaction before;
    /* A signal that the parent made us ignore stays ignored. */
    if (sigaction(ending_signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
      sigaction(ending_signals[i], &action, NULL);
    }
  }
}

FILE *atomic_open(const char *path, char *message, size_t room) {
  struct stat status;
  if (stat(path, &status) == 0) {
    if (!S_ISREG(status.st_mode)) { /* a rename would replace the device or folder */
      snprintf(message, room, "%s is not a regular file", path);
      return NULL;
    }
    if (realpath(path, target) == NULL) { /* the file behind a link, not the link */
      snprintf(message, room, "%s: %s", path, strerror(errno));
      return NULL;
    }
  } else if (strlen(path) >= sizeof(target)) {
    snprintf(message, room, "the path of the output is too long");
    return NULL;
  } else {
    strcpy(target, path);
  }
  catch_signals();
  int descriptor = -1;
  /* A killed process leaves its file behind, and in a container the next one may well have the same number. */
  for (int attempt = 0; descriptor < 0 && attempt < ATTEMPTS && (attempt == 0 || errno == EEXIST); ++attempt) {
    snprintf(temporary, sizeof(temporary), "%s.%ld-%d.tmp", target, (long)getpid(), attempt);
    descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL, 0666);
  }
  if (descriptor < 0) {
    snprintf(message, room, "%s cannot be written: %s", path, strerror(errno));
    return NULL;
  }
  exists = 1;
  open_file = fdopen(descriptor, "wb");
  if (open_file == NULL) {
    snprintf(message, room, "%s cannot be written: %s", path, strerror(errno));
    close(descriptor);
    atomic_abandon();
  }
  return open_file;
}

int atomic_commit(char *message, size_t room) {
  int failed = ferror(open_file) || fflush(open_file) != 0 || fsync(fileno(open_file)) != 0;
  failed = fclose(open_file) != 0 || failed;
  open_file = NULL;
  if (failed || rename(temporary, target) != 0) {
    snprintf(message, room, "%s cannot be written: %s", target, strerror(errno));
    atomic_abandon();
    return -1;
  }
  exists = 0;
  return 0;
}

void atomic_abandon(void) {
  if (open_file != NULL) {
    fclose(open_file);
    open_file = NULL;
  }
  if (exists) {
    unlink(temporary);
    exists = 0;
  }
}
