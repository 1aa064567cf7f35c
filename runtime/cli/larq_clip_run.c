/* larq-clip-run: images from a .npy file through a model. Uses the library as any program would: only larq_clip.h. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "arguments.h"
#include "atomic_file.h"
#include "npy.h"
#include "report.h"

#define MESSAGE 512

static void *allocate(size_t bytes) {
  size_t rounded = bytes / LQC_ALIGNMENT * LQC_ALIGNMENT + LQC_ALIGNMENT;
  void *memory = rounded > bytes ? aligned_alloc(LQC_ALIGNMENT, rounded) : NULL;
  if (memory == NULL) {
    die("%zu bytes of memory are not available", bytes);
  }
  return memory;
}

static FILE *open_for_reading(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) {
    die("%s: %s", path, strerror(errno));
  }
  return file;
}

/* The whole file in aligned memory. */
static void *read_file(const char *path, size_t *size) {
  FILE *file = open_for_reading(path);
  if (fseek(file, 0, SEEK_END) != 0) {
    die("%s cannot be read: a model must be a regular file, not a pipe", path);
  }
  long end = ftell(file);
  if (end < 0 || end == LONG_MAX || fseek(file, 0, SEEK_SET) != 0) { /* LONG_MAX: a folder */
    die("%s cannot be read", path);
  }
  *size = (size_t)end;
  void *data = allocate(*size);
  if (fread(data, 1, *size, file) != *size) {
    die("%s: %s", path, ferror(file) ? strerror(errno) : "cut off while it was read");
  }
  fclose(file);
  return data;
}

static void check(lqc_status status, const lqc_error *error, const char *where) {
  if (status != LQC_OK) {
    die("%s: %s", where, error->message);
  }
}

static const char *shape_text(char *text, size_t room, const size_t *shape, size_t rank, const char *before) {
  size_t used = (size_t)snprintf(text, room, "(%s", before);
  for (size_t i = 0; i < rank && used < room; ++i) {
    used += (size_t)snprintf(text + used, room - used, "%zu%s", shape[i],
                             i + 1 < rank            ? ", "
                             : rank == 1 && !*before ? ","
                                                     : "");
  }
  if (used < room) {
    snprintf(text + used, room - used, ")");
  }
  return text;
}

/* The one input or output of a model. */
static lqc_tensor_info only_tensor(const lqc_model *model, const char *path, const char *role, size_t count,
                                   size_t tensor) {
  lqc_tensor_info info;
  if (count != 1) {
    die("%s has %zu %s; this program accepts models with one", path, count, role);
  }
  if (lqc_model_tensor_info(model, tensor, &info) != LQC_OK) {
    die("%s: tensor %zu cannot be read", path, tensor);
  }
  return info;
}

/* Number of images in the file, after checking that they are what the model takes. */
static size_t check_images(const npy_header *header, const lqc_tensor_info *input, const char *path) {
  const char *dtype = input->dtype == LQC_FLOAT32 ? "<f4" : input->dtype == LQC_INT8 ? "|i1" : NULL;
  size_t shape[LQC_MAX_RANK];
  char given[MESSAGE / 2], accepted[MESSAGE / 2];
  if (dtype == NULL) {
    die("the model's input '%s' is neither float32 nor int8; this program accepts no other", input->name);
  }
  if (strcmp(header->dtype, dtype) != 0) {
    die("%s has dtype '%s'; accepted is '%s': save x.astype('%s')", path, header->dtype, dtype, dtype);
  }
  for (size_t i = 0; i < input->rank; ++i) {
    shape[i] = input->shape[i];
  }
  size_t batch = header->rank == (size_t)input->rank + 1;
  int same = batch || header->rank == input->rank;
  for (size_t i = 0; same && i < input->rank; ++i) {
    same = header->shape[batch + i] == shape[i];
  }
  if (!same) {
    die("%s has shape %s; accepted is %s", path, shape_text(given, sizeof(given), header->shape, header->rank, ""),
        shape_text(accepted, sizeof(accepted), shape, input->rank, "images, "));
  }
  return batch ? header->shape[0] : 1;
}

static npy_header output_header(const lqc_tensor_info *output, size_t images) {
  npy_header header = {.rank = (size_t)output->rank + 1, .shape = {images}};
  if (output->dtype == LQC_INT16 || output->dtype == LQC_INT32) {
    die("the model's output '%s' is neither float32, int8 nor bits; this program accepts no other", output->name);
  }
  strcpy(header.dtype, output->dtype == LQC_FLOAT32 ? "<f4" : "|i1");
  for (size_t i = 0; i < output->rank; ++i) {
    header.shape[i + 1] = output->shape[i];
  }
  return header;
}

/* Bits as +1 and -1; anything else as it is. Errors of the file are found by atomic_commit(). */
static void write_output(FILE *file, const lqc_tensor_info *info, const void *data) {
  if (info->dtype != LQC_BIT) {
    fwrite(data, 1, info->bytes, file);
    return;
  }
  const uint64_t *words = data;
  size_t channels = info->shape[info->rank - 1], per_pixel = (channels + 63) / 64;
  for (size_t p = 0; p < info->bytes / 8 / per_pixel; ++p) {
    for (size_t c = 0; c < channels; ++c) {
      fputc(words[p * per_pixel + c / 64] >> (c % 64) & 1 ? -1 & 0xff : 1, file);
    }
  }
}

/* Refuses a file too short for the images its header promises, before any is run. A pipe is checked while it is read.
 */
static void check_length(FILE *file, size_t images, size_t image_bytes, const char *path) {
  long start = ftell(file);
  if (start < 0 || fseek(file, 0, SEEK_END) != 0) {
    return;
  }
  size_t complete = (size_t)(ftell(file) - start) / image_bytes;
  if (complete < images) {
    die("%s is cut off in image %zu of %zu", path, complete, images);
  }
  if (fseek(file, start, SEEK_SET) != 0) {
    die("%s cannot be read: %s", path, strerror(errno));
  }
}

static uint64_t nanoseconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Runs all images `repeat` times; the results of the first time go to `output`. */
static void run_images(const run_arguments *a, lqc_session *session, FILE *input, const lqc_tensor_info *input_info,
                       FILE *output, const lqc_tensor_info *output_info, run_report *report) {
  lqc_error error;
  long start = ftell(input);
  for (unsigned long repeat = 0; repeat < a->repeat; ++repeat) {
    if (repeat > 0 && (start < 0 || fseek(input, start, SEEK_SET) != 0)) {
      die("%s cannot be read again for --repeat: %s", a->input, strerror(errno));
    }
    for (size_t image = 0; image < report->images; ++image) {
      if (fread(lqc_session_input(session, 0), 1, input_info->bytes, input) != input_info->bytes) {
        die("%s is cut off in image %zu of %zu", a->input, image, report->images);
      }
      uint64_t before = nanoseconds_now();
      if (lqc_session_run(session, &error) != LQC_OK) {
        die("%s, image %zu: %s", a->input, image, error.message);
      }
      report->nanoseconds[report->runs] = nanoseconds_now() - before;
      report_add_ops(report, session, report->runs++);
      if (output != NULL && repeat == 0) {
        write_output(output, output_info, lqc_session_output(session, 0));
      }
    }
  }
}

int main(int argc, char **argv) {
  run_arguments a = {.repeat = 1, .memory_limit = SIZE_MAX, .options = {.threads = 1}};
  lqc_error error;
  lqc_model model;
  lqc_session *session;
  size_t file_bytes;
  char message[MESSAGE];
  parse_arguments(argc, argv, &a);

  void *file_data = read_file(a.model, &file_bytes);
  check(lqc_model_load(&model, file_data, file_bytes, &error), &error, a.model);
  run_report report = {.threads = a.options.threads, .op_count = lqc_model_op_count(&model)};
  check(lqc_session_size(&model, &a.options, &report.session_bytes, &error), &error, a.model);
  if (report.session_bytes > a.memory_limit) {
    die("%s: the model needs %zu bytes of session memory; --memory-limit is %zu", a.model, report.session_bytes,
        a.memory_limit);
  }
  void *memory = allocate(report.session_bytes);
  check(lqc_session_init(&session, &model, &a.options, memory, report.session_bytes, &error), &error, a.model);
  report.isa = lqc_isa_name(lqc_session_isa(session));
  lqc_tensor_info input_info =
      only_tensor(&model, a.model, "inputs", lqc_model_input_count(&model), lqc_model_input_tensor(&model, 0));
  lqc_tensor_info output_info =
      only_tensor(&model, a.model, "outputs", lqc_model_output_count(&model), lqc_model_output_tensor(&model, 0));

  FILE *input = open_for_reading(a.input);
  npy_header images;
  if (npy_read_header(input, &images, message) != 0) {
    die("%s %s", a.input, message);
  }
  report.images = check_images(&images, &input_info, a.input);
  check_length(input, report.images, input_info.bytes, a.input);
  if (report.images > SIZE_MAX / sizeof(uint64_t) / a.repeat / (report.op_count + 2)) {
    die("%zu images times %lu are too many", report.images, a.repeat);
  }
  report.most_runs = report.images * a.repeat;
  report.nanoseconds = allocate(report.most_runs * sizeof(uint64_t));
  if (a.options.profile) {
    report.op_nanoseconds = allocate(report.op_count * report.most_runs * sizeof(uint64_t));
  }

  FILE *output = NULL;
  if (a.output != NULL) {
    npy_header header = output_header(&output_info, report.images);
    output = atomic_open(a.output, message, sizeof(message));
    if (output == NULL || npy_write_header(output, &header) != 0) {
      die("%s", output == NULL ? message : "the output cannot be written");
    }
  }
  run_images(&a, session, input, &input_info, output, &output_info, &report);
  report_print(&report, session, a.json);
  if (fflush(stdout) != 0 || ferror(stdout)) {
    die("the report cannot be written: %s", strerror(errno));
  }
  if (output != NULL && atomic_commit(message, sizeof(message)) != 0) { /* last: any error leaves the old file */
    die("%s", message);
  }
  lqc_session_destroy(session);
  fclose(input);
  free(report.op_nanoseconds);
  free(report.nanoseconds);
  free(memory);
  free(file_data);
  return 0;
}
