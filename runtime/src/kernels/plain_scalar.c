#define LQC_ISA(name) name##_scalar
#include "plain_template.h"
