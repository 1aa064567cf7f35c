#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void report_add_ops(run_report *report, const lqc_session *session) {
  for (size_t i = 0; i < report->op_count; ++i) {
    lqc_op_info info;
    if (lqc_session_op_info(session, i, &info) == LQC_OK) {
      report->op_nanoseconds[i] += info.nanoseconds;
    }
  }
}

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static void print_json_string(const char *text) {
  putchar('"');
  for (; *text; ++text) {
    unsigned char c = (unsigned char)*text;
    if (c < 0x20 || c == '"' || c == '\\') {
      printf("\\u%04x", c);
    } else {
      putchar(c);
    }
  }
  putchar('"');
}

static uint64_t mean_nanoseconds(const run_report *report, size_t op) {
  return report->runs > 0 ? report->op_nanoseconds[op] / report->runs : 0;
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
           info.type, info.kernel, info.binary_macs, info.int8_macs, info.float_macs, mean_nanoseconds(report, i));
  }
  fputs("\n  ]", stdout);
}

static void print_ops(const run_report *report, const lqc_session *session) {
  for (size_t i = 0; i < report->op_count; ++i) {
    lqc_op_info info;
    if (lqc_session_op_info(session, i, &info) == LQC_OK) {
      printf("%10.1f us  %-24s %s\n", (double)mean_nanoseconds(report, i) / 1e3, info.kernel, info.name);
    }
  }
}

void report_print(run_report *report, const lqc_session *session, int json, int profile) {
  double median = 0, fastest = 0;
  if (report->runs > 0) {
    qsort(report->nanoseconds, report->runs, sizeof(uint64_t), compare);
    median = (double)report->nanoseconds[report->runs / 2] / 1e6;
    fastest = (double)report->nanoseconds[0] / 1e6;
  }
  if (!json) {
    printf("%zu image%s, %.3f ms each (fastest %.3f ms; %s, %u thread%s, %zu bytes)\n", report->images,
           report->images == 1 ? "" : "s", median, fastest, report->isa, report->threads,
           report->threads == 1 ? "" : "s", report->session_bytes);
    if (profile) {
      print_ops(report, session);
    }
    return;
  }
  printf("{\n  \"images\": %zu,\n  \"milliseconds_per_image\": %.6f,\n  \"milliseconds_per_image_min\": %.6f,\n"
         "  \"isa\": \"%s\",\n  \"threads\": %u,\n  \"session_bytes\": %zu",
         report->images, median, fastest, report->isa, report->threads, report->session_bytes);
  if (profile) {
    print_json_ops(report, session);
  }
  fputs("\n}\n", stdout);
}
