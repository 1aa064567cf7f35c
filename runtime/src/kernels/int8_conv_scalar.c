#define LQC_ISA(name) name##_scalar
#include "int8_conv_template.h"
