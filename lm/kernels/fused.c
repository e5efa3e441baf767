#include "fused.h"

#include <math.h>

#include "real.h"

INLINE float sigmoid(float x)
{
    return 1.0f / (1.0f + exp_float(-x));
}
INLINE float tanh_approx(float x)
{
    return 2.0f / (1.0f + exp_float(-2.0f * x)) - 1.0f;
}

#define DEFINE_EGRU(NAME, REAL, LOAD, STORE)                                                       \
    CLONES void egru_forward_##NAME(                                                               \
        egru_shape s, const REAL *restrict xk, const REAL *restrict yr, const float *restrict d,   \
        const float *restrict theta, const float *restrict c_prev, float *restrict z,              \
        float *restrict r, float *restrict g, float *restrict q, float *restrict c_tilde,          \
        float *restrict c, REAL *restrict y)                                                       \
    {                                                                                              \
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
        float *restrict dc, REAL *restrict dxk, REAL *restrict dyr, float *restrict dtheta)        \
    {                                                                                              \
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
                                    float *restrict nll)                                           \
    {                                                                                              \
        for (ptrdiff_t i = 0; i < rows; i++) {                                                     \
            REAL *row = logits + i * vocab;                                                        \
            float peak = LOAD(row);                                                                \
            _Pragma("omp simd reduction(max : peak)") for (ptrdiff_t v = 1; v < vocab; v++)        \
            {                                                                                      \
                float x = LOAD(row + v);                                                           \
                peak = x > peak ? x : peak;                                                        \
            }                                                                                      \
            double sum = 0.0;                                                                      \
            for (ptrdiff_t v = 0; v < vocab; v += 256) {                                           \
                const ptrdiff_t end = v + 256 < vocab ? v + 256 : vocab;                           \
                float part = 0.0f;                                                                 \
                _Pragma("omp simd reduction(+ : part)") for (ptrdiff_t j = v; j < end; j++)        \
                    part += exp_float(LOAD(row + j) - peak);                                       \
                sum += part;                                                                       \
            }                                                                                      \
            const float at_target = LOAD(row + target[i]);                                         \
            nll[i] = (float)(log(sum) - (double)(at_target - peak));                               \
            const float factor = (float)(scale / sum);                                             \
            for (ptrdiff_t v = 0; v < vocab; v++)                                                  \
                STORE(row + v, exp_float(LOAD(row + v) - peak) * factor);                          \
            STORE(row + target[i], exp_float(at_target - peak) * factor - scale);                  \
        }                                                                                          \
    }

DEFINE_EGRU(f32, float, load_f32, store_f32)
DEFINE_EGRU(bf16, uint16_t, load_bf16, store_bf16)
