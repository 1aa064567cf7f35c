/* What larq-clip-run tells about its runs. */
#ifndef LQC_REPORT_H
#define LQC_REPORT_H

#include "larq_clip.h"

typedef struct run_report {
  size_t images, runs;   /* runs: images times repeats */
  uint64_t *nanoseconds; /* [runs] */
  const char *isa;
  uint32_t threads;
  size_t session_bytes, op_count;
  uint64_t *op_nanoseconds; /* [op_count][most runs], NULL without a profile */
  size_t most_runs;
} run_report;

/* Keeps the times of the ops in run `run`, which has just ended. */
void report_add_ops(run_report *report, const lqc_session *session, size_t run);

/* Prints to stdout: medians over the runs. Sorts the times. */
void report_print(run_report *report, const lqc_session *session, int json);

#endif /* LQC_REPORT_H */
