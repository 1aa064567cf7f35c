/* The exponential of the runtime and what is made of it, apart for their tests. */
#ifndef LQC_EXPONENTIAL_H
#define LQC_EXPONENTIAL_H

#include <stdint.h>

/* e^x for x <= 0, to a few units of the last place of a double; 0 below -700. */
double lqc_exp(double x);

/* Correct to the last place of float32, up to ties that a double cannot tell. NaN gives a number that means nothing. */
float lqc_sigmoid(float x);
float lqc_tanh(float x);

/* out may be in. Where in holds an infinity or a NaN, out is deterministic but means nothing. */
void lqc_softmax(float *out, const float *in, uint32_t channels);

#endif /* LQC_EXPONENTIAL_H */
