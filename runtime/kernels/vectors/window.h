/* Softmax attention to a tile of keys. Sums over keys and channels go in ascending order with one
 * accumulator per output. */

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

/* Softmax of `heads` queries over the keys first .. last of a tile, added to what earlier tiles
 * left: the greatest score `most`, the sum of e^(score - most) `total`, and of that times values
 * `sum`. */
static void window_tile(const float *keys, const float *values, const float *q, ptrdiff_t heads,
                        ptrdiff_t size, ptrdiff_t first, ptrdiff_t last, float *most, float *total,
                        float *sum)
{
    for (ptrdiff_t h = 0; h < heads; h++) {
        float score[ST_TILE_KEYS], p[ST_TILE_KEYS];
        tile_scores(keys, q + h * size, size, score);
        float greatest = most[h];
        for (ptrdiff_t t = first; t < last; t++)
            greatest = score[t] > greatest ? score[t] : greatest;
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
