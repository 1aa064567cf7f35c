#define LQC_ISA(name) name##_avx2
#define LQC_VECTOR 8
#define LQC_VECTORS 2
#define LQC_PIXELS 4
#include "conv_f32_template.h"
