/* Parts of a decoder's layers: RMS norm, rotation, spike counts with an adaptive threshold, gated
 * linear attention, softmax attention to a tile of keys, the product in SwiGLU.
 *
 * Sums over a vector are those of mixing.h. Sums over keys or channels of a state go in ascending
 * order with one accumulator per output. */

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

static void silu_product(const float *restrict gate, const float *restrict up, ptrdiff_t n,
                         float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = st_silu(gate[i]) * up[i];
}

static void decay_all(const float *restrict x, float normalizer, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = st_decay(x[i], (double)normalizer);
}

static void relu(const float *restrict x, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = x[i] > 0.0f ? x[i] : 0.0f;
}

/* --- spike counts --------------------------------------------------------------------------- */

#define ST_LEAST_V 1e-5f

/* V = max(mean |x| / k, 1e-5); not a number stays one. */
static float threshold_of(const float *restrict x, float k, ptrdiff_t n)
{
    float v = sum_of_sizes(x, n) / (float)n / k;
    return v < ST_LEAST_V ? ST_LEAST_V : v;
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

/* --- gated linear attention ------------------------------------------------------------------ */

/* Value channels that stay in registers while all rows of a state pass. */
#define ST_STRIP 64
#define ST_STRIP_VECTORS (ST_STRIP / ST_FLOATS)

/* Rows times one strip of value channels; a strip shorter than ST_STRIP is element by element. */
static void gla_strip(float *restrict state, const float *restrict decay, const float *restrict k,
                      const float *restrict v, const float *restrict q, ptrdiff_t heads,
                      ptrdiff_t size, ptrdiff_t count, float *restrict out)
{
    for (ptrdiff_t i = 0; i < size; i++) {
        float *row = state + i * size;
        if (count == ST_STRIP) {
            st_floats now[ST_STRIP_VECTORS];
            for (int c = 0; c < ST_STRIP_VECTORS; c++) {
                st_floats kept = ((const st_floats *)row)[c] * decay[i];
                st_floats added = ((const st_floats *)v)[c] * k[i];
                now[c] = kept + added;
                ((st_floats *)row)[c] = now[c];
            }
            for (ptrdiff_t h = 0; h < heads; h++) {
                float query = q[h * size + i];
                if (query == 0.0f) continue;
                st_floats *sum = (st_floats *)(out + h * size);
                for (int c = 0; c < ST_STRIP_VECTORS; c++) {
                    st_floats product = now[c] * query;
                    sum[c] = sum[c] + product;
                }
            }
            continue;
        }
        for (ptrdiff_t c = 0; c < count; c++) {
            float kept = row[c] * decay[i], added = v[c] * k[i];
            row[c] = kept + added;
            for (ptrdiff_t h = 0; h < heads; h++) {
                float query = q[h * size + i], product = row[c] * query;
                if (query != 0.0f) out[h * size + c] = out[h * size + c] + product;
            }
        }
    }
}

static void gla(const float *decay, const float *k, const float *v, const float *q,
                ptrdiff_t heads, ptrdiff_t size, float *state, float *out)
{
    memset(out, 0, (size_t)(heads * size) * sizeof *out);
    for (ptrdiff_t c = 0; c < size; c += ST_STRIP)
        gla_strip(state + c, decay, k, v + c, q, heads, size, ST_MIN(ST_STRIP, size - c), out + c);
}

/* --- attention to a tile of keys ------------------------------------------------------------- */

#define ST_KEY_VECTORS (ST_TILE_KEYS / ST_FLOATS)

/* q k of one query with all keys of a tile: channels in ascending order. */
static void tile_scores(const float *restrict keys, const float *restrict q, ptrdiff_t size,
                        float *restrict score)
{
    st_floats sum[ST_KEY_VECTORS];
    memset(sum, 0, sizeof sum);
    for (ptrdiff_t c = 0; c < size; c++)
        for (int j = 0; j < ST_KEY_VECTORS; j++) {
            st_floats product = ((const st_floats *)(keys + c * ST_TILE_KEYS))[j] * q[c];
            sum[j] = sum[j] + product;
        }
    memcpy(score, sum, sizeof sum);
}

/* sum = sum * kept + p V of keys first .. last, in ascending order. */
static void tile_values(const float *restrict values, const float *restrict p, float kept,
                        ptrdiff_t first, ptrdiff_t last, ptrdiff_t size, float *restrict sum)
{
    ptrdiff_t c = 0;
    for (; c + ST_STRIP <= size; c += ST_STRIP) {
        st_floats acc[ST_STRIP_VECTORS];
        for (int j = 0; j < ST_STRIP_VECTORS; j++) acc[j] = ((st_floats *)(sum + c))[j] * kept;
        for (ptrdiff_t t = first; t < last; t++)
            for (int j = 0; j < ST_STRIP_VECTORS; j++) {
                st_floats product = ((const st_floats *)(values + t * size + c))[j] * p[t];
                acc[j] = acc[j] + product;
            }
        memcpy(sum + c, acc, sizeof acc);
    }
    for (ptrdiff_t d = c; d < size; d++) sum[d] = sum[d] * kept;
    for (ptrdiff_t t = first; t < last; t++)
        for (ptrdiff_t d = c; d < size; d++) {
            float product = values[t * size + d] * p[t];
            sum[d] = sum[d] + product;
        }
}

/* Softmax of `heads` queries over the keys first .. last of a tile, added to what earlier tiles left:
 * the greatest score `most`, the sum of e^(score - most) `total`, and of that times values `sum`. */
static void window_tile(const float *keys, const float *values, const float *q, ptrdiff_t heads,
                        ptrdiff_t size, ptrdiff_t first, ptrdiff_t last, float *most, float *total,
                        float *sum)
{
    for (ptrdiff_t h = 0; h < heads; h++) {
        float score[ST_TILE_KEYS], p[ST_TILE_KEYS];
        tile_scores(keys, q + h * size, size, score);
        float greatest = most[h];
        for (ptrdiff_t t = first; t < last; t++) greatest = score[t] > greatest ? score[t] : greatest;
        float kept = st_exp(most[h] - greatest);
        for (ptrdiff_t t = 0; t < ST_TILE_KEYS; t++) {
            float e = st_exp(score[t] - greatest);
            p[t] = t >= first && t < last ? e : 0.0f;
        }
        float before = total[h] * kept;
        total[h] = before + sum_of(p, ST_TILE_KEYS);
        most[h] = greatest;
        tile_values(values, p, kept, first, last, size, sum + h * size);
    }
}

static void widen_bfloat16(const uint16_t *restrict x, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)x[i] << 16;
        memcpy(out + i, &bits, 4);
    }
}

/* Rows of ST_TILE_KEYS codes, each key with its scale. */
static void widen_keys(const int8_t *restrict codes, const float *restrict scale, ptrdiff_t size,
                       float *restrict out)
{
    for (ptrdiff_t c = 0; c < size; c++)
        for (ptrdiff_t t = 0; t < ST_TILE_KEYS; t++)
            out[c * ST_TILE_KEYS + t] = (float)codes[c * ST_TILE_KEYS + t] * scale[t];
}

/* ST_TILE_KEYS rows of codes, each with its scale. */
static void widen_values(const int8_t *restrict codes, const float *restrict scale, ptrdiff_t size,
                         float *restrict out)
{
    for (ptrdiff_t t = 0; t < ST_TILE_KEYS; t++)
        for (ptrdiff_t c = 0; c < size; c++)
            out[t * size + c] = (float)codes[t * size + c] * scale[t];
}
