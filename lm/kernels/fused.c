#include "fused.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

INLINE float load_f32(const float *p) { return *p; }
INLINE void store_f32(float *p, float v) { *p = v; }

INLINE float load_bf16(const uint16_t *p) {
    uint32_t bits = (uint32_t)*p << 16;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

/* Round to nearest, ties to even; NaN is not expected here. */
INLINE void store_bf16(uint16_t *p, float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    bits += 0x7fffu + ((bits >> 16) & 1u);
    *p = (uint16_t)(bits >> 16);
}

/* exp for training: relative error below 1e-6, clamped so that it neither overflows nor underflows. */
INLINE float exp_approx(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
    int32_t n;
    memcpy(&n, &shifted, 4);
    float k = shifted - 12582912.0f;
    float f = x - k * 0.693359375f;
    f = f + k * 2.12194440e-4f;
    float p = 1.3981999e-3f;
    p = p * f + 8.3334519e-3f;
    p = p * f + 4.1665796e-2f;
    p = p * f + 1.6666666e-1f;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    int32_t bits;
    memcpy(&bits, &p, 4);
    bits += (int32_t)((uint32_t)n << 23);
    memcpy(&p, &bits, 4);
    return p;
}

INLINE float sigmoid(float x) { return 1.0f / (1.0f + exp_approx(-x)); }
INLINE float tanh_approx(float x) { return 2.0f / (1.0f + exp_approx(-2.0f * x)) - 1.0f; }

#define DEFINE_EGRU(NAME, REAL, LOAD, STORE)                                                       \
    CLONES void egru_forward_##NAME(                                                               \
        egru_shape s, const REAL *restrict xk, const REAL *restrict yr, const float *restrict d,   \
        const float *restrict theta, const float *restrict c_prev, float *restrict z,              \
        float *restrict r, float *restrict g, float *restrict q, float *restrict c_tilde,          \
        float *restrict c, REAL *restrict y) {                                                     \
        const ptrdiff_t H = s.hidden;                                                              \
        for (ptrdiff_t b = 0; b < s.batch; b++) {                                                  \
            const REAL *xz = xk + b * 3 * H, *xr = xz + H, *xg = xr + H;                           \
            const REAL *yz = yr + b * 3 * H, *yrr = yz + H, *yg = yrr + H;                         \
            const ptrdiff_t at = b * H;                                                            \
            for (ptrdiff_t h = 0; h < H; h++) {                                                    \
                float zv = sigmoid(LOAD(xz + h) + LOAD(yz + h) + d[h]);                            \
                float rv = sigmoid(LOAD(xr + h) + LOAD(yrr + h) + d[H + h]);                       \
                float qv = LOAD(yg + h) + d[2 * H + h];                                            \
                float gv = tanh_approx(LOAD(xg + h) + rv * qv);                                    \
                float cv = zv * c_prev[at + h] + (1.0f - zv) * gv;                                 \
                float o = cv - theta[h] > 0.0f ? 1.0f : 0.0f;                                      \
                z[at + h] = zv;                                                                    \
                r[at + h] = rv;                                                                    \
                g[at + h] = gv;                                                                    \
                q[at + h] = qv;                                                                    \
                c_tilde[at + h] = cv;                                                              \
                c[at + h] = cv - o * theta[h];                                                     \
                STORE(y + at + h, o * cv);                                                         \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    CLONES void egru_backward_##NAME(                                                              \
        egru_shape s, const REAL *restrict dy_out, const REAL *restrict dy_rec,                    \
        const float *restrict event_cost, const float *restrict theta,                             \
        const float *restrict c_prev, const float *restrict z, const float *restrict r,            \
        const float *restrict g, const float *restrict q, const float *restrict c_tilde,           \
        float *restrict dc, REAL *restrict dxk, REAL *restrict dyr, float *restrict dtheta) {      \
        const ptrdiff_t H = s.hidden;                                                              \
        for (ptrdiff_t b = 0; b < s.batch; b++) {                                                  \
            REAL *xz = dxk + b * 3 * H, *xr = xz + H, *xg = xr + H;                                \
            REAL *yz = dyr + b * 3 * H, *yrr = yz + H, *yg = yrr + H;                              \
            const ptrdiff_t at = b * H;                                                            \
            for (ptrdiff_t h = 0; h < H; h++) {                                                    \
                float cv = c_tilde[at + h], v = cv - theta[h];                                     \
                float o = v > 0.0f ? 1.0f : 0.0f;                                                  \
                float slope = 1.0f - s.support * fabsf(v);                                         \
                slope = slope > 0.0f ? s.damp * slope : 0.0f;                                      \
                float dyv = LOAD(dy_out + at + h) + LOAD(dy_rec + at + h);                         \
                float dcv = dc[at + h];                                                            \
                float value = cv > s.floor ? cv : s.floor;                                         \
                float dv = (dyv * value - dcv * theta[h] + event_cost[h]) * slope;                 \
                float dct = dyv * o + dcv + dv;                                                    \
                dtheta[h] -= dv + dcv * o;                                                         \
                float zv = z[at + h], rv = r[at + h], gv = g[at + h];                              \
                float dz = dct * (c_prev[at + h] - gv) * zv * (1.0f - zv);                         \
                float dg = dct * (1.0f - zv) * (1.0f - gv * gv);                                   \
                float dr = dg * q[at + h] * rv * (1.0f - rv);                                      \
                dc[at + h] = dct * zv;                                                             \
                STORE(xz + h, dz);                                                                 \
                STORE(xr + h, dr);                                                                 \
                STORE(xg + h, dg);                                                                 \
                STORE(yz + h, dz);                                                                 \
                STORE(yrr + h, dr);                                                                \
                STORE(yg + h, dg * rv);                                                            \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    CLONES void softmax_xent_##NAME(ptrdiff_t rows, ptrdiff_t vocab, float scale,                  \
                                    const int64_t *restrict target, REAL *restrict logits,         \
                                    float *restrict nll) {                                         \
        for (ptrdiff_t i = 0; i < rows; i++) {                                                     \
            REAL *row = logits + i * vocab;                                                        \
            float peak = LOAD(row);                                                                \
            _Pragma("omp simd reduction(max : peak)")                                              \
            for (ptrdiff_t v = 1; v < vocab; v++) {                                                \
                float x = LOAD(row + v);                                                           \
                peak = x > peak ? x : peak;                                                        \
            }                                                                                      \
            double sum = 0.0;                                                                      \
            for (ptrdiff_t v = 0; v < vocab; v += 256) {                                           \
                const ptrdiff_t end = v + 256 < vocab ? v + 256 : vocab;                           \
                float part = 0.0f;                                                                 \
                _Pragma("omp simd reduction(+ : part)")                                            \
                for (ptrdiff_t j = v; j < end; j++) part += exp_approx(LOAD(row + j) - peak);      \
                sum += part;                                                                       \
            }                                                                                      \
            const float at_target = LOAD(row + target[i]);                                         \
            nll[i] = (float)(log(sum) - (double)(at_target - peak));                               \
            const float factor = (float)(scale / sum);                                             \
            for (ptrdiff_t v = 0; v < vocab; v++)                                                  \
                STORE(row + v, exp_approx(LOAD(row + v) - peak) * factor);                         \
            STORE(row + target[i], exp_approx(at_target - peak) * factor - scale);                 \
        }                                                                                          \
    }

DEFINE_EGRU(f32, float, load_f32, store_f32)
DEFINE_EGRU(bf16, uint16_t, load_bf16, store_bf16)
