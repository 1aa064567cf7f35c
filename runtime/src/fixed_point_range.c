/* The proof that a FixedPoint never overflows: interval arithmetic, channel by channel. */
#include "fixed_point.h"

#define LARGEST ((int64_t)1 << 62)

/* What is known of one channel on its way. */
typedef struct follower {
  lqc_range y;
  bool narrow; /* all so far fits int32, with room for a sign */
} follower;

static bool fits_32(lqc_range range) {
  return range.low >= -INT32_MAX && range.high <= INT32_MAX;
}

static bool multiply(lqc_range range, int64_t factor, lqc_range *product) {
  int64_t a, b;
  if (__builtin_mul_overflow(range.low, factor, &a) || __builtin_mul_overflow(range.high, factor, &b)) {
    return false;
  }
  *product = a < b ? (lqc_range){a, b} : (lqc_range){b, a};
  return true;
}

/* y = y * factor + term, false where that may leave +-2^62. Everything on the way counts for `narrow`. */
static bool advance(follower *f, int64_t factor, lqc_range term) {
  lqc_range product, sum;
  if (!multiply(f->y, factor, &product) || __builtin_add_overflow(product.low, term.low, &sum.low) ||
      __builtin_add_overflow(product.high, term.high, &sum.high) || sum.low < -LARGEST || sum.high > LARGEST) {
    return false;
  }
  f->narrow =
      f->narrow && factor >= -INT32_MAX && factor <= INT32_MAX && fits_32(product) && fits_32(term) && fits_32(sum);
  f->y = sum;
  return true;
}

static int64_t power_at(const lqc_constant *shift, uint32_t c) {
  return (int64_t)1 << (shift->data ? ((const int8_t *)shift->data)[c] : 0);
}

static bool follow_step(follower *f, const lqc_step *step, const lqc_step_values *values, uint32_t c) {
  lqc_range term = {0, 0};
  switch (step->kind) {
  case LQC_STEP_RELU:
    f->y.low = f->y.low > 0 ? f->y.low : 0;
    f->y.high = f->y.high > 0 ? f->y.high : 0;
    return true;
  case LQC_STEP_AFFINE:
    if (values->offset.data) {
      term.low = term.high = ((const int64_t *)values->offset.data)[c];
    }
    return advance(f, ((const int32_t *)values->multiplier.data)[c], term);
  default: /* where the term fits 32 bits, 2^operand_shift does */
    return multiply(values->operand, power_at(&values->operand_shift, c), &term) &&
           advance(f, power_at(&values->shift, c), term);
  }
}

/* Whether the rounding of a store, which only those of integers do in lanes, stays within 32 bits. */
static bool stays_narrow(const follower *f, const lqc_tensor *output, const lqc_store_values *values, uint32_t c) {
  if (output->info.dtype == LQC_FLOAT32 || output->info.dtype == LQC_BIT) {
    return true;
  }
  int shift = values->shift.data ? ((const int8_t *)values->shift.data)[c] : 0;
  return shift <= 0 || (shift <= 31 && f->y.high <= INT32_MAX - ((int64_t)1 << (shift - 1)));
}

/* The same of what is left after the rounding, from lanes of 64 bits. */
static void follow_rounding(const follower *f, const lqc_tensor *output, const lqc_store_values *values, uint32_t c,
                            lqc_fixed_bounds *bounds) {
  if (output->info.dtype == LQC_FLOAT32 || output->info.dtype == LQC_BIT) {
    return;
  }
  int shift = values->shift.data ? ((const int8_t *)values->shift.data)[c] : 0, right = shift > 0 ? shift : 0;
  int64_t half = right > 0 ? (int64_t)1 << (right - 1) : 0; /* sums stay within 2^63: |y| and half are at most 2^62 */
  bool fits = fits_32((lqc_range){(f->y.low + half) >> right, (f->y.high + half) >> right});
  bounds->rounds_far = bounds->rounds_far && fits;
  bounds->rounds_narrow = bounds->rounds_narrow && fits && right <= 32;
}

lqc_status lqc_check_ranges(const lqc_prepare *prepare, const lqc_op *op, const lqc_tensor *outputs,
                            const lqc_fixed_values *values, lqc_start_range start, const void *context,
                            lqc_fixed_bounds *bounds) {
  const lqc_fixed_point *fixed = &op->fixed_point;
  *bounds = (lqc_fixed_bounds){true, true, true};
  LQC_TRY(lqc_spend_work(prepare, op, (uint64_t)outputs->channels * (fixed->step_count + fixed->store_count + 1) * 4));
  for (uint32_t c = 0; c < outputs->channels; ++c) {
    follower f = {start(context, c), true};
    f.narrow = fits_32(f.y);
    for (uint32_t i = 0; i < fixed->step_count; ++i) {
      lqc_range before = f.y;
      if (!follow_step(&f, &fixed->steps[i], &values->steps[i], c)) {
        return lqc_fail(prepare->error, LQC_ERROR_UNSUPPORTED,
                        "op '%s' (%s): step %u may take channel %u, then %lld to %lld, beyond +-2^62; choose smaller "
                        "multipliers, offsets or shifts",
                        op->name, lqc_op_kind_name(op->kind), i, c, (long long)before.low, (long long)before.high);
      }
    }
    for (uint32_t i = 0; i < fixed->store_count; ++i) {
      f.narrow = f.narrow && stays_narrow(&f, &outputs[i], &values->stores[i], c);
      follow_rounding(&f, &outputs[i], &values->stores[i], c, bounds);
    }
    bounds->narrow = bounds->narrow && f.narrow;
  }
  return LQC_OK;
}
