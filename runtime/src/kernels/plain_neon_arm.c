#define LQC_OWN_FLOATS 1    /* plain_f32_neon_arm.c */
#define LQC_OWN_QUANTIZE 1  /* quantize_neon.c */
#define LQC_OWN_DEPTHWISE 1 /* int8_depthwise_neon.c */
#define LQC_ISA(name) name##_neon
#include "plain_template.h"
