/* The exponential and softmax of the runtime, apart for their tests. */
#ifndef LQC_SOFTMAX_H
#define LQC_SOFTMAX_H

#include <stdint.h>

/* e^x for x <= 0, to a few units of the last place of a double; 0 below -700. */
double lqc_exp(double x);

/* out may be in. Where in holds an infinity or a NaN, out is deterministic but means nothing. */
void lqc_softmax(float *out, const float *in, uint32_t channels);

#endif /* LQC_SOFTMAX_H */
