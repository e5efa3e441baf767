/* The time mix of RWKV-4: the shift by a token, and the WKV recurrence. */

static void token_shift(const float *restrict now, const float *restrict before,
                        const float *restrict mix, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        float a = now[i] * mix[i], b = before[i] * (1.0f - mix[i]);
        out[i] = a + b;
    }
}

/* Channels that the WKV recurrence handles between two passes. */
#define ST_CHANNELS 64

/* e^-|a - b| of `count` channels. */
static inline void decay_between(const float *restrict a, const float *restrict b, ptrdiff_t count,
                                 float *restrict out)
{
    for (ptrdiff_t i = 0; i < count; i++) out[i] = st_exp(-magnitude(a[i] - b[i]));
}

/* One of the two weights e^(o - n), e^(m - n) with n = max(o, m) is 1, the other e^-|o - m|. */
static inline void wkv_channels(const float *restrict r, const float *restrict k,
                                const float *restrict v, const float *restrict decay,
                                const float *restrict bonus, ptrdiff_t count, float *restrict p,
                                float *restrict q, float *restrict o, float *restrict out)
{
    float other[ST_CHANNELS], apart[ST_CHANNELS], open[ST_CHANNELS];
    for (ptrdiff_t i = 0; i < count; i++) other[i] = bonus[i] + k[i];
    decay_between(o, other, count, apart);
    for (ptrdiff_t i = 0; i < count; i++) open[i] = st_sigmoid(r[i]);
    for (ptrdiff_t i = 0; i < count; i++) {
        int old = o[i] >= other[i];
        float a = old ? 1.0f : apart[i], b = old ? apart[i] : 1.0f;
        float ap = a * p[i], bv = b * v[i], aq = a * q[i];
        float wkv = (ap + bv) / (aq + b);
        out[i] = open[i] * wkv;
    }
    for (ptrdiff_t i = 0; i < count; i++) other[i] = o[i] + decay[i];
    decay_between(other, k, count, apart);
    for (ptrdiff_t i = 0; i < count; i++) {
        int old = other[i] >= k[i];
        float a = old ? 1.0f : apart[i], b = old ? apart[i] : 1.0f;
        float ap = a * p[i], bv = b * v[i], aq = a * q[i];
        p[i] = ap + bv;
        q[i] = aq + b;
        o[i] = old ? other[i] : k[i];
    }
}

static void wkv(const float *r, const float *k, const float *v, const float *decay,
                const float *bonus, ptrdiff_t n, float *p, float *q, float *o, float *out)
{
    for (ptrdiff_t at = 0; at < n; at += ST_CHANNELS)
        wkv_channels(r + at, k + at, v + at, decay + at, bonus + at, ST_MIN(ST_CHANNELS, n - at),
                     p + at, q + at, o + at, out + at);
}
