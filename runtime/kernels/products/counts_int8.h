/* Products of spike counts with int8 rows: exact integer sums. */

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

static inline __attribute__((always_inline)) void count_block(const int8_t *const *row, ptrdiff_t o,
                                                              __mmask64 mask, const __m512i *values,
                                                              int32_t *acc)
{
    __m512i sum[4];
    for (int q = 0; q < 4; q++) sum[q] = _mm512_load_si512(acc + o + 16 * q);
    for (int f = 0; f < ST_INT8_ROWS / 4; f++) count_four(row + 4 * f, o, mask, values[f], sum);
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
static void sum_counts_int8(const st_rows *m, const int32_t *index, const int16_t *value,
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

static void counts_int8(const st_rows *m, const st_list *list, ptrdiff_t first, ptrdiff_t last,
                        float *y)
{
    multiply_parts(m, list, first, last, y, ST_SAFE_EVENT_SUM, sum_counts_int8);
}
