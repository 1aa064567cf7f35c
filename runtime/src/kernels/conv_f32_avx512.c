#define LQC_ISA(name) name##_avx512
#define LQC_VECTOR 16
#define LQC_VECTORS 2
#define LQC_PIXELS 8
#include "conv_f32_template.h"
