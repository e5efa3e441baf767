/* Norms, over sums with sixteen partial sums: element i in number i mod 16, then added in halves
 * (8, 4, 2, 1), which is the same order in every build. */

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

static void rms_norm(const float *restrict x, const float *restrict weight, float epsilon,
                     ptrdiff_t n, float *restrict out)
{
    float mean = sum_of_squares(x, 0.0f, n) / (float)n;
    float scale = 1.0f / __builtin_sqrtf(mean + epsilon);
    for (ptrdiff_t i = 0; i < n; i++) {
        float scaled = x[i] * scale;
        out[i] = scaled * weight[i];
    }
}
