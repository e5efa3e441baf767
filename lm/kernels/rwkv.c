#include "rwkv.h"

#include <math.h>

#include "real.h"

INLINE double exp_double(double x)
{
    return exp(x);
}

#define DEFINE_MIX(NAME, REAL, ACC, LOAD, STORE)                                                   \
    CLONES void mix_forward_##NAME(rwkv_shape s, ptrdiff_t mixes, const ACC *restrict y,           \
                                   const ACC *restrict prev, const ACC *restrict mu,               \
                                   REAL *restrict out)                                             \
    {                                                                                              \
        const ptrdiff_t C = s.width, row = s.batch * C, all = s.steps * row;                       \
        for (ptrdiff_t t = 0; t < s.steps; t++) {                                                  \
            const ACC *before = t ? y + (t - 1) * row : prev;                                      \
            for (ptrdiff_t m = 0; m < mixes; m++)                                                  \
                for (ptrdiff_t b = 0; b < s.batch; b++) {                                          \
                    const ACC *now = y + t * row + b * C, *old = before + b * C, *f = mu + m * C;  \
                    REAL *to = out + m * all + t * row + b * C;                                    \
                    for (ptrdiff_t c = 0; c < C; c++)                                              \
                        STORE(to + c, now[c] * f[c] + old[c] * (1 - f[c]));                        \
                }                                                                                  \
        }                                                                                          \
    }                                                                                              \
    CLONES void mix_backward_##NAME(                                                               \
        rwkv_shape s, ptrdiff_t mixes, const ACC *restrict y, const ACC *restrict prev,            \
        const ACC *restrict mu, const REAL *restrict dout, ACC *restrict dy, ACC *restrict dmu)    \
    {                                                                                              \
        const ptrdiff_t C = s.width, row = s.batch * C, all = s.steps * row;                       \
        memset(dy, 0, sizeof(ACC) * (size_t)all);                                                  \
        memset(dmu, 0, sizeof(ACC) * (size_t)(mixes * C));                                         \
        for (ptrdiff_t t = 0; t < s.steps; t++) {                                                  \
            const ACC *before = t ? y + (t - 1) * row : prev;                                      \
            for (ptrdiff_t m = 0; m < mixes; m++)                                                  \
                for (ptrdiff_t b = 0; b < s.batch; b++) {                                          \
                    const ACC *now = y + t * row + b * C, *old = before + b * C, *f = mu + m * C;  \
                    const REAL *from = dout + m * all + t * row + b * C;                           \
                    ACC *to = dy + t * row + b * C, *df = dmu + m * C;                             \
                    for (ptrdiff_t c = 0; c < C; c++) {                                            \
                        ACC g = LOAD(from + c);                                                    \
                        to[c] += g * f[c];                                                         \
                        df[c] += g * (now[c] - old[c]);                                            \
                    }                                                                              \
                    if (!t) continue;                                                              \
                    to -= row;                                                                     \
                    for (ptrdiff_t c = 0; c < C; c++) to[c] += LOAD(from + c) * (1 - f[c]);        \
                }                                                                                  \
        }                                                                                          \
    }

/* One of two exponentials relative to the larger exponent is 1. */
#define DEFINE_WKV(NAME, REAL, ACC, LOAD, STORE, EXP)                                              \
    INLINE void wkv_weights_##NAME(ACC old, ACC now, ACC *a, ACC *b)                               \
    {                                                                                              \
        const ACC d = old - now;                                                                   \
        const ACC small = EXP(d < 0 ? d : -d);                                                     \
        *a = d < 0 ? small : 1;                                                                    \
        *b = d < 0 ? 1 : small;                                                                    \
    }                                                                                              \
    CLONES void wkv_forward_##NAME(rwkv_shape s, const REAL *restrict k, const REAL *restrict v,   \
                                   const REAL *restrict r, const ACC *restrict w,                  \
                                   const ACC *restrict u, ACC *restrict p, ACC *restrict q,        \
                                   ACC *restrict o, ACC *restrict saved, REAL *restrict out)       \
    {                                                                                              \
        const ptrdiff_t C = s.width, row = s.batch * C;                                            \
        for (ptrdiff_t t = 0; t < s.steps; t++) {                                                  \
            if (saved) {                                                                           \
                memcpy(saved + 3 * t * row, p, sizeof(ACC) * (size_t)row);                         \
                memcpy(saved + (3 * t + 1) * row, q, sizeof(ACC) * (size_t)row);                   \
                memcpy(saved + (3 * t + 2) * row, o, sizeof(ACC) * (size_t)row);                   \
            }                                                                                      \
            for (ptrdiff_t b = 0; b < s.batch; b++) {                                              \
                const ptrdiff_t at = t * row + b * C;                                              \
                ACC *restrict pb = p + b * C, *restrict qb = q + b * C, *restrict ob = o + b * C;  \
                for (ptrdiff_t c = 0; c < C; c++) {                                                \
                    const ACC key = LOAD(k + at + c), value = LOAD(v + at + c);                    \
                    const ACC gate = 1 / (1 + EXP(-LOAD(r + at + c)));                             \
                    ACC x, y;                                                                      \
                    wkv_weights_##NAME(ob[c], u[c] + key, &x, &y);                                 \
                    const ACC wkv = (x * pb[c] + y * value) / (x * qb[c] + y);                     \
                    STORE(out + at + c, gate * wkv);                                               \
                    const ACC faded = ob[c] + w[c];                                                \
                    wkv_weights_##NAME(faded, key, &x, &y);                                        \
                    pb[c] = x * pb[c] + y * value;                                                 \
                    qb[c] = x * qb[c] + y;                                                         \
                    ob[c] = faded > key ? faded : key;                                             \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    CLONES void wkv_backward_##NAME(                                                               \
        rwkv_shape s, const REAL *restrict k, const REAL *restrict v, const REAL *restrict r,      \
        const ACC *restrict w, const ACC *restrict u, const ACC *restrict saved,                   \
        const REAL *restrict dout, ACC *restrict scratch, REAL *restrict dk, REAL *restrict dv,    \
        REAL *restrict dr, ACC *restrict dw, ACC *restrict du)                                     \
    {                                                                                              \
        const ptrdiff_t C = s.width, row = s.batch * C;                                            \
        memset(scratch, 0, sizeof(ACC) * (size_t)(2 * row));                                       \
        memset(dw, 0, sizeof(ACC) * (size_t)C);                                                    \
        memset(du, 0, sizeof(ACC) * (size_t)C);                                                    \
        for (ptrdiff_t t = s.steps - 1; t >= 0; t--)                                               \
            for (ptrdiff_t b = 0; b < s.batch; b++) {                                              \
                const ptrdiff_t at = t * row + b * C;                                              \
                const ACC *pb = saved + 3 * t * row + b * C, *qb = pb + row, *ob = qb + row;       \
                ACC *restrict gp = scratch + b * C, *restrict gq = gp + row;                       \
                for (ptrdiff_t c = 0; c < C; c++) {                                                \
                    const ACC key = LOAD(k + at + c), value = LOAD(v + at + c);                    \
                    const ACC gate = 1 / (1 + EXP(-LOAD(r + at + c)));                             \
                    ACC x, y, fade, fresh;                                                         \
                    wkv_weights_##NAME(ob[c], u[c] + key, &x, &y);                                 \
                    wkv_weights_##NAME(ob[c] + w[c], key, &fade, &fresh);                          \
                    const ACC inverse = 1 / (x * qb[c] + y);                                       \
                    const ACC wkv = (x * pb[c] + y * value) * inverse;                             \
                    const ACC up = LOAD(dout + at + c);                                            \
                    const ACC g = up * gate * inverse;                                             \
                    const ACC bonus = g * y * (value - wkv);                                       \
                    STORE(dr + at + c, up * wkv * gate * (1 - gate));                              \
                    STORE(dv + at + c, g * y + gp[c] * fresh);                                     \
                    STORE(dk + at + c, bonus + fresh * (gp[c] * value + gq[c]));                   \
                    du[c] += bonus;                                                                \
                    dw[c] += fade * (gp[c] * pb[c] + gq[c] * qb[c]);                               \
                    gp[c] = g * x + gp[c] * fade;                                                  \
                    gq[c] = gq[c] * fade - g * x * wkv;                                            \
                }                                                                                  \
            }                                                                                      \
    }

#define PI 3.14159265358979323846

#define DEFINE_LIF(NAME, REAL, ACC, LOAD, STORE)                                                   \
    CLONES void lif_forward_##NAME(rwkv_shape s, ACC tau, const REAL *restrict x,                  \
                                   const ACC *restrict scale, const ACC *restrict threshold,       \
                                   ACC *restrict v, ACC *restrict h, ACC *restrict spikes)         \
    {                                                                                              \
        const ptrdiff_t C = s.width, row = s.batch * C;                                            \
        for (ptrdiff_t t = 0; t < s.steps; t++)                                                    \
            for (ptrdiff_t b = 0; b < s.batch; b++) {                                              \
                const ptrdiff_t at = t * row + b * C;                                              \
                ACC *restrict vb = v + b * C;                                                      \
                for (ptrdiff_t c = 0; c < C; c++) {                                                \
                    const ACC m = vb[c] + (scale[c] * LOAD(x + at + c) - vb[c]) / tau;             \
                    spikes[at + c] = m >= threshold[c] ? 1 : 0;                                    \
                    vb[c] = m >= threshold[c] ? 0 : m;                                             \
                    if (h) h[at + c] = m;                                                          \
                }                                                                                  \
            }                                                                                      \
    }                                                                                              \
    CLONES void lif_backward_##NAME(                                                               \
        rwkv_shape s, ACC tau, const REAL *restrict x, const ACC *restrict scale,                  \
        const ACC *restrict threshold, const ACC *restrict h, const ACC *restrict cost,            \
        const ACC *restrict dspikes, ACC *restrict dv, REAL *restrict dx, ACC *restrict dscale,    \
        ACC *restrict dthreshold)                                                                  \
    {                                                                                              \
        const ptrdiff_t C = s.width, row = s.batch * C;                                            \
        const ACC pi = (ACC)PI, leak = 1 - 1 / tau;                                                \
        memset(dscale, 0, sizeof(ACC) * (size_t)C);                                                \
        memset(dthreshold, 0, sizeof(ACC) * (size_t)C);                                            \
        for (ptrdiff_t t = s.steps - 1; t >= 0; t--)                                               \
            for (ptrdiff_t b = 0; b < s.batch; b++) {                                              \
                const ptrdiff_t at = t * row + b * C;                                              \
                ACC *restrict vb = dv + b * C;                                                     \
                for (ptrdiff_t c = 0; c < C; c++) {                                                \
                    const ACC m = h[at + c], z = m - threshold[c];                                 \
                    const ACC slope = 1 / (1 + pi * z * pi * z);                                   \
                    const ACC gz = (dspikes[at + c] + cost[c] - vb[c] * m) * slope;                \
                    const ACC gm = gz + (z >= 0 ? 0 : vb[c]);                                      \
                    STORE(dx + at + c, gm / tau * scale[c]);                                       \
                    dscale[c] += gm / tau * LOAD(x + at + c);                                      \
                    dthreshold[c] -= gz;                                                           \
                    vb[c] = gm * leak;                                                             \
                }                                                                                  \
            }                                                                                      \
    }

/* z = |x| / unit.  Forward: floor(z).  Backward: slope 1 outside the dead zone, z inside it; events
 * (z >= 1) are priced through the triangle max(0, 1 - |z - 1|). */
#define DEFINE_COUNTS(NAME, REAL, ACC, LOAD, STORE, FLOOR)                                         \
    INLINE ACC counts_unit_##NAME(ptrdiff_t width, ACC theta, const REAL *x)                       \
    {                                                                                              \
        ACC sum = 0;                                                                               \
        _Pragma("omp simd reduction(+ : sum)") for (ptrdiff_t c = 0; c < width; c++)               \
        {                                                                                          \
            const ACC value = LOAD(x + c);                                                         \
            sum += value < 0 ? -value : value;                                                     \
        }                                                                                          \
        return theta * (sum / (ACC)width);                                                         \
    }                                                                                              \
    CLONES void counts_forward_##NAME(rwkv_shape s, ACC theta, const REAL *restrict x,             \
                                      REAL *restrict out)                                          \
    {                                                                                              \
        const ptrdiff_t C = s.width;                                                               \
        for (ptrdiff_t i = 0; i < s.steps * s.batch; i++, x += C, out += C) {                      \
            const ACC unit = counts_unit_##NAME(C, theta, x);                                      \
            const ACC divisor = unit > 0 ? unit : 1;                                               \
            for (ptrdiff_t c = 0; c < C; c++) {                                                    \
                const ACC value = LOAD(x + c), size = value < 0 ? -value : value;                  \
                const ACC part = FLOOR(size / divisor) * unit;                                     \
                STORE(out + c, value < 0 ? -part : part);                                          \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    CLONES double counts_backward_##NAME(rwkv_shape s, ACC theta, const REAL *restrict x,          \
                                         const ACC *restrict cost, const REAL *restrict dout,      \
                                         REAL *restrict dx)                                        \
    {                                                                                              \
        const ptrdiff_t C = s.width;                                                               \
        double dtheta = 0;                                                                         \
        for (ptrdiff_t i = 0; i < s.steps * s.batch; i++, x += C, dout += C, dx += C) {            \
            const ACC unit = counts_unit_##NAME(C, theta, x);                                      \
            const ACC inverse = unit > 0 ? 1 / unit : 0, divisor = unit > 0 ? unit : 1;            \
            ACC dunit = 0;                                                                         \
            _Pragma("omp simd reduction(+ : dunit)") for (ptrdiff_t c = 0; c < C; c++)             \
            {                                                                                      \
                const ACC value = LOAD(x + c), up = LOAD(dout + c);                                \
                const ACC z = (value < 0 ? -value : value) / divisor;                              \
                const ACC slope = z < 1 ? z : 1;                                                   \
                const ACC triangle = z < 2 ? (z < 1 ? z : 2 - z) : 0;                              \
                const ACC g = value < 0 ? -up : up;                                                \
                dunit += g * (FLOOR(z) - slope * z) - cost[c] * triangle * z * inverse;            \
            }                                                                                      \
            dtheta += (double)(dunit * unit);                                                      \
            const ACC shared = dunit * theta / (ACC)C;                                             \
            for (ptrdiff_t c = 0; c < C; c++) {                                                    \
                const ACC value = LOAD(x + c), up = LOAD(dout + c);                                \
                const ACC z = (value < 0 ? -value : value) / divisor;                              \
                const ACC slope = z < 1 ? z : 1;                                                   \
                const ACC triangle = z < 2 ? (z < 1 ? z : 2 - z) : 0;                              \
                const ACC radial = cost[c] * triangle * inverse + shared;                          \
                STORE(dx + c, up * slope + (value < 0 ? -radial : value > 0 ? radial : 0));        \
            }                                                                                      \
        }                                                                                          \
        return dtheta / (double)theta / (double)C;                                                 \
    }                                                                                              \
    CLONES void relu2_forward_##NAME(ptrdiff_t n, const REAL *restrict x, REAL *restrict out)      \
    {                                                                                              \
        for (ptrdiff_t i = 0; i < n; i++) {                                                        \
            const ACC value = LOAD(x + i), kept = value > 0 ? value : 0;                           \
            STORE(out + i, kept * kept);                                                           \
        }                                                                                          \
    }                                                                                              \
    CLONES void relu2_backward_##NAME(ptrdiff_t n, const REAL *restrict x,                         \
                                      const REAL *restrict dout, REAL *restrict dx)                \
    {                                                                                              \
        for (ptrdiff_t i = 0; i < n; i++) {                                                        \
            const ACC value = LOAD(x + i);                                                         \
            STORE(dx + i, 2 * (value > 0 ? value : 0) * LOAD(dout + i));                           \
        }                                                                                          \
    }

#define DEFINE_RWKV(NAME, REAL, ACC, LOAD, STORE, EXP, FLOOR)                                      \
    DEFINE_MIX(NAME, REAL, ACC, LOAD, STORE)                                                       \
    DEFINE_WKV(NAME, REAL, ACC, LOAD, STORE, EXP)                                                  \
    DEFINE_LIF(NAME, REAL, ACC, LOAD, STORE)                                                       \
    DEFINE_COUNTS(NAME, REAL, ACC, LOAD, STORE, FLOOR)

DEFINE_RWKV(f32, float, float, load_f32, store_f32, exp_float, floorf)
DEFINE_RWKV(bf16, uint16_t, float, load_bf16, store_bf16, exp_float, floorf)
DEFINE_RWKV(f64, double, double, load_f64, store_f64, exp_double, floor)
