/* Event-driven int8 products of several lanes. Outputs are taken 64 at a time, with their sums in
 * registers: rows that one lane has read are in the second-level cache for the others, and those of
 * the next 64 outputs are fetched meanwhile, each once for all lanes. */

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

/* sums + the products of four events' bytes with their rows' quads. */
static inline __attribute__((always_inline)) st_sums add_bytes(st_sums sums, st_sums quads,
                                                               uint32_t bytes)
{
    __m512i four = _mm512_set1_epi32((int32_t)bytes);
    sums.a = _mm512_dpbusd_epi32(sums.a, four, quads.a);
    sums.b = _mm512_dpbusd_epi32(sums.b, four, quads.b);
    sums.c = _mm512_dpbusd_epi32(sums.c, four, quads.c);
    sums.d = _mm512_dpbusd_epi32(sums.d, four, quads.d);
    /* Nothing but: keep them in these registers. */
    __asm__("" : "+v"(sums.a), "+v"(sums.b), "+v"(sums.c), "+v"(sums.d));
    return sums;
}

/* Four rows interleaved, in the order that `settle` puts right. */
static inline __attribute__((always_inline)) st_sums
quads_of(const int8_t *weight, ptrdiff_t stride, const int32_t *index, __mmask64 mask)
{
    __m512i a = load_codes(weight + index[0] * stride, mask);
    __m512i b = load_codes(weight + index[1] * stride, mask);
    __m512i c = load_codes(weight + index[2] * stride, mask);
    __m512i d = load_codes(weight + index[3] * stride, mask);
    __m512i ab0 = _mm512_unpacklo_epi8(a, b), ab1 = _mm512_unpackhi_epi8(a, b);
    __m512i cd0 = _mm512_unpacklo_epi8(c, d), cd1 = _mm512_unpackhi_epi8(c, d);
    return (st_sums){_mm512_unpacklo_epi16(ab0, cd0), _mm512_unpackhi_epi16(ab0, cd0),
                     _mm512_unpacklo_epi16(ab1, cd1), _mm512_unpackhi_epi16(ab1, cd1)};
}

/* acc[64] = the sums of one lane; `mask` has a bit for each output that there is. */
static inline __attribute__((always_inline)) void
sum_fours(const int8_t *weight, ptrdiff_t stride, const st_list *list, __mmask64 mask, int32_t *acc)
{
    st_sums low = start_sums(0), high = start_sums(0);
    for (ptrdiff_t f = 0; f < (list->count + 3) / 4; f++) {
        st_sums quads = quads_of(weight, stride, list->index + 4 * f, mask);
        low = add_bytes(low, quads, list->low[f]);
        high = add_bytes(high, quads, list->high[f]);
    }
    low.a = _mm512_add_epi32(low.a, _mm512_slli_epi32(high.a, 8));
    low.b = _mm512_add_epi32(low.b, _mm512_slli_epi32(high.b, 8));
    low.c = _mm512_add_epi32(low.c, _mm512_slli_epi32(high.c, 8));
    low.d = _mm512_add_epi32(low.d, _mm512_slli_epi32(high.d, 8));
    store_sums(low, acc);
    settle(acc, ST_BLOCK);
}

/* The 64 outputs at `at` of one lane. */
static __attribute__((noinline)) void multiply_block(const st_rows *m, const st_list *list,
                                                     ptrdiff_t at, float *out)
{
    _Alignas(64) int32_t acc[ST_BLOCK];
    sum_fours((const int8_t *)m->weight + at, m->stride, list, ~(__mmask64)0, acc);
    finish(acc, list->unit, m, at, ST_BLOCK, out + at);
}

/* Fewer than that. */
static void multiply_rest(const st_rows *m, const st_list *list, ptrdiff_t at, ptrdiff_t count,
                          float *out)
{
    _Alignas(64) int32_t acc[ST_BLOCK];
    __mmask64 mask = ~(__mmask64)0 >> (ST_BLOCK - count);
    sum_fours((const int8_t *)m->weight + at, m->stride, list, mask, acc);
    finish(acc, list->unit, m, at, count, out + at);
}

static void fetch_rows(const st_rows *m, const int32_t *row, ptrdiff_t rows, ptrdiff_t at)
{
    const char *weight = (const char *)m->weight + at;
    for (ptrdiff_t i = 0; i < rows; i++) _mm_prefetch(weight + row[i] * m->stride, _MM_HINT_T1);
}

static void rows_int8_shared(const st_rows *m, const st_shared_lists *lists, ptrdiff_t first,
                             ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    ptrdiff_t lanes = lists->lanes;
    for (ptrdiff_t at = first; at < last; at += ST_BLOCK) {
        ptrdiff_t next = at + ST_BLOCK, rows = next < last ? lists->rows : 0;
        for (ptrdiff_t lane = 0; lane < lanes; lane++) {
            ptrdiff_t begin = rows * lane / lanes, end = rows * (lane + 1) / lanes;
            float *out = y + lists->lane[lane] * y_stride;
            fetch_rows(m, lists->row + begin, end - begin, next);
            if (next <= last)
                multiply_block(m, lists->list[lane], at, out);
            else
                multiply_rest(m, lists->list[lane], at, last - at, out);
        }
    }
}

#else

/* Strips of rows in turn cost no more here. */
enum { rows_int8_shared = 0 };

#endif
