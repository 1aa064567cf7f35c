#define LQC_OWN_QUANTIZE 1  /* quantize_avx2.c */
#define LQC_OWN_DEPTHWISE 1 /* int8_depthwise_avx2.c */
#define LQC_ISA(name) name##_avx2
#include "plain_template.h"
