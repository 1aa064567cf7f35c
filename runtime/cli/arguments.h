/* The command line of larq-clip-run. */
#ifndef LQC_ARGUMENTS_H
#define LQC_ARGUMENTS_H

#include <stdnoreturn.h>

#include "larq_clip.h"

typedef struct run_arguments {
  const char *model, *input, *output; /* output NULL: none */
  unsigned long repeat;
  size_t memory_limit; /* of the session, in bytes */
  lqc_options options;
  int json;
} run_arguments;

/* Prints one line on stderr, removes an unfinished output and ends with exit code 2. */
noreturn void die(const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 1, 2)))
#endif
    ;

/* Ends the program for --help, --version and anything that is not accepted. */
void parse_arguments(int argc, char **argv, run_arguments *arguments);

#endif /* LQC_ARGUMENTS_H */
