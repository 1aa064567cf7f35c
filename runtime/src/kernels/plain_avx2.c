#define LQC_ISA(name) name##_avx2
#include "plain_template.h"
