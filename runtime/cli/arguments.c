#include "arguments.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "atomic_file.h"
#include "printable.h"

static const char usage[] =
    "Usage: larq-clip-run MODEL.lcb --input X.npy [options]\n"
    "\n"
    "Runs each image of X.npy through a model converted by larq_clip.\n"
    "\n"
    "  --input X.npy    images, float32 [N, height, width, channels], or one without N\n"
    "  --output Y.npy   write the results, [N, ...]: float32, int8, or int8 of +1 and -1 for bits\n"
    "  --repeat N       run all images N times (1)\n"
    "  --threads T      use T threads, the calling one included (1)\n"
    "  --isa NAME       instruction set: auto, scalar, neon, neon_in_order, avx2, avx512 (auto)\n"
    "  --memory-limit B refuse a model that needs more than B bytes of session memory\n"
    "  --profile        report the time of every op: median, share, GMAC/s, kernel\n"
    "  --json           report as JSON\n"
    "  --help           print this\n"
    "  --version        print the version\n"
    "\n"
    "Exit codes: 0, and 2 for any error, which is told in one line on stderr; then nothing is written.\n";

noreturn void die(const char *format, ...) {
  char message[1024];
  va_list values;
  va_start(values, format);
  vsnprintf(message, sizeof(message), format, values);
  va_end(values);
  make_printable(message);
  fprintf(stderr, "larq-clip-run: %s\n", message);
  atomic_abandon();
  exit(2);
}

static unsigned long parse_number(const char *option, const char *text, unsigned long highest) {
  char *end;
  errno = 0;
  unsigned long number = strtoul(text, &end, 10);
  if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || number < 1 || number > highest) {
    die("%s is '%s'; accepted are 1 to %lu", option, text, highest);
  }
  return number;
}

static lqc_isa parse_isa(const char *text) {
  for (int isa = 0; isa < LQC_ISA_COUNT; ++isa) {
    if (strcmp(text, lqc_isa_name((lqc_isa)isa)) == 0) {
      return (lqc_isa)isa;
    }
  }
  die("--isa is '%s'; accepted are auto, scalar, neon, neon_in_order, avx2 and avx512", text);
}

/* The value of option `name` at argv[*i], as "--name value" or "--name=value"; NULL where another option is there. */
static const char *value_of(const char *name, int argc, char **argv, int *i) {
  size_t length = strlen(name);
  const char *text = argv[*i];
  if (strncmp(text, name, length) != 0 || (text[length] != '\0' && text[length] != '=')) {
    return NULL;
  }
  if (text[length] == '=') {
    return text + length + 1;
  }
  if (*i + 1 >= argc) {
    die("%s needs a value; see --help", name);
  }
  return argv[++*i];
}

void parse_arguments(int argc, char **argv, run_arguments *arguments) {
  int only_names = 0;
  for (int i = 1; i < argc; ++i) {
    const char *text = argv[i], *value;
    if (only_names || text[0] != '-') {
      if (arguments->model != NULL) {
        die("one model is accepted; '%s' and '%s' were given", arguments->model, text);
      }
      arguments->model = text;
    } else if (strcmp(text, "--") == 0) {
      only_names = 1;
    } else if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0) {
      fputs(usage, stdout);
      exit(0);
    } else if (strcmp(text, "--version") == 0) {
      printf("larq-clip-run %s\n", lqc_version());
      exit(0);
    } else if (strcmp(text, "--profile") == 0) {
      arguments->options.profile = 1;
    } else if (strcmp(text, "--json") == 0) {
      arguments->json = 1;
    } else if ((value = value_of("--input", argc, argv, &i)) != NULL) {
      arguments->input = value;
    } else if ((value = value_of("--output", argc, argv, &i)) != NULL) {
      arguments->output = value;
    } else if ((value = value_of("--repeat", argc, argv, &i)) != NULL) {
      arguments->repeat = parse_number("--repeat", value, 1000000000);
    } else if ((value = value_of("--threads", argc, argv, &i)) != NULL) {
      arguments->options.threads = (uint32_t)parse_number("--threads", value, LQC_MAX_THREADS);
    } else if ((value = value_of("--memory-limit", argc, argv, &i)) != NULL) {
      arguments->memory_limit = parse_number("--memory-limit", value, SIZE_MAX);
    } else if ((value = value_of("--isa", argc, argv, &i)) != NULL) {
      arguments->options.isa = parse_isa(value);
    } else {
      die("unknown option '%s'; see --help", text);
    }
  }
  if (arguments->model == NULL || arguments->input == NULL) {
    die("%s is missing; see --help", arguments->model == NULL ? "MODEL.lcb" : "--input X.npy");
  }
}
