/* Elementwise parts of recurrent mixers: LayerNorm, token shift, WKV, LIF, squared ReLU, counts.
 *
 * A sum over a vector has sixteen partial sums, element i in number i mod 16, which are then added
 * in halves (8, 4, 2, 1): the same order in every build. Everything else goes element by element. */

#define ST_LANES 16
typedef float st_lanes __attribute__((vector_size(4 * ST_LANES), aligned(4), may_alias));

/* The sixteen partial sums into one. */
static inline float add_lanes(st_lanes sum)
{
    for (int half = ST_LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) sum[j] = sum[j] + sum[j + half];
    return sum[0];
}

/* |v| bit by bit. */
static inline float magnitude(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    bits &= 0x7fffffff;
    memcpy(&v, &bits, 4);
    return v;
}

static float sum_of(const float *restrict x, ptrdiff_t n)
{
    st_lanes sum = {0};
    ptrdiff_t i = 0;
    for (; i + ST_LANES <= n; i += ST_LANES) sum = sum + *(const st_lanes *)(x + i);
    for (int j = 0; i + j < n; j++) sum[j] = sum[j] + x[i + j];
    return add_lanes(sum);
}

static float sum_of_squares(const float *restrict x, float mean, ptrdiff_t n)
{
    st_lanes sum = {0};
    ptrdiff_t i = 0;
    for (; i + ST_LANES <= n; i += ST_LANES) {
        st_lanes apart = *(const st_lanes *)(x + i) - mean;
        st_lanes square = apart * apart;
        sum = sum + square;
    }
    for (int j = 0; i + j < n; j++) {
        float apart = x[i + j] - mean;
        float square = apart * apart;
        sum[j] = sum[j] + square;
    }
    return add_lanes(sum);
}

static float sum_of_sizes(const float *restrict x, ptrdiff_t n)
{
    typedef uint32_t st_words __attribute__((vector_size(4 * ST_LANES), aligned(4), may_alias));
    st_lanes sum = {0};
    ptrdiff_t i = 0;
    for (; i + ST_LANES <= n; i += ST_LANES) {
        st_words bits = *(const st_words *)(x + i) & 0x7fffffff;
        sum = sum + (st_lanes)bits;
    }
    for (int j = 0; i + j < n; j++) sum[j] = sum[j] + magnitude(x[i + j]);
    return add_lanes(sum);
}

static void layer_norm(const float *restrict x, const float *restrict weight,
                       const float *restrict bias, float epsilon, ptrdiff_t n, float *restrict out)
{
    float mean = sum_of(x, n) / (float)n;
    float variance = sum_of_squares(x, mean, n) / (float)n;
    float scale = 1.0f / __builtin_sqrtf(variance + epsilon);
    for (ptrdiff_t i = 0; i < n; i++) {
        float apart = (x[i] - mean) * scale;
        float weighted = apart * weight[i];
        out[i] = weighted + bias[i];
    }
}

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

static ptrdiff_t lif(const float *restrict in, const float *restrict scale,
                     const float *restrict threshold, float tau, ptrdiff_t n,
                     float *restrict membrane, int32_t *restrict count)
{
    int32_t spikes = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        float drive = scale[i] * in[i];
        float h = membrane[i] + (drive - membrane[i]) / tau;
        int32_t fires = h >= threshold[i];
        membrane[i] = fires ? 0.0f : h;
        count[i] += fires;
        spikes += fires;
    }
    return spikes;
}

static void gate(const float *restrict r, const float *restrict x, ptrdiff_t n,
                 float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = st_sigmoid(r[i]) * x[i];
}

static void square_relu(const float *restrict x, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        float above = x[i] > 0.0f ? x[i] : 0.0f;
        out[i] = above * above;
    }
}

static void add_counts(const float *restrict x, const int32_t *restrict count, ptrdiff_t n,
                       float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = x[i] + (float)count[i];
}

static void add_vector(const float *restrict x, ptrdiff_t n, float *restrict sum)
{
    for (ptrdiff_t i = 0; i < n; i++) sum[i] = sum[i] + x[i];
}

/* Thresholds so small that rounding could distort them count nothing. */
#define ST_LEAST_THRESHOLD 0x1p-100f

/* sign(x) floor(|x| / V) with V = scale * mean |x|, at most 32767 in size, 0 where |x| / V is below
 * the dial; returns V, or 0. */
static float count_spikes(const float *restrict x, float scale, float dial, ptrdiff_t n,
                          int16_t *restrict counts)
{
    float threshold = scale * (sum_of_sizes(x, n) / (float)n);
    if (!(threshold >= ST_LEAST_THRESHOLD)) {
        memset(counts, 0, (size_t)n * sizeof *counts);
        return 0.0f;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        float size = magnitude(x[i]) / threshold;
        size = size > 32767.0f ? 32767.0f : size;
        size = size >= dial ? size : 0.0f; /* also infinity over infinity */
        int32_t count = (int32_t)size;
        counts[i] = (int16_t)(x[i] < 0.0f ? -count : count);
    }
    return threshold;
}
