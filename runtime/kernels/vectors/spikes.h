/* Neurons that make spikes or spike counts: leaky integrate and fire, and adaptive thresholds. */

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

/* Thresholds so small that rounding could distort them count nothing. */
#define ST_MIN_THRESHOLD 0x1p-100f

/* sign(x) floor(|x| / V) with V = scale * mean |x|, at most 32767 in size, 0 where |x| / V is below
 * the dial; returns V, or 0. */
static float count_spikes(const float *restrict x, float scale, float dial, ptrdiff_t n,
                          int16_t *restrict counts)
{
    float threshold = scale * (sum_of_sizes(x, n) / (float)n);
    if (!(threshold >= ST_MIN_THRESHOLD)) {
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

#define ST_MIN_V 1e-5f

/* V = max(mean |x| / k, 1e-5); not a number stays one. */
static float threshold_of(const float *restrict x, float k, ptrdiff_t n)
{
    float v = sum_of_sizes(x, n) / (float)n / k;
    return v < ST_MIN_V ? ST_MIN_V : v;
}

/* round(x / V), half to even, 0 below the dead zone and where x / V is no number. */
static inline float count_of(float x, float v, float dead_zone)
{
    float z = x / v;
    float size = magnitude(z);
    return size >= dead_zone && size < 0x1p22f ? round_even(z) : 0.0f;
}

static float spike_values(const float *restrict x, float k, float dead_zone, ptrdiff_t n,
                          float *restrict out)
{
    float v = threshold_of(x, k, n);
    for (ptrdiff_t i = 0; i < n; i++) out[i] = count_of(x[i], v, dead_zone) * v;
    return v;
}

/* Counts that are made between two passes, and those that are listed at a time. */
#define ST_COUNTED 256
#define ST_LISTED 16

/* One input's entries: several where the count is beyond `most`. */
static inline ptrdiff_t list_pieces(int32_t rest, int32_t most, int32_t input,
                                    int32_t *restrict index, int16_t *restrict value)
{
    ptrdiff_t count = 0;
    for (; rest > most; rest -= most) {
        index[count] = input;
        value[count++] = (int16_t)most;
    }
    for (; rest < -most; rest += most) {
        index[count] = input;
        value[count++] = (int16_t)-most;
    }
    index[count] = input;
    value[count] = (int16_t)rest;
    return count + (rest != 0);
}

/* Sixteen inputs' entries, vector by vector where none is beyond `most`. */
static inline ptrdiff_t list_sixteen(const int32_t *restrict s, int32_t most, int32_t first,
                                     int32_t *restrict index, int16_t *restrict value)
{
    int16_t step[ST_LISTED];
    int32_t beyond = 0;
    ptrdiff_t count = 0;
    for (ptrdiff_t j = 0; j < ST_LISTED; j++) {
        beyond |= (s[j] > most) | (s[j] < -most);
        step[j] = (int16_t)s[j];
    }
    if (beyond) {
        for (int32_t j = 0; j < ST_LISTED; j++)
            count += list_pieces(s[j], most, first + j, index + count, value + count);
        return count;
    }
    count = list_int16(step, ST_LISTED, index, value);
    for (ptrdiff_t e = 0; e < ST_LISTED; e++) index[e] += first;
    return count;
}

/* index and value need room for sixteen entries more than there are. */
static ptrdiff_t spike_list(const float *restrict x, float k, float dead_zone, ptrdiff_t n,
                            int32_t most, int32_t *restrict index, int16_t *restrict value,
                            float *threshold, int64_t *fired)
{
    const float v = *threshold = threshold_of(x, k, n);
    ptrdiff_t count = 0;
    int32_t active = 0;
    for (ptrdiff_t i = 0; i < n; i += ST_COUNTED) {
        int32_t s[ST_COUNTED];
        ptrdiff_t some = ST_MIN(ST_COUNTED, n - i), j = 0;
        for (; j < some; j++) s[j] = (int32_t)count_of(x[i + j], v, dead_zone);
        for (j = 0; j < some; j++) active += s[j] != 0;
        for (j = 0; j + ST_LISTED <= some; j += ST_LISTED)
            count += list_sixteen(s + j, most, (int32_t)(i + j), index + count, value + count);
        for (; j < some; j++)
            count += list_pieces(s[j], most, (int32_t)(i + j), index + count, value + count);
    }
    *fired = active;
    return count;
}
