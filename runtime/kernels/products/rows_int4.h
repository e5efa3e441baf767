/* Exact sums of events times int4 rows, groups of ST_SPAN outputs: the multiplier folds into the
 * event, so a sum stays one integer.
 *
 * With AVX-512 the bytes of four rows are interleaved and then cut into nibbles, which take four
 * rows' codes of an output in one vpdpbusd. Codes + 8 are used as they are; 8 times the sum of the
 * folded events is taken off at the end. A folded square is at most 4095 * 15 < 2^16: two unsigned
 * bytes. A folded count is within 8 * 15 = 120: one signed byte. */

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#define ST_TILE_SPANS (ST_TILE / ST_SPAN)

/* Events of four rows times their multipliers, for every span of a tile: four bytes a word. */
typedef struct {
    _Alignas(64) uint32_t low[ST_TILE_SPANS + 15], high[ST_TILE_SPANS + 15];
} st_folded;

/* Multipliers of four rows for sixteen spans, four bytes a span. */
static inline __attribute__((always_inline)) __m512i four_multipliers(const uint8_t *const *row,
                                                                      ptrdiff_t s, __mmask16 mask)
{
    __m128i a = _mm_maskz_loadu_epi8(mask, row[0] + s), b = _mm_maskz_loadu_epi8(mask, row[1] + s);
    __m128i c = _mm_maskz_loadu_epi8(mask, row[2] + s), d = _mm_maskz_loadu_epi8(mask, row[3] + s);
    __m128i ab0 = _mm_unpacklo_epi8(a, b), ab1 = _mm_unpackhi_epi8(a, b);
    __m128i cd0 = _mm_unpacklo_epi8(c, d), cd1 = _mm_unpackhi_epi8(c, d);
    __m512i all = _mm512_castsi128_si512(_mm_unpacklo_epi16(ab0, cd0));
    all = _mm512_inserti32x4(all, _mm_unpackhi_epi16(ab0, cd0), 1);
    all = _mm512_inserti32x4(all, _mm_unpacklo_epi16(ab1, cd1), 2);
    return _mm512_inserti32x4(all, _mm_unpackhi_epi16(ab1, cd1), 3);
}

/* Also adds the folded events to the span's total. */
static inline __attribute__((always_inline)) void
fold_four(const st_rows *m, const int32_t *index, const int16_t *value, ptrdiff_t first_span,
          ptrdiff_t spans, const int counts, st_folded *folded, uint32_t *restrict total)
{
    const uint8_t *row[4];
    int64_t four;
    memcpy(&four, value, sizeof four);
    const __m512i values = _mm512_set1_epi64(four);
    const __m512i low_bytes = event_bytes(value, 0), high_bytes = event_bytes(value, 8);
    for (int k = 0; k < 4; k++)
        row[k] = m->multiplier + index[k] * m->multiplier_stride + first_span;
    for (ptrdiff_t s = 0; s < spans; s += 16) {
        __mmask16 mask = (__mmask16)(0xffff >> (16 - ST_MIN(16, spans - s)));
        __m512i each = four_multipliers(row, s, mask), sum = _mm512_load_si512(total + s);
        __m512i front = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(each));
        __m512i back = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(each, 1));
        front = _mm512_mullo_epi16(front, values);
        back = _mm512_mullo_epi16(back, values);
        _mm256_store_si256((__m256i *)(folded->low + s), _mm512_cvtepi16_epi8(front));
        _mm256_store_si256((__m256i *)(folded->low + s + 8), _mm512_cvtepi16_epi8(back));
        if (counts) {
            sum = _mm512_dpbusd_epi32(sum, each, low_bytes);
        } else {
            __m512i high = _mm512_dpbusd_epi32(_mm512_setzero_si512(), high_bytes, each);
            sum = _mm512_dpbusd_epi32(sum, low_bytes, each);
            sum = _mm512_add_epi32(sum, _mm512_slli_epi32(high, 8));
            front = _mm512_srli_epi16(front, 8);
            back = _mm512_srli_epi16(back, 8);
            _mm256_store_si256((__m256i *)(folded->high + s), _mm512_cvtepi16_epi8(front));
            _mm256_store_si256((__m256i *)(folded->high + s + 8), _mm512_cvtepi16_epi8(back));
        }
        _mm512_store_si512(total + s, sum);
    }
}

static inline __attribute__((always_inline)) void
interleave_four(const uint8_t *const *row, ptrdiff_t o, __mmask64 mask, __m512i *quad)
{
    __m512i a = load_codes((const int8_t *)row[0] + o, mask);
    __m512i b = load_codes((const int8_t *)row[1] + o, mask);
    __m512i c = load_codes((const int8_t *)row[2] + o, mask);
    __m512i d = load_codes((const int8_t *)row[3] + o, mask);
    __m512i ab0 = _mm512_unpacklo_epi8(a, b), ab1 = _mm512_unpackhi_epi8(a, b);
    __m512i cd0 = _mm512_unpacklo_epi8(c, d), cd1 = _mm512_unpackhi_epi8(c, d);
    quad[0] = _mm512_unpacklo_epi16(ab0, cd0);
    quad[1] = _mm512_unpackhi_epi16(ab0, cd0);
    quad[2] = _mm512_unpacklo_epi16(ab1, cd1);
    quad[3] = _mm512_unpackhi_epi16(ab1, cd1);
}

/* sums += the span's sums over sixteen rows: vectors 0 .. 3 of low nibbles, 4 .. 7 of high ones. */
static inline __attribute__((always_inline)) void add_squares_span(const uint8_t *const *row,
                                                                   ptrdiff_t o, __mmask64 mask,
                                                                   const st_folded *folded,
                                                                   ptrdiff_t span, int32_t *sums)
{
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i even[4], odd[4], even_high[4], odd_high[4], quad[4];
    for (int q = 0; q < 4; q++) {
        even[q] = _mm512_load_si512(sums + 16 * q);
        odd[q] = _mm512_load_si512(sums + 64 + 16 * q);
        even_high[q] = odd_high[q] = _mm512_setzero_si512();
    }
    for (int f = 0; f < ST_INT8_ROWS / 4; f++) {
        const __m512i low_bytes = _mm512_set1_epi32((int32_t)folded[f].low[span]);
        const __m512i high_bytes = _mm512_set1_epi32((int32_t)folded[f].high[span]);
        interleave_four(row + 4 * f, o, mask, quad);
        for (int q = 0; q < 4; q++) {
            __m512i low = _mm512_and_si512(quad[q], nibble);
            __m512i high = _mm512_and_si512(_mm512_srli_epi16(quad[q], 4), nibble);
            even[q] = _mm512_dpbusd_epi32(even[q], low_bytes, low);
            odd[q] = _mm512_dpbusd_epi32(odd[q], low_bytes, high);
            even_high[q] = _mm512_dpbusd_epi32(even_high[q], high_bytes, low);
            odd_high[q] = _mm512_dpbusd_epi32(odd_high[q], high_bytes, high);
        }
    }
    for (int q = 0; q < 4; q++) {
        even[q] = _mm512_add_epi32(even[q], _mm512_slli_epi32(even_high[q], 8));
        odd[q] = _mm512_add_epi32(odd[q], _mm512_slli_epi32(odd_high[q], 8));
        _mm512_store_si512(sums + 16 * q, even[q]);
        _mm512_store_si512(sums + 64 + 16 * q, odd[q]);
    }
}

/* The same of counts, but vectors 4 .. 7 of whole bytes, modulo 2^32: a low nibble and 16 times a
 * high one, which settle_span takes apart. */
static inline __attribute__((always_inline)) void add_counts_span(const uint8_t *const *row,
                                                                  ptrdiff_t o, __mmask64 mask,
                                                                  const st_folded *folded,
                                                                  ptrdiff_t span, int32_t *sums)
{
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i even[4], whole[4], quad[4];
    for (int q = 0; q < 4; q++) {
        even[q] = _mm512_load_si512(sums + 16 * q);
        whole[q] = _mm512_load_si512(sums + 64 + 16 * q);
    }
    for (int f = 0; f < ST_INT8_ROWS / 4; f++) {
        const __m512i bytes = _mm512_set1_epi32((int32_t)folded[f].low[span]);
        interleave_four(row + 4 * f, o, mask, quad);
        for (int q = 0; q < 4; q++) {
            even[q] = _mm512_dpbusd_epi32(even[q], _mm512_and_si512(quad[q], nibble), bytes);
            whole[q] = _mm512_dpbusd_epi32(whole[q], quad[q], bytes);
        }
    }
    for (int q = 0; q < 4; q++) {
        _mm512_store_si512(sums + 16 * q, even[q]);
        _mm512_store_si512(sums + 64 + 16 * q, whole[q]);
    }
}

/* Sixteen rows of so many outputs, while the next ones are fetched. Not inlined: gcc would keep
 * sixteen pointers in vector registers, and moving one out takes longer than loading it. */
static inline __attribute__((always_inline)) void
add_outputs(const uint8_t *const *row, const uint8_t *const *next, const st_folded *folded,
            ptrdiff_t outputs, const int counts, int32_t *sums)
{
    ptrdiff_t bytes = (outputs + 1) / 2, s = 0;
    st_ahead ahead = fetch_from((const void *const *)next, ST_INT8_ROWS, bytes);
    for (; 64 * s < bytes; s++, sums += ST_SPAN) {
        ptrdiff_t left = bytes - 64 * s;
        fetch_ahead((const void *const *)row, (const void *const *)next, ST_INT8_ROWS, 64 * s,
                    bytes, &ahead);
        __mmask64 mask = left < 64 ? ~(__mmask64)0 >> (64 - left) : ~(__mmask64)0;
        if (counts)
            add_counts_span(row, 64 * s, mask, folded, s, sums);
        else
            add_squares_span(row, 64 * s, mask, folded, s, sums);
    }
}

static __attribute__((noinline)) void add_squares_rows(const uint8_t *const *row,
                                                       const uint8_t *const *next,
                                                       const st_folded *folded, ptrdiff_t outputs,
                                                       int32_t *sums)
{
    add_outputs(row, next, folded, outputs, 0, sums);
}

static __attribute__((noinline)) void add_counts_rows(const uint8_t *const *row,
                                                      const uint8_t *const *next,
                                                      const st_folded *folded, ptrdiff_t outputs,
                                                      int32_t *sums)
{
    add_outputs(row, next, folded, outputs, 1, sums);
}

/* The span's sums in the order of its outputs, less what the codes + 8 add too much. */
static void settle_span(int32_t *sums, int32_t excess, int counts)
{
    const __m512i less = _mm512_set1_epi32(excess);
    const __m512i front = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i back = _mm512_add_epi32(front, _mm512_set1_epi32(8));
    __m512i even[4], odd[4];
    settle(sums, 128);
    for (int v = 0; v < 4; v++) {
        even[v] = _mm512_load_si512(sums + 16 * v);
        odd[v] = _mm512_load_si512(sums + 64 + 16 * v);
        if (counts) odd[v] = _mm512_srai_epi32(_mm512_sub_epi32(odd[v], even[v]), 4);
        even[v] = _mm512_sub_epi32(even[v], less);
        odd[v] = _mm512_sub_epi32(odd[v], less);
    }
    for (int v = 0; v < 4; v++) {
        _mm512_store_si512(sums + 32 * v, _mm512_permutex2var_epi32(even[v], front, odd[v]));
        _mm512_store_si512(sums + 32 * v + 16, _mm512_permutex2var_epi32(even[v], back, odd[v]));
    }
}

/* Multipliers of a row lie apart from its codes, in a line or two of their own. Always inlined: gcc
 * takes a function that only prefetches for one without effect, and drops its calls. */
static inline __attribute__((always_inline)) void fetch_multipliers(const st_rows *m, ptrdiff_t row,
                                                                    ptrdiff_t at, ptrdiff_t spans)
{
    const uint8_t *first = m->multiplier + row * m->multiplier_stride + at / ST_SPAN;
    _mm_prefetch((const char *)first, _MM_HINT_T0);
    _mm_prefetch((const char *)first + spans - 1, _MM_HINT_T0);
}

static inline __attribute__((always_inline)) void
sum_spans(const st_rows *m, const int32_t *index, const int16_t *value, ptrdiff_t begin,
          ptrdiff_t end, ptrdiff_t at, ptrdiff_t count, const int counts, int32_t *acc)
{
    ptrdiff_t spans = (count + ST_SPAN - 1) / ST_SPAN;
    const uint8_t *weight = (const uint8_t *)m->weight + at / 2;
    _Alignas(64) uint32_t total[ST_TILE_SPANS + 15] = {0};
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
            fold_four(m, rows + 4 * f, events + 4 * f, at / ST_SPAN, spans, counts, &folded[f],
                      total);
        (counts ? add_counts_rows : add_squares_rows)(row, next, folded, count, acc);
    }
    for (ptrdiff_t s = 0; s < spans; s++)
        settle_span(acc + s * ST_SPAN, (int32_t)(8 * total[s]), counts);
}

static void sum_squares_int4(const st_rows *m, const int32_t *index, const int16_t *value,
                             ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count,
                             int32_t *acc)
{
    sum_spans(m, index, value, begin, end, at, count, 0, acc);
}

static void sum_counts_int4(const st_rows *m, const int32_t *index, const int16_t *value,
                            ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count,
                            int32_t *acc)
{
    sum_spans(m, index, value, begin, end, at, count, 1, acc);
}

#else

static void sum_squares_int4(const st_rows *m, const int32_t *index, const int16_t *value,
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

static void rows_int4(const st_rows *m, const st_list *list, ptrdiff_t first, ptrdiff_t last,
                      float *y)
{
    multiply_parts(m, list, first, last, y, ST_SAFE_EVENT_SUM, sum_squares_int4);
}

static void counts_int4(const st_rows *m, const st_list *list, ptrdiff_t first, ptrdiff_t last,
                        float *y)
{
    multiply_parts(m, list, first, last, y, ST_SAFE_COUNT_SUM, sum_counts_int4);
}

/* Exact sums of events whose absolute values add up to a safe sum, for all outputs, rounded up to
 * spans. */
static void sum_events(const st_rows *m, int counts, const st_list *list, int32_t *sums)
{
    int is_int8 = m->format == ST_INT8;
    st_sum sum = is_int8  ? counts ? sum_counts_int8 : sum_values_int8
                 : counts ? sum_counts_int4
                          : sum_squares_int4;
    ptrdiff_t tile = even_tile(m->cols);
    for (ptrdiff_t at = 0; at < m->cols; at += tile)
        sum(m, list->index, list->value, 0, list->count, at, ST_MIN(tile, m->cols - at), sums + at);
}

/* Outputs from `parts` such sums, `stride` apart; overwrites the first of them. */
static void add_parts(const st_rows *m, int32_t *restrict sums, int parts, ptrdiff_t stride,
                      float unit, float *restrict y)
{
    for (int part = 1; part < parts; part++)
        for (ptrdiff_t o = 0; o < m->cols; o++) sums[o] += sums[part * stride + o];
    finish(sums, unit, m, 0, m->cols, y);
}
