/* exp, sigmoid, tanh, silu, sine and cosine of float32, computed in float64 and rounded once: error
 * below 0.6 ulp.
 *
 * Straight-line code that compilers vectorise; only +, -, *, / and integer operations, each rounded
 * on its own, so every build gives the same bits. NaN in, NaN out. */
#ifndef ST_FUNCTIONS_H
#define ST_FUNCTIONS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* e^x for |x| <= 700: x = n ln2 + r with |r| <= ln2/2, Taylor polynomial of degree 8 in r
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

/* Both are taken no lower than -700, where the quotient is a zero to float32. */
static inline float st_silu(float x)
{
    double v = (double)x;
    v = v < -700.0 ? -700.0 : v;
    float y = (float)(v / (1.0 + st_exp_of(-st_clamp(v, 700.0))));
    return x != x ? x : y;
}

/* ln x for a normal x > 0: the exponent, and 2 atanh((m - 1) / (m + 1)) of a mantissa m in
 * [1/sqrt 2, sqrt 2), by its series to the seventeenth power. */
static inline double st_log_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    int64_t exponent = (int64_t)(bits - 0x3fe6a09e667f3bcdull) >> 52;
    bits -= (uint64_t)exponent << 52;
    double m;
    memcpy(&m, &bits, 8);
    double z = (m - 1.0) / (m + 1.0), s = z * z;
    double p = 1.0 / 17.0;
    p = p * s + 1.0 / 15.0;
    p = p * s + 1.0 / 13.0;
    p = p * s + 1.0 / 11.0;
    p = p * s + 1.0 / 9.0;
    p = p * s + 1.0 / 7.0;
    p = p * s + 1.0 / 5.0;
    p = p * s + 1.0 / 3.0;
    p = p * s + 1.0;
    return (double)exponent * 0.6931471805599453 + 2.0 * z * p;
}

/* e^(ln(sigmoid x) / n): a decay in (0, 1). */
static inline float st_decay(float x, double n)
{
    double open = 1.0 + st_exp_of(-st_clamp((double)x, 700.0));
    float y = (float)st_exp_of(-(st_log_of(open) / n));
    return x != x ? x : y;
}

/* Sine and cosine of 0 <= x < 2^31: pi/2 is taken off in two parts, the rest has Taylor series. */
static inline void st_sincos(double x, float *sine, float *cosine)
{
    const double to_integer = 6755399441055744.0;
    double n = (x * 0.6366197723675814 + to_integer) - to_integer;
    double r = (x - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;
    double q = r * r;
    double s = 1.0 / 6227020800.0;
    s = s * q - 1.0 / 39916800.0;
    s = s * q + 1.0 / 362880.0;
    s = s * q - 1.0 / 5040.0;
    s = s * q + 1.0 / 120.0;
    s = s * q - 1.0 / 6.0;
    s = r + r * q * s;
    double c = 1.0 / 479001600.0;
    c = c * q - 1.0 / 3628800.0;
    c = c * q + 1.0 / 40320.0;
    c = c * q - 1.0 / 720.0;
    c = c * q + 1.0 / 24.0;
    c = c * q - 0.5;
    c = c * q + 1.0;
    int quadrant = (int)((int64_t)n & 3);
    double a = quadrant & 1 ? c : s, b = quadrant & 1 ? s : c;
    *sine = (float)(quadrant & 2 ? -a : a);
    *cosine = (float)(quadrant == 1 || quadrant == 2 ? -b : b);
}

#endif
