/* Which instruction sets this build has and this processor runs. */
#include "kernels.h"

#if (defined(__aarch64__) || defined(__arm__)) && defined(__linux__)
#  include <sys/auxv.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
/* In AT_HWCAP, asm/hwcap.h; HAS_CPUID: programs may read MIDR_EL1. */
enum { HAS_CPUID = 1 << 11, HAS_DOT_PRODUCTS = 1 << 20 };
#endif

const char *lqc_isa_name(lqc_isa isa) {
  static const char *const names[LQC_ISA_COUNT] = {"auto", "scalar", "neon", "avx2", "avx512", "neon_in_order"};
  return (unsigned)isa < LQC_ISA_COUNT ? names[isa] : NULL;
}

int lqc_isa_available(lqc_isa isa) {
  switch (isa) {
  case LQC_ISA_AUTO:
  case LQC_ISA_SCALAR:
    return 1;
#if defined(__aarch64__)
  case LQC_ISA_NEON: /* part of the base architecture */
  case LQC_ISA_NEON_IN_ORDER:
    return 1;
#elif defined(__arm__) && defined(__linux__)
  case LQC_ISA_NEON:
    return (getauxval(AT_HWCAP) & 1 << 12) != 0; /* HWCAP_NEON */
#elif defined(__x86_64__)
  /* These tests include that the operating system saves the wide registers (XGETBV). */
  case LQC_ISA_AVX2:
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
  case LQC_ISA_AVX512:
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512bitalg") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("bmi2");
#endif
  default:
    return 0;
  }
}

enum { IMPLEMENTER_ARM = 0x41 };

static uint64_t implementer_of(uint64_t midr) {
  return midr >> 24 & 0xff;
}

static uint64_t part_of(uint64_t midr) {
  return midr >> 4 & 0xfff;
}

int lqc_midr_is_in_order(uint64_t midr) {
  enum { CORTEX_A34 = 0xd02, CORTEX_A53 = 0xd03, CORTEX_A35 = 0xd04 };
  const uint64_t part = part_of(midr);
  return implementer_of(midr) == IMPLEMENTER_ARM && (part == CORTEX_A53 || part == CORTEX_A35 || part == CORTEX_A34);
}

int lqc_midr_is_credible(uint64_t midr) {
  return implementer_of(midr) != IMPLEMENTER_ARM || part_of(midr) >> 8 != 0xc;
}

int lqc_core_is_in_order(void) {
#if defined(__aarch64__)
#  if defined(__linux__)
  if (getauxval(AT_HWCAP) & HAS_CPUID) {
    uint64_t midr;
    __asm__("mrs %0, midr_el1" : "=r"(midr));
    if (lqc_midr_is_credible(midr)) {
      return lqc_midr_is_in_order(midr);
    }
  }
#  endif
  return lqc_probe_is_in_order();
#else
  return 0;
#endif
}

int lqc_has_dot_products(void) {
#if defined(__aarch64__) && defined(__linux__)
  return (getauxval(AT_HWCAP) & HAS_DOT_PRODUCTS) != 0;
#else
  return 0;
#endif
}
