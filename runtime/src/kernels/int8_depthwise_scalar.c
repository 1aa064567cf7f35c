#define LQC_ISA(name) name##_scalar
#include "int8_depthwise_template.h"
