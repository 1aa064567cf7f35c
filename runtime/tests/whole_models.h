/* Checks of whole models: where they run, and with one mistake each, the status and a word of the message. */
#ifndef LQC_WHOLE_MODELS_H
#define LQC_WHOLE_MODELS_H

#include "model_builder.h"

typedef struct wrong_model {
  const char *what;
  void (*break_it)(built_model *m);
  lqc_status status;
  const char *word;
} wrong_model;

#define OP(m, i) (&(m)->ops[i].op)
#define BREAK(name, ...)             \
  static void name(built_model *m) { \
    __VA_ARGS__;                     \
  }

/* Builds a sample, breaks it, and fails the test unless loading it, or asking for the size of a session, says so. */
void check_wrong(const wrong_model *wrong, void (*sample)(built_model *m, uint64_t seed));

/* Every tensor of a sample is the same on all instruction sets, for any number of threads. */
void check_same_everywhere(void (*sample)(built_model *m, uint64_t seed));

/* The plan of the file and a place for each tensor give the same outputs. */
void check_plan(void (*sample)(built_model *m, uint64_t seed));

#endif /* LQC_WHOLE_MODELS_H */
