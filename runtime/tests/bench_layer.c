/* larq-clip-bench-layer: one binary convolution of random data, run between two empty functions that a simulator, an
 * instruction counter or a debugger finds by name. The layer is a model in memory and runs as any session runs it. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <stdint.h>
#include <time.h>

#include "fixed_point_testing.h"
#include "session.h"

static const char usage[] =
    "usage: larq-clip-bench-layer H W CIN COUT KH KW STRIDE PADDING ITERATIONS MODE [--verify] [--isa NAME]\n"
    "\n"
    "One binary convolution, HxWxCIN to COUT channels with a KHxKW kernel, on one thread, of random data from a fixed\n"
    "seed. The ITERATIONS runs lie between a call of roi_begin() and one of roi_end().\n"
    "\n"
    "PADDING  same      as Keras pads, with zeros (pad_values=0): the taps outside add nothing\n"
    "         same_one  as Keras pads, with ones (pad_values=1)\n"
    "         valid     no padding\n"
    "MODE     INPUT:OUTPUT, one of\n"
    "         bits:bits, float32:bits, int8:bits   thresholds; other inputs are packed into bits inside the layer\n"
    "         bits:int8                            clipped to 8 bits\n"
    "         bits:float32                         times a multiplier plus an offset by channel\n"
    "         int8:int8+bits                       fixed-point batch norm, plus the input where it has the output's\n"
    "                                              shape, stored in 8 bits and as bits\n"
    "--verify     compares every output with the scalar kernels and says so\n"
    "--isa NAME   auto (default), scalar, neon, neon_in_order, avx2 or avx512\n";

typedef struct layer {
  uint32_t height, width, in_channels, out_channels, kernel_h, kernel_w, stride;
  const char *padding;
  uint32_t iterations;
  lqc_dtype input;
  lqc_epilogue epilogue;
  lqc_isa isa;
  int verify;
} layer;

#if defined(__clang__) /* which makes no clones and has no word for them */
#  define KEPT __attribute__((noinline, used))
#else
#  define KEPT __attribute__((noinline, noclone, used))
#endif

/* Not static and never inlined: the calls stay, and their names are in the program. */
void roi_begin(void);
void roi_end(void);
KEPT void roi_begin(void) {
  __asm__ volatile("" ::: "memory");
}
KEPT void roi_end(void) {
  __asm__ volatile("" ::: "memory");
}

static void refuse(const char *what, const char *value, const char *accepted) {
  fprintf(stderr, "larq-clip-bench-layer: %s is '%s'; accepted are %s\n\n%s", what, value, accepted, usage);
  exit(2);
}

static uint32_t parse_number(const char *what, const char *text) {
  char *end;
  unsigned long value = strtoul(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0' || value < 1 || value > 65535) {
    refuse(what, text, "1 to 65535");
  }
  return (uint32_t)value;
}

static lqc_isa parse_isa(const char *text) {
  for (int isa = 0; isa < LQC_ISA_COUNT; ++isa) {
    if (strcmp(text, lqc_isa_name((lqc_isa)isa)) == 0 && lqc_isa_available((lqc_isa)isa)) {
      return (lqc_isa)isa;
    }
  }
  refuse("--isa", text, "auto, scalar and those that this program and this processor have");
  return LQC_ISA_AUTO;
}

static void parse_mode(const char *text, layer *l) {
  static const struct {
    const char *name;
    lqc_dtype input;
    lqc_epilogue epilogue;
  } modes[] = {{"bits:bits", LQC_BIT, LQC_THRESHOLD},  {"float32:bits", LQC_FLOAT32, LQC_THRESHOLD},
               {"int8:bits", LQC_INT8, LQC_THRESHOLD}, {"bits:int8", LQC_BIT, LQC_CLIP},
               {"bits:float32", LQC_BIT, LQC_AFFINE},  {"int8:int8+bits", LQC_INT8, LQC_FIXED_POINT}};
  for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); ++i) {
    if (strcmp(text, modes[i].name) == 0) {
      l->input = modes[i].input;
      l->epilogue = modes[i].epilogue;
      return;
    }
  }
  refuse("MODE", text, "bits:bits, float32:bits, int8:bits, bits:int8, bits:float32 and int8:int8+bits");
}

static layer parse(int argc, char **argv) {
  layer l = {.isa = LQC_ISA_AUTO};
  if (argc < 11) {
    fputs(usage, stderr);
    exit(2);
  }
  uint32_t *const numbers[] = {&l.height,   &l.width,    &l.in_channels, &l.out_channels,
                               &l.kernel_h, &l.kernel_w, &l.stride};
  static const char *const names[] = {"H", "W", "CIN", "COUT", "KH", "KW", "STRIDE"};
  for (int i = 0; i < 7; ++i) {
    *numbers[i] = parse_number(names[i], argv[1 + i]);
  }
  l.padding = argv[8];
  if (strcmp(l.padding, "same") != 0 && strcmp(l.padding, "same_one") != 0 && strcmp(l.padding, "valid") != 0) {
    refuse("PADDING", l.padding, "same, same_one and valid");
  }
  l.iterations = parse_number("ITERATIONS", argv[9]);
  parse_mode(argv[10], &l);
  for (int i = 11; i < argc; ++i) {
    if (strcmp(argv[i], "--verify") == 0) {
      l.verify = 1;
    } else if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc) {
      l.isa = parse_isa(argv[++i]);
    } else {
      refuse("an option", argv[i], "--verify and --isa NAME");
    }
  }
  if (strcmp(l.padding, "valid") == 0 && (l.height < l.kernel_h || l.width < l.kernel_w)) {
    refuse("PADDING", "valid", "images of at least the kernel's size, or another padding");
  }
  return l;
}

/* Output size of an axis and the padding before it, as Keras has them. */
static uint32_t output_size(const layer *l, uint32_t size, uint32_t kernel, uint32_t *pad) {
  *pad = 0;
  if (strcmp(l->padding, "valid") == 0) {
    return (size - kernel) / l->stride + 1;
  }
  uint32_t out = (size + l->stride - 1) / l->stride, covered = (out - 1) * l->stride + kernel;
  *pad = covered > size ? (covered - size) / 2 : 0;
  return out;
}

static void add_thresholds(built_model *m, lqc_op *op, const layer *l, uint64_t *seed) {
  op->thresholds = add_constant(m, LQC_INT16, 1, &l->out_channels, NULL);
  for (uint32_t c = 0; c < l->out_channels; ++c) {
    ((int16_t *)(void *)m->constants[op->thresholds].data)[c] = (int16_t)((int)random_below(seed, 65) - 32);
  }
}

/* y = m * v + b, and 2^6 * x more where the input can be added; then 7 fraction bits less. */
static void add_fixed_point(built_model *m, lqc_op *op, const layer *l, const fixed_case *output, uint64_t *seed) {
  int32_t *multiplier = malloc(l->out_channels * sizeof(*multiplier));
  int64_t *offset = malloc(l->out_channels * sizeof(*offset)), *thresholds = calloc(l->out_channels, sizeof(int64_t));
  int8_t *operand_shift = malloc(l->out_channels), *shift = malloc(l->out_channels);
  for (uint32_t c = 0; c < l->out_channels; ++c) {
    multiplier[c] = (int32_t)random_below(seed, 401) - 200;
    offset[c] = (int64_t)random_below(seed, 4001) - 2000;
    operand_shift[c] = 6;
    shift[c] = 7;
  }
  add_affine_step(m, op, l->out_channels, multiplier, offset);
  if (output->height == l->height && output->width == l->width && l->out_channels == l->in_channels) {
    op->inputs[op->input_count++] = 0;
    add_add_step(m, op, l->out_channels, 1, NULL, operand_shift);
  }
  add_store(m, op, output, LQC_INT8, shift, NULL);
  add_store(m, op, output, LQC_BIT, NULL, thresholds);
  free(multiplier);
  free(offset);
  free(thresholds);
  free(operand_shift);
  free(shift);
}

static void describe(built_model *m, const layer *l, uint64_t *seed) {
  const uint32_t shape[] = {l->out_channels, l->kernel_h, l->kernel_w, l->in_channels};
  uint32_t pad_top, pad_left;
  const fixed_case output = {output_size(l, l->height, l->kernel_h, &pad_top),
                             output_size(l, l->width, l->kernel_w, &pad_left), l->out_channels, 0, 0};
  model_start(m);
  uint32_t bits = add_input(m, l->input, l->height, l->width, l->in_channels);
  if (l->input != LQC_BIT) {
    uint32_t packed = add_tensor(m, "packed", LQC_BIT, l->height, l->width, l->in_channels);
    add_op(m, make_op(LQC_OP_BITPACK, "bitpack", bits, packed));
    bits = packed;
  }
  lqc_op op = make_op(LQC_OP_BINARY_CONV_2D, "conv", bits, 0);
  op.window = (lqc_window){l->kernel_h, l->kernel_w, l->stride, l->stride, 1, 1, pad_top, pad_left};
  op.pad_value = strcmp(l->padding, "same_one") == 0;
  op.weights = add_random_bits(m, 4, shape, seed);
  op.epilogue = l->epilogue;
  if (l->epilogue == LQC_CLIP || l->epilogue == LQC_FIXED_POINT) {
    op.clip_limit = 127;
    op.step_log2 = 1;
  }
  if (l->epilogue == LQC_FIXED_POINT) {
    add_fixed_point(m, &op, l, &output, seed);
  } else {
    static const lqc_dtype dtypes[] = {LQC_BIT, LQC_INT8, LQC_FLOAT32};
    op.outputs[0] = add_tensor(m, "y", dtypes[l->epilogue], output.height, output.width, output.channels);
    m->outputs[m->output_count++] = op.outputs[0];
  }
  if (l->epilogue == LQC_THRESHOLD) {
    add_thresholds(m, &op, l, seed);
  } else if (l->epilogue == LQC_CLIP) {
    m->tensors[op.outputs[0]].fraction_count = 1;
    m->tensors[op.outputs[0]].fraction_bits[0] = -1;
  } else if (l->epilogue == LQC_AFFINE) {
    op.multiplier = add_random_floats(m, 1, &l->out_channels, seed);
    op.offset = add_random_floats(m, 1, &l->out_channels, seed);
  }
  add_op(m, op);
}

static void fill_input(const layer *l, lqc_session *session, size_t bytes) {
  uint64_t seed = 7;
  uint8_t *data = lqc_session_input(session, 0);
  const uint64_t tail = last_word_mask(l->in_channels);
  const size_t words = (l->in_channels + 63) / 64;
  if (l->input == LQC_FLOAT32) { /* multiples of 1/64 in [-2, 2], some of them 0 */
    for (size_t i = 0; i < bytes / sizeof(float); ++i) {
      ((float *)(void *)data)[i] = ((float)random_below(&seed, 257) - 128.0f) / 64.0f;
    }
    return;
  }
  for (size_t i = 0; i < bytes; ++i) {
    data[i] = (uint8_t)random_u64(&seed);
  }
  for (size_t i = words - 1; l->input == LQC_BIT && i < bytes / 8; i += words) {
    ((uint64_t *)(void *)data)[i] &= tail;
  }
}

static void compare(const layer *l, const built_model *m, test_session *measured) {
  const lqc_options options = {.threads = 1, .isa = LQC_ISA_SCALAR};
  test_session scalar = open_session(m, &options);
  fill_input(l, scalar.session, lqc_array_bytes(l->input, m->tensors[0].shape, 3));
  lqc_session_run_ops(scalar.session);
  for (uint32_t i = 0; i < m->output_count; ++i) {
    uint32_t tensor = m->outputs[i];
    size_t bytes = lqc_array_bytes((lqc_dtype)m->tensors[tensor].dtype, m->tensors[tensor].shape, 3);
    const uint8_t *expected = lqc_session_output(scalar.session, i), *found = lqc_session_output(measured->session, i);
    for (size_t b = 0; b < bytes; ++b) {
      if (expected[b] != found[b]) {
        FAIL("output %u differs from scalar in byte %zu of %zu: %u, expected %u", i, b, bytes, found[b], expected[b]);
      }
    }
  }
  close_session(&scalar);
  printf("verified against scalar\n");
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv) {
  static built_model m;
  uint64_t seed = 5;
  const layer l = parse(argc, argv);
  describe(&m, &l, &seed);
  const lqc_options options = {.threads = 1, .isa = l.isa};
  test_session s = open_session(&m, &options);
  fill_input(&l, s.session, lqc_array_bytes(l.input, m.tensors[0].shape, 3));
  double before = seconds_now();
  roi_begin();
  for (uint32_t i = 0; i < l.iterations; ++i) {
    lqc_session_run_ops(s.session);
  }
  roi_end();
  double seconds = seconds_now() - before;
  lqc_op_info info;
  EXPECT(lqc_session_op_info(s.session, m.op_count - 1, &info) == LQC_OK, "the layer is the last op");
  printf("%s: %.0f ns a run, %.2f GMAC/s\n", info.kernel, 1e9 * seconds / l.iterations,
         1e-9 * (double)info.binary_macs * l.iterations / seconds);
  if (l.verify) {
    compare(&l, &m, &s);
  }
  close_session(&s);
  model_end(&m);
  return 0;
}
