/* Event-driven float32 products: one accumulator per output, inputs in ascending order, a product
 * rounded before it is added. Vector lanes are outputs, so the width does not change a bit. */

#if defined(__AVX512F__)
#define ST_FLOATS 16
#elif defined(__AVX2__)
#define ST_FLOATS 8
#else
#define ST_FLOATS 4
#endif
typedef float st_floats __attribute__((vector_size(4 * ST_FLOATS), aligned(4), may_alias));

#define ST_FLOAT_ROWS 8

/* acc += value[k] * row[k] for eight rows in order, while the next eight are fetched. */
static void add_eight(const float *const *row, const float *const *next, const float *value,
                      ptrdiff_t n, float *restrict acc)
{
    ptrdiff_t o = 0;
    for (; o + ST_FLOATS <= n; o += ST_FLOATS) {
        st_floats sum = *(const st_floats *)(acc + o);
        for (int k = 0; k < ST_FLOAT_ROWS; k++) {
            if (o % 16 == 0) __builtin_prefetch(next[k] + o);
            st_floats product = *(const st_floats *)(row[k] + o) * value[k];
            sum = sum + product;
        }
        *(st_floats *)(acc + o) = sum;
    }
    for (; o < n; o++) {
        float sum = acc[o];
        for (int k = 0; k < ST_FLOAT_ROWS; k++) {
            float product = row[k][o] * value[k];
            sum = sum + product;
        }
        acc[o] = sum;
    }
}

static void add_one(const float *restrict row, float value, ptrdiff_t n, float *restrict acc)
{
    for (ptrdiff_t o = 0; o < n; o++) {
        float product = row[o] * value;
        acc[o] = acc[o] + product;
    }
}

static void add_bias(const float *restrict bias, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t o = 0; o < n; o++) out[o] = out[o] + bias[o];
}

static void gather_float32(const st_matrix *m, const int32_t *index, const float *value,
                           ptrdiff_t n, ptrdiff_t first, ptrdiff_t last, float *out)
{
    const float *weight = m->weight;
    for (ptrdiff_t at = first; at < last; at += ST_TILE) {
        ptrdiff_t count = ST_MIN(ST_TILE, last - at);
        float *acc = out + at;
        memset(acc, 0, (size_t)count * sizeof *acc);
        ptrdiff_t e = 0;
        for (; e + ST_FLOAT_ROWS <= n; e += ST_FLOAT_ROWS) {
            const float *row[ST_FLOAT_ROWS], *next[ST_FLOAT_ROWS];
            for (int k = 0; k < ST_FLOAT_ROWS; k++) {
                ptrdiff_t later = ST_MIN(e + ST_FLOAT_ROWS + k, n - 1);
                row[k] = weight + index[e + k] * m->stride + at;
                next[k] = weight + index[later] * m->stride + at;
            }
            add_eight(row, next, value + e, count, acc);
        }
        for (; e < n; e++) add_one(weight + index[e] * m->stride + at, value[e], count, acc);
        if (m->bias) add_bias(m->bias + at, count, acc);
    }
}
