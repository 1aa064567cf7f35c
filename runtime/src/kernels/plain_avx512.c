#define LQC_OWN_QUANTIZE 1  /* quantize_avx512.c */
#define LQC_OWN_POOLS 1     /* pool_avx512.c */
#define LQC_OWN_DEPTHWISE 1 /* int8_depthwise_avx512.c */
#define LQC_ISA(name) name##_avx512
#include "plain_template.h"
