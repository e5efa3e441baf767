/* What training kernels share: number formats, exp, and one build for each instruction set. */
#ifndef SPIKETRAIN_LM_REAL_H
#define SPIKETRAIN_LM_REAL_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

INLINE float load_f32(const float *p)
{
    return *p;
}
INLINE void store_f32(float *p, float v)
{
    *p = v;
}
INLINE double load_f64(const double *p)
{
    return *p;
}
INLINE void store_f64(double *p, double v)
{
    *p = v;
}

INLINE float load_bf16(const uint16_t *p)
{
    uint32_t bits = (uint32_t)*p << 16;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

/* Round to nearest, ties to even; NaN is not expected here. */
INLINE void store_bf16(uint16_t *p, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    bits += 0x7fffu + ((bits >> 16) & 1u);
    *p = (uint16_t)(bits >> 16);
}

/* exp, relative error below 2e-7, clamped so that it neither overflows nor underflows. */
INLINE float exp_float(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
    int32_t n;
    memcpy(&n, &shifted, 4);
    float k = shifted - 12582912.0f;
    float f = x - k * 0.693359375f;
    f = f + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    int32_t bits;
    memcpy(&bits, &p, 4);
    bits += (int32_t)((uint32_t)n << 23);
    memcpy(&p, &bits, 4);
    return p;
}

#endif
