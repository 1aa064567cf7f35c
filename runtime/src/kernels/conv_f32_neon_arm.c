#define LQC_ISA(name) name##_neon
#define LQC_VECTOR 4
#define LQC_VECTORS 4
#define LQC_PIXELS 2
#include "conv_f32_template.h"
