#define LQC_ISA(name) name##_avx2
#include "int8_depthwise_template.h"
