/* Kernels that go over a vector element by element. */

static void exp_all(const float *restrict x, float *restrict out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = st_exp(x[i]);
}

static void sigmoid_all(const float *restrict x, float *restrict out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = st_sigmoid(x[i]);
}

static void tanh_all(const float *restrict x, float *restrict out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = st_tanh(x[i]);
}

/* Nearest whole number, half to even, of |v| < 2^22. */
static inline float round_even(float v)
{
    const float to_integer = 12582912.0f;
    return (v + to_integer) - to_integer;
}

/* Symmetric codes in [-127, 127] of one vector; returns the scale, 0 for a zero vector. */
static float quantise(const float *restrict x, ptrdiff_t n, int16_t *restrict codes)
{
    float most = 0.0f;
    for (ptrdiff_t i = 0; i < n; i++) {
        float size = x[i] < 0.0f ? -x[i] : x[i];
        most = size > most ? size : most;
    }
    float scale = most / 127.0f;
    if (!(scale > 0.0f)) {
        memset(codes, 0, (size_t)n * sizeof *codes);
        return 0.0f;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        float code = x[i] / scale;
        code = code < 127.0f ? code : 127.0f; /* no number: where the largest is infinite */
        code = code > -127.0f ? code : -127.0f;
        codes[i] = (int16_t)(int32_t)round_even(code);
    }
    return scale;
}

/* The largest absolute value, NaN aside: sizes compare as their bits do, which vectorises. */
static float largest_size(const float *restrict x, ptrdiff_t n)
{
    const int32_t infinity = 0x7f800000;
    int32_t most = 0;
    float largest;
    for (ptrdiff_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, 4);
        bits &= 0x7fffffff;
        bits = bits > infinity ? 0 : bits;
        most = bits > most ? bits : most;
    }
    memcpy(&largest, &most, 4);
    return largest;
}

/* As `quantise`, but a zero vector has scale 1, and the codes are bytes; `codes` is zero from n up
 * to the next multiple of 64, and sum[g] is that of codes ST_GROUP g .. ST_GROUP (g + 1). */
static float quantise_row(const float *restrict x, ptrdiff_t n, int8_t *restrict codes,
                          int32_t *restrict sum)
{
    float scale = largest_size(x, n) / 127.0f;
    scale = scale > 0.0f ? scale : 1.0f;
    for (ptrdiff_t i = 0; i < n; i++) {
        float code = x[i] / scale;
        code = code < 127.0f ? code : 127.0f;
        code = code > -127.0f ? code : -127.0f;
        codes[i] = (int8_t)(int32_t)round_even(code);
    }
    for (ptrdiff_t g = 0; g < (n + 63) / 64 * (64 / ST_GROUP); g++) {
        int32_t total = 0;
        for (int k = 0; k < ST_GROUP; k++) total += codes[g * ST_GROUP + k];
        sum[g] = total;
    }
    return scale;
}

static void gate(const float *restrict r, const float *restrict x, ptrdiff_t n, float *restrict out)
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

static void relu(const float *restrict x, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = x[i] > 0.0f ? x[i] : 0.0f;
}

static void silu_product(const float *restrict gate, const float *restrict up, ptrdiff_t n,
                         float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = st_silu(gate[i]) * up[i];
}

static void decay(const float *restrict x, float normalizer, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = st_decay(x[i], (double)normalizer);
}

static void rotate(const float *restrict cosine, const float *restrict sine, ptrdiff_t half,
                   float *restrict x)
{
    for (ptrdiff_t i = 0; i < half; i++) {
        float a = x[i], b = x[half + i];
        float ac = a * cosine[i], bs = b * sine[i], bc = b * cosine[i], as = a * sine[i];
        x[i] = ac - bs;
        x[half + i] = bc + as;
    }
}

static void widen_bfloat16(const uint16_t *restrict x, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)x[i] << 16;
        memcpy(out + i, &bits, 4);
    }
}
