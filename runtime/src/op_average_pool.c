/* AveragePool2D of float32, and of int8 and int16 exactly. */
#include "fixed_point.h"
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

static void sum_i16(int32_t *sums, const int16_t *in, const lqc_pool_window *w) {
  uint32_t elements = w->state->elements;
  for (uint32_t e = 0; e < elements; ++e) {
    sums[e] = 0;
  }
  for (uint32_t i = w->rows.first; i < w->rows.end; ++i) {
    for (uint32_t j = w->columns.first; j < w->columns.end; ++j) {
      const int16_t *tap = in + lqc_pool_element(w, i, j);
      for (uint32_t e = 0; e < elements; ++e) {
        sums[e] += tap[e];
      }
    }
  }
}

static void average_f32(float *out, const float *in, const lqc_pool_window *w, void *scratch) {
  lqc_pool_taps taps = lqc_pool_taps_at(w, in, sizeof(*in));
  (void)scratch;
  w->state->kernels->average_f32(out, &taps, w->state->elements);
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

/* Output pixels of int8 input whose sums are made before they are stored: what channels have is then read once. */
enum { RUN = 16 };

/* Stores `pixels` means of windows of `count` pixels, from output pixel `first` on. The mean of 2^i pixels is a
 * rounding shift of their sum. */
static void store_means(const lqc_node *node, size_t first, uint32_t pixels, uint32_t count, const int32_t *sums,
                        void *lanes) {
  const lqc_pool_state *s = node->state;
  const size_t stride = lqc_lane_count(s->elements);
  if ((count & (count - 1)) == 0) {
    uint32_t log2 = 0;
    while (count >> log2 > 1) {
      ++log2;
    }
    const size_t bytes = s->elements * (s->to_int16 ? sizeof(int16_t) : sizeof(int8_t));
    const lqc_lane_pixels of_run = {.count = pixels,
                                    .first = first,
                                    .outputs = &node->output,
                                    .output_bytes = &bytes,
                                    .source = LQC_LANES_INT32,
                                    .values = sums,
                                    .value_bytes = stride * sizeof(*sums)};
    s->kernels->fixed_point(&s->means[log2], &of_run, lanes);
    return;
  }
  for (size_t p = first; p < first + pixels; ++p, sums += stride) {
    for (uint32_t e = 0; e < s->elements; ++e) {
      const size_t place = p * s->elements + e;
      if (s->to_int16) {
        ((int16_t *)node->output)[place] = (int16_t)mean_of(sums[e], count, s->shifts[e], INT16_MAX);
      } else {
        ((int8_t *)node->output)[place] = (int8_t)mean_of(sums[e], count, s->shifts[e], INT8_MAX);
      }
    }
  }
}

typedef struct average_work {
  const lqc_node *node;
  const lqc_runner *runner;
} average_work;

/* One item is one row: runs of pixels that see the same taps. */
static void average_i8_rows(const void *context, uint32_t thread, size_t begin, size_t end) {
  const average_work *work = context;
  const lqc_pool_state *s = work->node->state;
  const size_t stride = lqc_lane_count(s->elements);
  int32_t *sums = (int32_t *)(void *)(work->runner->thread_scratch + thread * work->runner->thread_scratch_bytes);
  for (lqc_span span = {0, 0, {0, 0}}; span.end < s->columns.out;) {
    span = lqc_axis_span(&s->columns, span.end);
    for (size_t y = begin; y < end; ++y) {
      lqc_pool_window w = lqc_pool_window_at(s, (uint32_t)y, &span);
      for (uint32_t x = span.first, pixels; x < span.end; x += pixels) {
        pixels = span.end - x < RUN ? span.end - x : RUN;
        for (uint32_t p = 0; p < pixels; ++p, lqc_pool_move_on(&w)) {
          const lqc_pool_taps taps = lqc_pool_taps_at(&w, work->node->input, sizeof(int8_t));
          s->kernels->sum_i8(sums + p * stride, &taps, s->elements);
        }
        store_means(work->node, y * s->columns.out + x, pixels, count_pixels(&w), sums, sums + RUN * stride);
      }
    }
  }
}

static void run_average_i8(const lqc_node *node, const lqc_runner *runner) {
  const average_work work = {node, runner};
  lqc_pool_run(runner->pool, average_i8_rows, &work, ((const lqc_pool_state *)node->state)->rows.out);
}

#define LQC_DEFINE_AVERAGE(name, out_type, limit)                                               \
  static void name(out_type *out, const int16_t *in, const lqc_pool_window *w, void *scratch) { \
    int32_t *sums = scratch;                                                                    \
    sum_i16(sums, in, w);                                                                       \
    for (uint32_t e = 0; e < w->state->elements; ++e) {                                         \
      out[e] = (out_type)mean_of(sums[e], count_pixels(w), w->state->shifts[e], limit);         \
    }                                                                                           \
  }
LQC_DEFINE_AVERAGE(average_i16_i8, int8_t, INT8_MAX)
LQC_DEFINE_AVERAGE(average_i16_i16, int16_t, INT16_MAX)

LQC_DEFINE_POOL(f32, average_f32, float)
LQC_DEFINE_POOL(i16_i8, average_i16_i8, int8_t)
LQC_DEFINE_POOL(i16_i16, average_i16_i16, int16_t)

/* Rounding shifts for windows of 2^i pixels, as far as there are any. A sum is at most 2^23, so that shifts beyond 30
 * to the right give 0 as well, and beyond 16 to the left saturate as well. */
static lqc_status prepare_means(lqc_prepare *prepare, uint64_t pixels, lqc_dtype dtype, lqc_pool_state *state) {
  enum { MEANS = 17, RIGHT = 30, LEFT = 16 };
  lqc_lane_program *means;
  lqc_lane_store *stores;
  void *memory = NULL, *lanes[3];
  LQC_TRY(lqc_bump_take(prepare->bump, MEANS, sizeof(lqc_lane_program), &memory, prepare->error));
  means = memory;
  LQC_TRY(lqc_bump_take(prepare->bump, MEANS, sizeof(lqc_lane_store), &memory, prepare->error));
  stores = memory;
  state->means = means;
  for (int i = 0; i < MEANS && (uint64_t)1 << i <= pixels; ++i) {
    for (int j = 0; j < 3; ++j) {
      LQC_TRY(
          lqc_bump_take(prepare->bump, lqc_lane_count(state->elements), sizeof(int32_t), &lanes[j], prepare->error));
    }
    if (means == NULL) {
      continue;
    }
    bool any_left = false;
    for (uint32_t c = 0; c < lqc_lane_count(state->elements); ++c) {
      int right = c < state->elements ? i - state->shifts[c] : 0, left = right < 0 ? -right : 0;
      right = right < 0 ? 0 : right < RIGHT ? right : RIGHT;
      ((int32_t *)lanes[0])[c] = right > 0 ? 1 << (right - 1) : 0;
      ((int32_t *)lanes[1])[c] = right;
      ((int32_t *)lanes[2])[c] = 1 << (left < LEFT ? left : LEFT);
      any_left = any_left || left > 0;
    }
    stores[i] =
        (lqc_lane_store){.dtype = dtype, .half = lanes[0], .right = lanes[1], .left = any_left ? lanes[2] : NULL};
    means[i] = (lqc_lane_program){.channels = state->elements, .store_count = 1, .stores = &stores[i]};
  }
  return LQC_OK;
}

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
  state->to_int16 = output->info.dtype == LQC_INT16;
  lqc_need_thread_scratch(prepare, (RUN + 1) * lqc_lane_count(input->channels) * sizeof(int32_t));
  return input->info.dtype == LQC_INT8 ? prepare_means(prepare, rows * columns, output->info.dtype, state) : LQC_OK;
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
                          .elements = input->channels,
                          .kernels = prepare->kernels};
  if (is_float) {
    node->kernel = "average_pool2d_f32";
    node->run = run_f32;
  } else {
    bool to_8 = output->info.dtype == LQC_INT8;
    LQC_TRY(prepare_integers(prepare, op, input, output, &state));
    node->kernel = from_8 ? "average_pool2d_i8" : "average_pool2d_i16";
    node->run = from_8 ? run_average_i8 : to_8 ? run_i16_i8 : run_i16_i16;
  }
  return lqc_keep_state(prepare, node, &state, sizeof(state));
}
