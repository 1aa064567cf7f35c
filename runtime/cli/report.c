#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "printable.h"

void report_add_ops(run_report *report, const lqc_session *session, size_t run) {
  for (size_t i = 0; report->op_nanoseconds != NULL && i < report->op_count; ++i) {
    lqc_op_info info;
    if (lqc_session_op_info(session, i, &info) == LQC_OK) {
      report->op_nanoseconds[i * report->most_runs + run] = info.nanoseconds;
    }
  }
}

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* Of times in ascending order. */
static uint64_t median(const uint64_t *times, size_t count) {
  return count > 0 ? times[count / 2] : 0;
}

static uint64_t op_median(const run_report *report, size_t op) {
  return median(report->op_nanoseconds + op * report->most_runs, report->runs);
}

static void sort_ops(const run_report *report) {
  for (size_t i = 0; i < report->op_count; ++i) {
    qsort(report->op_nanoseconds + i * report->most_runs, report->runs, sizeof(uint64_t), compare);
  }
}

static void print_json_ops(const run_report *report, const lqc_session *session) {
  fputs(",\n  \"ops\": [", stdout);
  for (size_t i = 0; i < report->op_count; ++i) {
    lqc_op_info info;
    if (lqc_session_op_info(session, i, &info) != LQC_OK) {
      continue;
    }
    fputs(i == 0 ? "\n    {\"name\": " : ",\n    {\"name\": ", stdout);
    print_json_string(info.name);
    printf(", \"type\": \"%s\", \"kernel\": \"%s\", \"binary_macs\": %" PRIu64 ", \"int8_macs\": %" PRIu64
           ", \"float_macs\": %" PRIu64 ", \"nanoseconds\": %" PRIu64 "}",
           info.type, info.kernel, info.binary_macs, info.int8_macs, info.float_macs, op_median(report, i));
  }
  fputs("\n  ]", stdout);
}

/* MACs in 1/ns are GMAC/s: binary, int8 and float32 ones together, as an op has one kind. */
static void print_ops(const run_report *report, const lqc_session *session) {
  double total = 0;
  for (size_t i = 0; i < report->op_count; ++i) {
    total += (double)op_median(report, i);
  }
  printf("%10s %6s %9s  %-24s %s\n", "ms", "%", "GMAC/s", "kernel", "layers");
  for (size_t i = 0; i < report->op_count; ++i) {
    lqc_op_info info;
    if (lqc_session_op_info(session, i, &info) != LQC_OK) {
      continue;
    }
    double time = (double)op_median(report, i);
    double macs = (double)info.binary_macs + (double)info.int8_macs + (double)info.float_macs;
    printf("%10.4f %6.1f ", time / 1e6, total > 0 ? 100 * time / total : 0);
    if (macs > 0 && time > 0) {
      printf("%9.1f", macs / time);
    } else {
      printf("%9s", "");
    }
    printf("  %-24s ", info.kernel);
    print_printable(info.name);
    putchar('\n');
  }
}

void report_print(run_report *report, const lqc_session *session, int json) {
  int profile = report->op_nanoseconds != NULL;
  qsort(report->nanoseconds, report->runs, sizeof(uint64_t), compare);
  if (profile) {
    sort_ops(report);
  }
  double middle = (double)median(report->nanoseconds, report->runs) / 1e6;
  double fastest = report->runs > 0 ? (double)report->nanoseconds[0] / 1e6 : 0;
  if (!json) {
    printf("%zu image%s, %.3f ms each (fastest %.3f ms; %s, %u thread%s, %zu bytes)\n", report->images,
           report->images == 1 ? "" : "s", middle, fastest, report->isa, report->threads,
           report->threads == 1 ? "" : "s", report->session_bytes);
    if (profile) {
      print_ops(report, session);
    }
    return;
  }
  printf("{\n  \"images\": %zu,\n  \"milliseconds_per_image\": %.6f,\n  \"milliseconds_per_image_min\": %.6f,\n"
         "  \"isa\": \"%s\",\n  \"threads\": %u,\n  \"session_bytes\": %zu",
         report->images, middle, fastest, report->isa, report->threads, report->session_bytes);
  if (profile) {
    print_json_ops(report, session);
  }
  fputs("\n}\n", stdout);
}
