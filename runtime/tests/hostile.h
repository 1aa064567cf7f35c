/* Doing all that an application does with a file that may be hostile, next to pages that may not be touched. */
#ifndef LQC_HOSTILE_H
#define LQC_HOSTILE_H

#include "model_builder.h"

typedef struct hostile_use {
  lqc_status status; /* the first that is not LQC_OK */
  bool ran;          /* false also where the file asks for more memory or time than a test should take */
  uint64_t digest;   /* where it ran, of all outputs; with options.keep_tensors of all tensors */
} hostile_use;

/* Loads, makes a session, fills every input with numbers that only the seed decides, and runs. The end of the file's
 * bytes (up to their alignment) and of the session's memory is the end of a page, so that reads and writes beyond them
 * fault in builds without a sanitizer too. Fails the test where a status comes without its message, where init refuses
 * what size has accepted, or where a run fails. */
hostile_use use_file_as(const uint8_t *data, size_t size, const lqc_options *options, uint64_t seed);

/* The same with one thread, the best instruction set and one seed. */
hostile_use use_file(const uint8_t *data, size_t size);

/* Numbers that only the seed decides into every input: small floats, any integers, any bits. */
void fill_every_input(const lqc_model *model, lqc_session *session, uint64_t seed);

#endif /* LQC_HOSTILE_H */
