#define LQC_ISA(name) name##_scalar
#include "fixed_point_template.h"
