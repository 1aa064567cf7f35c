#define LQC_ISA(name) name##_avx2
#include "int8_conv_template.h"
