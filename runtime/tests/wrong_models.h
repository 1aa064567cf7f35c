/* Models with one mistake each: the status and a word of the message that they must give. */
#ifndef LQC_WRONG_MODELS_H
#define LQC_WRONG_MODELS_H

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

#endif /* LQC_WRONG_MODELS_H */
