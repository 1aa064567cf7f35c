/* Selection: start with scalar, then let the chosen ISA override. */
#include "kernels_isa.h"

void lqc_kernels_scalar(lqc_kernels *kernels) {
  *kernels = (lqc_kernels){
      .isa = LQC_ISA_SCALAR,
      .bconv = &lqc_bconv2d_scalar,
      .bconv_wide = &lqc_bconv2d_wide_scalar,
      .threshold = lqc_threshold_scalar,
      .clip = lqc_clip_scalar,
      .affine = lqc_affine_scalar,
      .threshold_wide = lqc_threshold_wide_scalar,
      .clip_wide = lqc_clip_wide_scalar,
      .affine_wide = lqc_affine_wide_scalar,
      .bitpack_f32 = lqc_bitpack_f32_scalar,
      .bitpack_i8 = lqc_bitpack_i8_scalar,
      .bitpack_i16 = lqc_bitpack_i16_scalar,
      .int8_conv = &lqc_int8_conv_scalar,
      .int8_depthwise = lqc_int8_depthwise_scalar,
      .conv_f32 = lqc_conv_f32_scalar,
      .depthwise_f32 = lqc_depthwise_f32_scalar,
      .max_i8 = lqc_max_i8_scalar,
      .sum_and_magnitudes = lqc_sum_and_magnitudes_scalar,
      .max_f32 = lqc_max_f32_scalar,
      .average_f32 = lqc_average_f32_scalar,
      .affine_f32 = lqc_affine_f32_scalar,
      .add_f32 = lqc_add_f32_scalar,
      .subtract_f32 = lqc_subtract_f32_scalar,
      .multiply_f32 = lqc_multiply_f32_scalar,
      .maximum_f32 = lqc_maximum_f32_scalar,
      .minimum_f32 = lqc_minimum_f32_scalar,
      .prelu_f32 = lqc_prelu_f32_scalar,
      .sum_i8 = lqc_sum_i8_scalar,
      .quantize_i8 = lqc_quantize_i8_scalar,
      .quantize_i16 = lqc_quantize_i16_scalar,
      .fixed_point = lqc_fixed_point_scalar,
      .fixed_point_wide = lqc_fixed_point_wide_scalar,
  };
}

#define LQC_OVERRIDE(name, NAME, plain)                           \
  void lqc_kernels_##name(lqc_kernels *kernels) {                 \
    kernels->isa = LQC_ISA_##NAME;                                \
    kernels->bconv = &lqc_bconv2d_##name;                         \
    kernels->threshold = lqc_threshold_##name;                    \
    kernels->clip = lqc_clip_##name;                              \
    kernels->affine = lqc_affine_##name;                          \
    kernels->bitpack_f32 = lqc_bitpack_f32_##name;                \
    kernels->bitpack_i8 = lqc_bitpack_i8_##name;                  \
    kernels->int8_conv = &lqc_int8_conv_##name;                   \
    kernels->int8_depthwise = lqc_int8_depthwise_##plain;         \
    kernels->conv_f32 = lqc_conv_f32_##plain;                     \
    kernels->depthwise_f32 = lqc_depthwise_f32_##plain;           \
    kernels->max_i8 = lqc_max_i8_##plain;                         \
    kernels->sum_and_magnitudes = lqc_sum_and_magnitudes_##plain; \
    kernels->max_f32 = lqc_max_f32_##plain;                       \
    kernels->average_f32 = lqc_average_f32_##plain;               \
    kernels->affine_f32 = lqc_affine_f32_##plain;                 \
    kernels->add_f32 = lqc_add_f32_##plain;                       \
    kernels->subtract_f32 = lqc_subtract_f32_##plain;             \
    kernels->multiply_f32 = lqc_multiply_f32_##plain;             \
    kernels->maximum_f32 = lqc_maximum_f32_##plain;               \
    kernels->minimum_f32 = lqc_minimum_f32_##plain;               \
    kernels->prelu_f32 = lqc_prelu_f32_##plain;                   \
    kernels->sum_i8 = lqc_sum_i8_##plain;                         \
    kernels->quantize_i8 = lqc_quantize_i8_##plain;               \
    kernels->quantize_i16 = lqc_quantize_i16_##plain;             \
    kernels->fixed_point = lqc_fixed_point_##plain;               \
    kernels->fixed_point_wide = lqc_fixed_point_wide_##plain;     \
  }

#if defined(__aarch64__)
LQC_OVERRIDE(neon, NEON, scalar)

static void override_neon(lqc_kernels *kernels) {
  lqc_kernels_neon(kernels);
  kernels->bconv_pairs = &lqc_bconv2d_neon_pairs;
  if (lqc_has_dot_products()) {
    kernels->int8_conv = &lqc_int8_conv_neon_dot;
  }
  kernels->int8_depthwise = lqc_int8_depthwise_neon;
  kernels->fixed_point = lqc_fixed_point_neon;
  kernels->fixed_point_wide = lqc_fixed_point_wide_neon;
  kernels->quantize_i8 = lqc_quantize_i8_neon;
  kernels->quantize_i16 = lqc_quantize_i16_neon;
}

void lqc_kernels_neon_in_order(lqc_kernels *kernels) {
  override_neon(kernels);
  kernels->isa = LQC_ISA_NEON_IN_ORDER;
  kernels->bconv = &lqc_bconv2d_neon_in_order;
  kernels->bconv_pairs = &lqc_bconv2d_neon_in_order_pairs;
  kernels->bitpack_f32 = lqc_bitpack_f32_neon_in_order;
}
#elif defined(__arm__)
LQC_OVERRIDE(neon, NEON, neon)

static void override_neon(lqc_kernels *kernels) {
  lqc_kernels_neon(kernels);
  kernels->bconv_pairs = &lqc_bconv2d_neon_pairs;
}
#elif defined(__x86_64__)
LQC_OVERRIDE(avx2, AVX2, avx2)
LQC_OVERRIDE(avx512, AVX512, avx512)
#endif

/* The ISAs of this build that this processor runs, worst first; a later one overrides an earlier one. */
typedef struct isa_entry {
  lqc_isa isa;
  void (*override)(lqc_kernels *kernels);
  const lqc_bconv_kernel *bconv, *bconv_pairs;
  const lqc_int8_kernel *int8_conv; /* NULL: that of an entry above */
} isa_entry;

static const isa_entry entries[] = {
    {LQC_ISA_SCALAR, lqc_kernels_scalar, &lqc_bconv2d_scalar, NULL, &lqc_int8_conv_scalar},
#if defined(__aarch64__)
    {LQC_ISA_NEON, override_neon, &lqc_bconv2d_neon, &lqc_bconv2d_neon_pairs, &lqc_int8_conv_neon},
    {LQC_ISA_NEON_IN_ORDER, lqc_kernels_neon_in_order, &lqc_bconv2d_neon_in_order, &lqc_bconv2d_neon_in_order_pairs,
     NULL},
#elif defined(__arm__)
    {LQC_ISA_NEON, override_neon, &lqc_bconv2d_neon, &lqc_bconv2d_neon_pairs, &lqc_int8_conv_neon},
#elif defined(__x86_64__)
    {LQC_ISA_AVX2, lqc_kernels_avx2, &lqc_bconv2d_avx2, NULL, &lqc_int8_conv_avx2},
    {LQC_ISA_AVX512, lqc_kernels_avx512, &lqc_bconv2d_avx512, NULL, &lqc_int8_conv_avx512},
#endif
};

#define ENTRY_COUNT (sizeof(entries) / sizeof(entries[0]))

/* Of two for the same instructions, the core decides. */
static int is_preferred(lqc_isa isa) {
  return lqc_isa_available(isa) && (isa != LQC_ISA_NEON_IN_ORDER || lqc_core_is_in_order());
}

int lqc_kernels_select(lqc_kernels *kernels, lqc_isa isa) {
  int found = isa == LQC_ISA_AUTO;
  lqc_kernels_scalar(kernels);
  for (size_t i = 0; i < ENTRY_COUNT; ++i) {
    if (isa == LQC_ISA_AUTO ? is_preferred(entries[i].isa)
                            : isa == entries[i].isa && lqc_isa_available(entries[i].isa)) {
      entries[i].override(kernels);
      found = 1;
    }
  }
  return found;
}

const lqc_bconv_kernel *lqc_bconv_kernel_at(size_t n) {
  for (size_t i = 0; i < ENTRY_COUNT; ++i) {
    if (lqc_isa_available(entries[i].isa)) {
      if (n-- == 0) {
        return entries[i].bconv;
      }
      if (entries[i].bconv_pairs && n-- == 0) {
        return entries[i].bconv_pairs;
      }
    }
  }
  return n == 0 ? &lqc_bconv2d_wide_scalar : NULL;
}

const lqc_int8_kernel *lqc_int8_kernel_at(size_t n) {
  for (size_t i = 0; i < ENTRY_COUNT; ++i) {
    if (entries[i].int8_conv && lqc_isa_available(entries[i].isa) && n-- == 0) {
      return entries[i].int8_conv;
    }
  }
#if defined(__aarch64__)
  if (n == 0 && lqc_has_dot_products()) {
    return &lqc_int8_conv_neon_dot;
  }
#endif
  return NULL;
}
