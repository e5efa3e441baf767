/* exp, sigmoid, tanh of float32, computed in float64 and rounded once: error below 0.6 ulp.
 *
 * Straight-line code that compilers vectorise; only +, -, *, / and integer operations, each rounded
 * on its own, so every build gives the same bits. NaN in, NaN out. */
#ifndef ST_FUNCTIONS_H
#define ST_FUNCTIONS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* e^x for |x| <= 120: x = n ln2 + r with |r| <= ln2/2, Taylor polynomial of degree 8 in r
 * (error 2^-32 of the result), then n added to the exponent. Adding 1.5 * 2^52 rounds to the
 * nearest integer and leaves n in the low bits. */
static inline double st_exp_of(double x)
{
    const double to_integer = 6755399441055744.0;
    double shifted = x * 1.4426950408889634 + to_integer;
    double n = shifted - to_integer;
    double r = x - n * 0.6931471805599453;
    double p = 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    uint64_t exponent, bits;
    memcpy(&exponent, &shifted, 8);
    memcpy(&bits, &p, 8);
    bits += exponent << 52;
    memcpy(&p, &bits, 8);
    return p;
}

static inline double st_clamp(double x, double bound)
{
    x = x < -bound ? -bound : x;
    return x > bound ? bound : x;
}

static inline float st_exp(float x)
{
    float y = (float)st_exp_of(st_clamp((double)x, 110.0));
    return x != x ? x : y;
}

static inline float st_sigmoid(float x)
{
    float y = (float)(1.0 / (1.0 + st_exp_of(-st_clamp((double)x, 110.0))));
    return x != x ? x : y;
}

/* Below 2^-12 the quotient would cancel; there x - x^3/3 is exact to 2^-48. */
static inline float st_tanh(float x)
{
    double v = st_clamp((double)x, 20.0);
    double e = st_exp_of(2.0 * v);
    double large = (e - 1.0) / (e + 1.0);
    double small = v - v * v * v * (1.0 / 3.0);
    double size = v < 0.0 ? -v : v;
    float y = (float)(size < 0x1p-12 ? small : large);
    return x != x ? x : y;
}

#endif
