/* Event-driven products of one list with rows of floats and of int8: the sums of gather_*.h. */

static void sparse_float32(const st_sparse *m, const int32_t *index, const float *value,
                           ptrdiff_t n, ptrdiff_t first, ptrdiff_t last, float *y)
{
    const st_matrix rows = {m->format, m->weight, m->stride, m->rows, m->cols, NULL, NULL};
    gather_float32(&rows, index, value, n, first, last, y);
}

static void sparse_bfloat16(const st_sparse *m, const int32_t *index, const float *value,
                            ptrdiff_t n, ptrdiff_t first, ptrdiff_t last, float *y)
{
    const st_matrix rows = {m->format, m->weight, m->stride, m->rows, m->cols, NULL, NULL};
    gather_bfloat16(&rows, index, value, n, first, last, y);
}

static void finish_sparse(const int32_t *restrict sum, float unit, const float *restrict scale,
                          ptrdiff_t n, float *restrict y)
{
    for (ptrdiff_t o = 0; o < n; o++) {
        float value = (float)sum[o] * unit;
        y[o] = value * scale[o];
    }
}

static void finish_sparse_wide(const int64_t *restrict sum, float unit,
                               const float *restrict scale, ptrdiff_t n, float *restrict y)
{
    for (ptrdiff_t o = 0; o < n; o++) {
        float value = (float)sum[o] * unit;
        y[o] = value * scale[o];
    }
}

/* acc[0 .. count) = exact sums of events begin .. end, for outputs `at` on. */
typedef void (*st_sum)(const st_sparse *m, const int32_t *index, const int16_t *value,
                       ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count,
                       int32_t *acc);

/* The longest part of the list from `e` on whose absolute values add up to no more than `limit`. */
static ptrdiff_t part_end(const int16_t *value, ptrdiff_t e, ptrdiff_t n, int64_t limit)
{
    int64_t sum = 0;
    for (; e < n; e++) {
        sum += value[e] < 0 ? -value[e] : value[e];
        if (sum > limit) break;
    }
    return e;
}

/* y = sum * unit * scale; the sum in parts that int32 holds, the parts in int64. */
static inline __attribute__((always_inline)) void
multiply_parts(const st_sparse *m, const int32_t *index, const int16_t *value, ptrdiff_t n,
               float unit, ptrdiff_t first, ptrdiff_t last, float *y, int64_t limit, st_sum sum)
{
    _Alignas(64) int32_t acc[ST_TILE + 128];
    int64_t wide[ST_TILE];
    int fits = part_end(value, 0, n, limit) == n;
    ptrdiff_t tile = even_tile(last - first);
    for (ptrdiff_t at = first; at < last; at += tile) {
        ptrdiff_t count = ST_MIN(tile, last - at);
        if (fits) {
            sum(m, index, value, 0, n, at, count, acc);
            finish_sparse(acc, unit, m->scale + at, count, y + at);
            continue;
        }
        memset(wide, 0, (size_t)count * sizeof *wide);
        for (ptrdiff_t e = 0, end; e < n; e = end) {
            end = part_end(value, e, n, limit);
            sum(m, index, value, e, end, at, count, acc);
            for (ptrdiff_t o = 0; o < count; o++) wide[o] += acc[o];
        }
        finish_sparse_wide(wide, unit, m->scale + at, count, y + at);
    }
}

static void sum_values_int8(const st_sparse *m, const int32_t *index, const int16_t *value,
                            ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count,
                            int32_t *acc)
{
    sum_part((const int8_t *)m->weight + at, m->stride, index, value, begin, end, count, acc);
}

static void sparse_int8(const st_sparse *m, const int32_t *index, const int16_t *value,
                        ptrdiff_t n, float unit, ptrdiff_t first, ptrdiff_t last, float *y)
{
    multiply_parts(m, index, value, n, unit, first, last, y, ST_SAFE_EVENT_SUM, sum_values_int8);
}

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

/* acc[64] += value[k] * (row[k] + 128) for four rows, values in [-127, 127]. */
static inline __attribute__((always_inline)) void
count_four(const int8_t *const *row, ptrdiff_t o, __mmask64 mask, __m512i values, __m512i *acc)
{
    const __m512i shift = _mm512_set1_epi8(-128);
    __m512i a = load_codes(row[0] + o, mask), b = load_codes(row[1] + o, mask);
    __m512i c = load_codes(row[2] + o, mask), d = load_codes(row[3] + o, mask);
    __m512i ab0 = _mm512_unpacklo_epi8(a, b), ab1 = _mm512_unpackhi_epi8(a, b);
    __m512i cd0 = _mm512_unpacklo_epi8(c, d), cd1 = _mm512_unpackhi_epi8(c, d);
    __m512i quad[4] = {_mm512_unpacklo_epi16(ab0, cd0), _mm512_unpackhi_epi16(ab0, cd0),
                       _mm512_unpacklo_epi16(ab1, cd1), _mm512_unpackhi_epi16(ab1, cd1)};
    for (int q = 0; q < 4; q++)
        acc[q] = _mm512_dpbusd_epi32(acc[q], _mm512_xor_si512(quad[q], shift), values);
}

static inline __attribute__((always_inline)) void
count_block(const int8_t *const *row, ptrdiff_t o, __mmask64 mask, const __m512i *values,
            int32_t *acc)
{
    __m512i sum[4];
    for (int q = 0; q < 4; q++) sum[q] = _mm512_load_si512(acc + o + 16 * q);
    for (int f = 0; f < ST_INT8_ROWS / 4; f++)
        count_four(row + 4 * f, o, mask, values[f], sum);
    for (int q = 0; q < 4; q++) _mm512_store_si512(acc + o + 16 * q, sum[q]);
}

static void count_rows(const int8_t *const *row, const int8_t *const *next, const int16_t *value,
                       ptrdiff_t n, int32_t *restrict acc)
{
    __m512i values[ST_INT8_ROWS / 4];
    for (int f = 0; f < ST_INT8_ROWS / 4; f++) values[f] = event_bytes(value + 4 * f, 0);
    ptrdiff_t o = 0;
    st_ahead ahead = fetch_from((const void *const *)next, ST_INT8_ROWS, n);
    for (; o + ST_BLOCK <= n; o += ST_BLOCK) {
        fetch_ahead((const void *const *)row, (const void *const *)next, ST_INT8_ROWS, o, n,
                    &ahead);
        count_block(row, o, ~(__mmask64)0, values, acc);
    }
    if (o < n) count_block(row, o, ~(__mmask64)0 >> (64 - (n - o)), values, acc);
}

/* Counts are within [-127, 127]: one byte each, and the codes shifted by 128, which adds 128 times
 * the sum of the counts to every output. */
static void sum_counts_int8(const st_sparse *m, const int32_t *index, const int16_t *value,
                            ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count,
                            int32_t *acc)
{
    ptrdiff_t padded = (count + ST_BLOCK - 1) / ST_BLOCK * ST_BLOCK;
    const int8_t *weight = (const int8_t *)m->weight + at;
    uint32_t total = 0;
    for (ptrdiff_t e = begin; e < end; e++) total += (uint32_t)value[e];
    for (ptrdiff_t o = 0; o < padded; o++) acc[o] = (int32_t)(0 - total * 128);
    for (ptrdiff_t e = begin; e < end; e += ST_INT8_ROWS) {
        const int8_t *row[ST_INT8_ROWS], *next[ST_INT8_ROWS];
        int16_t events[ST_INT8_ROWS];
        for (int k = 0; k < ST_INT8_ROWS; k++) {
            ptrdiff_t here = ST_MIN(e + k, end - 1);
            ptrdiff_t later = ST_MIN(e + ST_INT8_ROWS + k, end - 1);
            row[k] = weight + index[here] * m->stride;
            next[k] = weight + index[later] * m->stride;
            events[k] = e + k < end ? value[here] : 0;
        }
        count_rows(row, next, events, count, acc);
    }
    settle(acc, padded);
}

#else

#define sum_counts_int8 sum_values_int8

#endif

static void counts_int8(const st_sparse *m, const int32_t *index, const int16_t *value,
                        ptrdiff_t n, float unit, ptrdiff_t first, ptrdiff_t last, float *y)
{
    multiply_parts(m, index, value, n, unit, first, last, y, ST_SAFE_EVENT_SUM, sum_counts_int8);
}
