/* Exact sums of events times int4 rows, groups of ST_SPAN outputs: the multiplier folds into the
 * event, so a sum stays one integer.
 *
 * With AVX-512 the bytes of four rows are interleaved and then cut into halves, which take four
 * rows' codes of an output in one vpdpbusd. Codes + 8 are used as they are; 8 times the sum of the
 * folded events is taken off at the end. A folded square is at most 4095 * 15 < 2^16: two unsigned
 * bytes. A folded count is within 8 * 15 = 120: one signed byte. */

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#define ST_TILE_SPANS (ST_TILE / ST_SPAN)

/* Events of four rows times their multipliers, for every span of a tile: four bytes a word. */
typedef struct {
    uint32_t low[ST_TILE_SPANS], high[ST_TILE_SPANS];
} st_folded;

static void fold_four(const st_sparse *m, const int32_t *index, const int16_t *value,
                      ptrdiff_t first_span, ptrdiff_t spans, st_folded *folded,
                      uint32_t *restrict total)
{
    const uint8_t *a = m->multiplier + index[0] * m->multiplier_stride + first_span;
    const uint8_t *b = m->multiplier + index[1] * m->multiplier_stride + first_span;
    const uint8_t *c = m->multiplier + index[2] * m->multiplier_stride + first_span;
    const uint8_t *d = m->multiplier + index[3] * m->multiplier_stride + first_span;
    for (ptrdiff_t s = 0; s < spans; s++) {
        uint32_t w = (uint32_t)(value[0] * a[s]), x = (uint32_t)(value[1] * b[s]);
        uint32_t y = (uint32_t)(value[2] * c[s]), z = (uint32_t)(value[3] * d[s]);
        total[s] += w + x + y + z;
        folded->low[s] = (w & 255) | (x & 255) << 8 | (y & 255) << 16 | z << 24;
        folded->high[s] =
            (w >> 8 & 255) | (x >> 8 & 255) << 8 | (y >> 8 & 255) << 16 | (z >> 8) << 24;
    }
}

/* acc += the span's sums over four rows: vectors 0 .. 3 of low halves, 4 .. 7 of high ones. */
static inline __attribute__((always_inline)) void
add_span_four(const uint8_t *const *row, ptrdiff_t o, __mmask64 mask, uint32_t low, uint32_t high,
              const int counts, __m512i *acc, __m512i *acc_high)
{
    const __m512i half = _mm512_set1_epi8(15);
    const __m512i low_bytes = _mm512_set1_epi32((int32_t)low);
    const __m512i high_bytes = _mm512_set1_epi32((int32_t)high);
    __m512i a = _mm512_maskz_loadu_epi8(mask, row[0] + o);
    __m512i b = _mm512_maskz_loadu_epi8(mask, row[1] + o);
    __m512i c = _mm512_maskz_loadu_epi8(mask, row[2] + o);
    __m512i d = _mm512_maskz_loadu_epi8(mask, row[3] + o);
    __m512i ab0 = _mm512_unpacklo_epi8(a, b), ab1 = _mm512_unpackhi_epi8(a, b);
    __m512i cd0 = _mm512_unpacklo_epi8(c, d), cd1 = _mm512_unpackhi_epi8(c, d);
    __m512i quad[4] = {_mm512_unpacklo_epi16(ab0, cd0), _mm512_unpackhi_epi16(ab0, cd0),
                       _mm512_unpacklo_epi16(ab1, cd1), _mm512_unpackhi_epi16(ab1, cd1)};
    for (int q = 0; q < 4; q++) {
        __m512i even = _mm512_and_si512(quad[q], half);
        __m512i odd = _mm512_and_si512(_mm512_srli_epi16(quad[q], 4), half);
        if (counts) {
            acc[q] = _mm512_dpbusd_epi32(acc[q], even, low_bytes);
            acc[4 + q] = _mm512_dpbusd_epi32(acc[4 + q], odd, low_bytes);
            continue;
        }
        acc[q] = _mm512_dpbusd_epi32(acc[q], low_bytes, even);
        acc[4 + q] = _mm512_dpbusd_epi32(acc[4 + q], low_bytes, odd);
        acc_high[q] = _mm512_dpbusd_epi32(acc_high[q], high_bytes, even);
        acc_high[4 + q] = _mm512_dpbusd_epi32(acc_high[4 + q], high_bytes, odd);
    }
}

static inline __attribute__((always_inline)) void
add_span(const uint8_t *const *row, ptrdiff_t o, __mmask64 mask, const st_folded *folded,
         ptrdiff_t span, const int counts, int32_t *sums)
{
    __m512i acc[8], acc_high[8];
    for (int q = 0; q < 8; q++) {
        acc[q] = _mm512_load_si512(sums + 16 * q);
        acc_high[q] = _mm512_setzero_si512();
    }
    for (int f = 0; f < ST_INT8_ROWS / 4; f++)
        add_span_four(row + 4 * f, o, mask, folded[f].low[span], folded[f].high[span], counts, acc,
                      acc_high);
    for (int q = 0; q < 8; q++) {
        if (!counts) acc[q] = _mm512_add_epi32(acc[q], _mm512_slli_epi32(acc_high[q], 8));
        _mm512_store_si512(sums + 16 * q, acc[q]);
    }
}

/* The span's sums in the order of its outputs, less what the codes + 8 add too much. */
static void settle_span(int32_t *sums, int32_t excess)
{
    const __m512i less = _mm512_set1_epi32(excess);
    const __m512i front = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i back = _mm512_add_epi32(front, _mm512_set1_epi32(8));
    __m512i even[4], odd[4];
    settle(sums, 128);
    for (int v = 0; v < 4; v++) {
        even[v] = _mm512_sub_epi32(_mm512_load_si512(sums + 16 * v), less);
        odd[v] = _mm512_sub_epi32(_mm512_load_si512(sums + 64 + 16 * v), less);
    }
    for (int v = 0; v < 4; v++) {
        _mm512_store_si512(sums + 32 * v, _mm512_permutex2var_epi32(even[v], front, odd[v]));
        _mm512_store_si512(sums + 32 * v + 16, _mm512_permutex2var_epi32(even[v], back, odd[v]));
    }
}

/* Multipliers of a row lie apart from its codes, in a line or two of their own. Always inlined: gcc
 * takes a function that only prefetches for one without effect, and drops its calls. */
static inline __attribute__((always_inline)) void
fetch_multipliers(const st_sparse *m, ptrdiff_t row, ptrdiff_t at, ptrdiff_t spans)
{
    const uint8_t *first = m->multiplier + row * m->multiplier_stride + at / ST_SPAN;
    _mm_prefetch((const char *)first, _MM_HINT_T0);
    _mm_prefetch((const char *)first + spans - 1, _MM_HINT_T0);
}

static inline __attribute__((always_inline)) void
sum_spans(const st_sparse *m, const int32_t *index, const int16_t *value, ptrdiff_t begin,
          ptrdiff_t end, ptrdiff_t at, ptrdiff_t count, const int counts, int32_t *acc)
{
    ptrdiff_t spans = (count + ST_SPAN - 1) / ST_SPAN;
    const uint8_t *weight = (const uint8_t *)m->weight + at / 2;
    uint32_t total[ST_TILE_SPANS] = {0};
    for (ptrdiff_t e = begin; e < ST_MIN(begin + ST_INT8_ROWS, end); e++)
        fetch_multipliers(m, index[e], at, spans);
    memset(acc, 0, (size_t)spans * ST_SPAN * sizeof *acc);
    for (ptrdiff_t e = begin; e < end; e += ST_INT8_ROWS) {
        const uint8_t *row[ST_INT8_ROWS], *next[ST_INT8_ROWS];
        int32_t rows[ST_INT8_ROWS];
        int16_t events[ST_INT8_ROWS];
        st_folded folded[ST_INT8_ROWS / 4];
        for (int k = 0; k < ST_INT8_ROWS; k++) {
            rows[k] = index[ST_MIN(e + k, end - 1)];
            events[k] = e + k < end ? value[e + k] : 0;
            row[k] = weight + rows[k] * m->stride;
            ptrdiff_t later = index[ST_MIN(e + ST_INT8_ROWS + k, end - 1)];
            next[k] = weight + later * m->stride;
            fetch_multipliers(m, later, at, spans);
        }
        for (int f = 0; f < ST_INT8_ROWS / 4; f++)
            fold_four(m, rows + 4 * f, events + 4 * f, at / ST_SPAN, spans, &folded[f], total);
        st_ahead ahead = {0, 0};
        for (ptrdiff_t s = 0; s < spans; s++) {
            ptrdiff_t bytes = ST_MIN(ST_SPAN, count - s * ST_SPAN + 1) / 2;
            fetch_ahead((const void *const *)next, ST_INT8_ROWS, 64 * s, 64 * spans, &ahead);
            add_span(row, 64 * s, ~(__mmask64)0 >> (64 - bytes), folded, s, counts,
                     acc + s * ST_SPAN);
        }
    }
    for (ptrdiff_t s = 0; s < spans; s++) settle_span(acc + s * ST_SPAN, (int32_t)(8 * total[s]));
}

static void sum_squares_int4(const st_sparse *m, const int32_t *index, const int16_t *value,
                             ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count,
                             int32_t *acc)
{
    sum_spans(m, index, value, begin, end, at, count, 0, acc);
}

static void sum_counts_int4(const st_sparse *m, const int32_t *index, const int16_t *value,
                            ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count,
                            int32_t *acc)
{
    sum_spans(m, index, value, begin, end, at, count, 1, acc);
}

#else

static void sum_squares_int4(const st_sparse *m, const int32_t *index, const int16_t *value,
                             ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count,
                             int32_t *acc)
{
    memset(acc, 0, (size_t)(count + 1) * sizeof *acc);
    for (ptrdiff_t e = begin; e < end; e++) {
        const uint8_t *row = (const uint8_t *)m->weight + index[e] * m->stride + at / 2;
        const uint8_t *multiplier = m->multiplier + index[e] * m->multiplier_stride + at / ST_SPAN;
        for (ptrdiff_t s = 0; s < count; s += ST_SPAN) {
            int32_t factor = value[e] * multiplier[s / ST_SPAN];
            for (ptrdiff_t o = s; o < ST_MIN(s + ST_SPAN, count); o += 2) {
                acc[o] += factor * ((row[o / 2] & 15) - 8);
                acc[o + 1] += factor * ((row[o / 2] >> 4) - 8);
            }
        }
    }
}

#define sum_counts_int4 sum_squares_int4

#endif

static void sparse_int4(const st_sparse *m, const int32_t *index, const int16_t *value,
                        ptrdiff_t n, float unit, ptrdiff_t first, ptrdiff_t last, float *y)
{
    multiply_parts(m, index, value, n, unit, first, last, y, ST_SAFE_EVENT_SUM, sum_squares_int4);
}

static void counts_int4(const st_sparse *m, const int32_t *index, const int16_t *value,
                        ptrdiff_t n, float unit, ptrdiff_t first, ptrdiff_t last, float *y)
{
    multiply_parts(m, index, value, n, unit, first, last, y, ST_SAFE_EVENT_SUM, sum_counts_int4);
}
