/* AveragePool2D of float32, and of int8 and int16 exactly. */
#include "op_pool.h"

/* Pixels of a window: sums of as many int16 fit int32. */
#define MAX_PIXELS 65536u
/* Shifts beyond are as good as these: a mean that is not 0 is at least 1 / MAX_PIXELS, which 2^31 saturates, and at
 * most 2^15, of which 2^-20 leaves less than 1/2. */
#define MAX_SHIFT 31
#define MIN_SHIFT (-20)

static uint32_t count_pixels(const lqc_pool_window *w) {
  return (w->rows.end - w->rows.first) * (w->columns.end - w->columns.first);
}

#define LQC_DEFINE_SUM(name, type, sum_type)                                   \
  static void name(sum_type *sums, const type *in, const lqc_pool_window *w) { \
    uint32_t elements = w->state->elements;                                    \
    for (uint32_t e = 0; e < elements; ++e) {                                  \
      sums[e] = 0;                                                             \
    }                                                                          \
    for (uint32_t i = w->rows.first; i < w->rows.end; ++i) {                   \
      for (uint32_t j = w->columns.first; j < w->columns.end; ++j) {           \
        const type *tap = in + lqc_pool_element(w, i, j);                      \
        for (uint32_t e = 0; e < elements; ++e) {                              \
          sums[e] += tap[e];                                                   \
        }                                                                      \
      }                                                                        \
    }                                                                          \
  }
LQC_DEFINE_SUM(sum_f32, float, float)
LQC_DEFINE_SUM(sum_i8, int8_t, int32_t)
LQC_DEFINE_SUM(sum_i16, int16_t, int32_t)

static void average_f32(float *out, const float *in, const lqc_pool_window *w, void *scratch) {
  float count = (float)count_pixels(w);
  (void)scratch;
  sum_f32(out, in, w);
  for (uint32_t e = 0; e < w->state->elements; ++e) {
    out[e] /= count;
  }
}

/* clip(floor(2^shift * sum / count + 1/2), +-limit) = floor((2 sum 2^shift + count) / (2 count)), or, for a negative
 * shift, floor((2 sum + count 2^-shift) / (2 count 2^-shift)). |sum| <= 2^31 and count <= 2^16: the numerators stay
 * within -2^63 and 2^63 - 2^48 + 2^16. */
static int32_t mean_of(int32_t sum, int64_t count, int shift, int32_t limit) {
  int64_t numerator = (int64_t)sum * ((int64_t)2 << (shift > 0 ? shift : 0));
  int64_t half = count * ((int64_t)1 << (shift < 0 ? -shift : 0));
  numerator += half;
  int64_t mean = numerator / (2 * half);
  mean -= numerator % (2 * half) < 0;
  return mean > limit ? limit : mean < -limit ? -limit : (int32_t)mean;
}

#define LQC_DEFINE_AVERAGE(name, sum, in_type, out_type, limit)                                 \
  static void name(out_type *out, const in_type *in, const lqc_pool_window *w, void *scratch) { \
    int32_t *sums = scratch;                                                                    \
    sum(sums, in, w);                                                                           \
    for (uint32_t e = 0; e < w->state->elements; ++e) {                                         \
      out[e] = (out_type)mean_of(sums[e], count_pixels(w), w->state->shifts[e], limit);         \
    }                                                                                           \
  }
LQC_DEFINE_AVERAGE(average_i8_i8, sum_i8, int8_t, int8_t, INT8_MAX)
LQC_DEFINE_AVERAGE(average_i8_i16, sum_i8, int8_t, int16_t, INT16_MAX)
LQC_DEFINE_AVERAGE(average_i16_i8, sum_i16, int16_t, int8_t, INT8_MAX)
LQC_DEFINE_AVERAGE(average_i16_i16, sum_i16, int16_t, int16_t, INT16_MAX)

LQC_DEFINE_POOL(f32, average_f32, float)
LQC_DEFINE_POOL(i8_i8, average_i8_i8, int8_t)
LQC_DEFINE_POOL(i8_i16, average_i8_i16, int16_t)
LQC_DEFINE_POOL(i16_i8, average_i16_i8, int8_t)
LQC_DEFINE_POOL(i16_i16, average_i16_i16, int16_t)

static lqc_status prepare_integers(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                   const lqc_tensor *output, lqc_pool_state *state) {
  const lqc_window *w = &op->window;
  uint64_t rows = w->kernel_h < input->height ? w->kernel_h : input->height;
  uint64_t columns = w->kernel_w < input->width ? w->kernel_w : input->width;
  void *memory = NULL;
  if (rows * columns > MAX_PIXELS) {
    return lqc_fail(prepare->error, LQC_ERROR_UNSUPPORTED,
                    "op '%s' (AveragePool2D): a window of %llu pixels of %s; accepted are up to %u", op->name,
                    (unsigned long long)(rows * columns), lqc_dtype_name(input->info.dtype), MAX_PIXELS);
  }
  LQC_TRY(lqc_bump_take(prepare->bump, input->channels, 1, &memory, prepare->error));
  for (uint32_t c = 0; memory && c < input->channels; ++c) {
    int shift = lqc_fraction_of(output, c) - lqc_fraction_of(input, c);
    ((int8_t *)memory)[c] = (int8_t)(shift > MAX_SHIFT ? MAX_SHIFT : shift < MIN_SHIFT ? MIN_SHIFT : shift);
  }
  state->shifts = memory;
  lqc_need_thread_scratch(prepare, input->channels * sizeof(int32_t));
  return LQC_OK;
}

lqc_status lqc_prepare_AveragePool2D(lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *input,
                                     const lqc_tensor *output, lqc_node *node) {
  unsigned integers = LQC_MASK(LQC_INT8) | LQC_MASK(LQC_INT16);
  LQC_TRY(lqc_expect_dtype(prepare, op, input, "input", LQC_MASK(LQC_FLOAT32) | integers));
  bool is_float = input->info.dtype == LQC_FLOAT32, from_8 = input->info.dtype == LQC_INT8;
  LQC_TRY(lqc_expect_dtype(prepare, op, output, "output", is_float ? LQC_MASK(LQC_FLOAT32) : integers));
  LQC_TRY(lqc_expect_pool_window(prepare, op, input, output));
  lqc_pool_state state = {.rows = lqc_row_axis(&op->window, input, output),
                          .columns = lqc_column_axis(&op->window, input, output),
                          .elements = input->channels};
  if (is_float) {
    node->kernel = "average_pool2d_f32";
    node->run = run_f32;
  } else {
    bool to_8 = output->info.dtype == LQC_INT8;
    LQC_TRY(prepare_integers(prepare, op, input, output, &state));
    node->kernel = from_8 ? "average_pool2d_i8" : "average_pool2d_i16";
    node->run = from_8 ? (to_8 ? run_i8_i8 : run_i8_i16) : (to_8 ? run_i16_i8 : run_i16_i16);
  }
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
