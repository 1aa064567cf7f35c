/* Which instruction sets this build has and this processor runs. */
#include "larq_clip.h"

const char *lqc_isa_name(lqc_isa isa) {
  static const char *const names[LQC_ISA_COUNT] = {"auto", "scalar", "neon", "avx2", "avx512"};
  return (unsigned)isa < LQC_ISA_COUNT ? names[isa] : NULL;
}

int lqc_isa_available(lqc_isa isa) {
  switch (isa) {
  case LQC_ISA_AUTO:
  case LQC_ISA_SCALAR:
    return 1;
#if defined(__aarch64__)
  case LQC_ISA_NEON: /* part of the base architecture */
    return 1;
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
