/* Event-driven products with float32 or bfloat16 rows: one accumulator per output, inputs in
 * ascending order, a product rounded before it is added. Vector lanes are outputs, so the width
 * does not change a bit. A bfloat16 is the float32 of its bits. `bf16` says which rows they are. */

#if defined(__AVX512F__)
#define ST_FLOATS 16
#elif defined(__AVX2__)
#define ST_FLOATS 8
#else
#define ST_FLOATS 4
#endif
typedef float st_floats __attribute__((vector_size(4 * ST_FLOATS), aligned(4), may_alias));

#define ST_FLOAT_ROWS 8
#define ST_INLINE static inline __attribute__((always_inline))

/* ST_FLOATS values of a row from number `at` on. */
ST_INLINE st_floats load_floats(const void *row, ptrdiff_t at, const int bf16)
{
    if (!bf16) return *(const st_floats *)((const float *)row + at);
    typedef uint16_t st_bf16s __attribute__((vector_size(2 * ST_FLOATS), aligned(2), may_alias));
    typedef uint32_t st_bits __attribute__((vector_size(4 * ST_FLOATS), aligned(4), may_alias));
    st_bf16s stored = *(const st_bf16s *)((const uint16_t *)row + at);
    return (st_floats)(__builtin_convertvector(stored, st_bits) << 16);
}

ST_INLINE float load_float(const void *row, ptrdiff_t at, const int bf16)
{
    return bf16 ? st_widen(((const uint16_t *)row)[at]) : ((const float *)row)[at];
}

/* acc += value[k] * row[k] for eight rows in order, while the next eight are fetched. */
ST_INLINE void add_eight(const void *const *row, const void *const *next, const float *value,
                         ptrdiff_t n, const int bf16, float *restrict acc)
{
    const ptrdiff_t bytes = bf16 ? 2 : 4;
    ptrdiff_t o = 0;
    for (; o + ST_FLOATS <= n; o += ST_FLOATS) {
        st_floats sum = *(const st_floats *)(acc + o);
        for (int k = 0; k < ST_FLOAT_ROWS; k++) {
            if (o * bytes % 64 == 0) __builtin_prefetch((const char *)next[k] + o * bytes);
            st_floats product = load_floats(row[k], o, bf16) * value[k];
            sum = sum + product;
        }
        *(st_floats *)(acc + o) = sum;
    }
    for (; o < n; o++) {
        float sum = acc[o];
        for (int k = 0; k < ST_FLOAT_ROWS; k++) {
            float product = load_float(row[k], o, bf16) * value[k];
            sum = sum + product;
        }
        acc[o] = sum;
    }
}

ST_INLINE void add_one(const void *restrict row, float value, ptrdiff_t n, const int bf16,
                       float *restrict acc)
{
    for (ptrdiff_t o = 0; o < n; o++) {
        float product = load_float(row, o, bf16) * value;
        acc[o] = acc[o] + product;
    }
}

static void add_bias(const float *restrict bias, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t o = 0; o < n; o++) out[o] = out[o] + bias[o];
}

ST_INLINE void multiply_float_list(const st_rows *m, const st_list *list, ptrdiff_t first,
                                   ptrdiff_t last, const int bf16, float *y)
{
    const ptrdiff_t bytes = bf16 ? 2 : 4, n = list->count;
    const int32_t *index = list->index;
    const float *value = list->value;
    const char *weight = m->weight;
    for (ptrdiff_t at = first; at < last; at += ST_TILE) {
        ptrdiff_t count = ST_MIN(ST_TILE, last - at);
        float *acc = y + at;
        memset(acc, 0, (size_t)count * sizeof *acc);
        ptrdiff_t e = 0;
        for (; e + ST_FLOAT_ROWS <= n; e += ST_FLOAT_ROWS) {
            const void *row[ST_FLOAT_ROWS], *next[ST_FLOAT_ROWS];
            for (int k = 0; k < ST_FLOAT_ROWS; k++) {
                ptrdiff_t later = ST_MIN(e + ST_FLOAT_ROWS + k, n - 1);
                row[k] = weight + (index[e + k] * m->stride + at) * bytes;
                next[k] = weight + (index[later] * m->stride + at) * bytes;
            }
            add_eight(row, next, value + e, count, bf16, acc);
        }
        for (; e < n; e++)
            add_one(weight + (index[e] * m->stride + at) * bytes, value[e], count, bf16, acc);
        if (m->bias) add_bias(m->bias + at, count, acc);
    }
}

static void rows_float32(const st_rows *m, const st_list *list, ptrdiff_t first, ptrdiff_t last,
                         float *y)
{
    multiply_float_list(m, list, first, last, 0, y);
}

static void rows_bfloat16(const st_rows *m, const st_list *list, ptrdiff_t first, ptrdiff_t last,
                          float *y)
{
    multiply_float_list(m, list, first, last, 1, y);
}
