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
  uint64_t *op_nanoseconds; /* [op_count], summed over runs */
} run_report;

/* Adds the times of the run that has just ended. */
void report_add_ops(run_report *report, const lqc_session *session);

/* Prints to stdout. Sorts report->nanoseconds. */
void report_print(run_report *report, const lqc_session *session, int json, int profile);

#endif /* LQC_REPORT_H */
