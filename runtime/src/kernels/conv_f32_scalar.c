#define LQC_ISA(name) name##_scalar
#define LQC_VECTOR 4
#if defined(__aarch64__) /* 32 registers */
#  define LQC_VECTORS 4
#  define LQC_PIXELS 4
#else
#  define LQC_VECTORS 4
#  define LQC_PIXELS 2
#endif
#include "conv_f32_template.h"
