#define LQC_ISA(name) name##_avx2
#include "fixed_point_template.h"
