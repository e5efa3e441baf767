/* Products of graded events and squares with int8 rows: exact integer sums, up to sixteen rows at a
 * time. Accumulators are kept in the order in which the interleaving of rows leaves the outputs, in
 * blocks of ST_BLOCK, and put right once at the end (`settle`). */

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define ST_BLOCK 64
#define ST_INT8_ROWS 16
#elif defined(__AVX2__)
#define ST_BLOCK 16
#define ST_INT8_ROWS 8
#else
#define ST_BLOCK 1
#define ST_INT8_ROWS 8
#endif

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

static inline __m512i load_codes(const int8_t *p, __mmask64 mask)
{
    return _mm512_maskz_loadu_epi8(mask, p);
}

/* acc[64] += value[k] * row[k] for four rows; high bytes go to `high`, to be shifted later.
 * An event is two unsigned bytes, low and high; four rows are interleaved so that one vpdpbusd
 * takes four rows' codes of an output. Output 16 L + 4 q + j ends in lane L of vector q. */
static inline __attribute__((always_inline)) void add_four(const int8_t *const *row, ptrdiff_t o,
                                                           __mmask64 mask, __m512i low_bytes,
                                                           __m512i high_bytes, __m512i *acc,
                                                           __m512i *high)
{
    __m512i a = load_codes(row[0] + o, mask), b = load_codes(row[1] + o, mask);
    __m512i c = load_codes(row[2] + o, mask), d = load_codes(row[3] + o, mask);
    __m512i ab0 = _mm512_unpacklo_epi8(a, b), ab1 = _mm512_unpackhi_epi8(a, b);
    __m512i cd0 = _mm512_unpacklo_epi8(c, d), cd1 = _mm512_unpackhi_epi8(c, d);
    __m512i quad[4] = {_mm512_unpacklo_epi16(ab0, cd0), _mm512_unpackhi_epi16(ab0, cd0),
                       _mm512_unpacklo_epi16(ab1, cd1), _mm512_unpackhi_epi16(ab1, cd1)};
    for (int q = 0; q < 4; q++) {
        acc[q] = _mm512_dpbusd_epi32(acc[q], low_bytes, quad[q]);
        high[q] = _mm512_dpbusd_epi32(high[q], high_bytes, quad[q]);
    }
}

/* `fours` groups of four rows; bytes holds their events' low and high bytes in turn. */
static inline __attribute__((always_inline)) void add_block(const int8_t *const *row, ptrdiff_t o,
                                                            __mmask64 mask, const __m512i *bytes,
                                                            int fours, int32_t *acc)
{
    __m512i sum[4], high[4];
    for (int q = 0; q < 4; q++) {
        sum[q] = _mm512_load_si512(acc + o + 16 * q);
        high[q] = _mm512_setzero_si512();
    }
    for (int f = 0; f < fours; f++)
        add_four(row + 4 * f, o, mask, bytes[2 * f], bytes[2 * f + 1], sum, high);
    for (int q = 0; q < 4; q++) {
        sum[q] = _mm512_add_epi32(sum[q], _mm512_slli_epi32(high[q], 8));
        _mm512_store_si512(acc + o + 16 * q, sum[q]);
    }
}

/* The low (shift 0) or high (shift 8) bytes of four events in every 32-bit lane. */
static inline __m512i event_bytes(const int16_t *value, int shift)
{
    uint32_t word = 0;
    for (int k = 0; k < 4; k++) {
        uint32_t event = (uint16_t)value[k];
        word |= ((event >> shift) & 0xff) << (8 * k);
    }
    return _mm512_set1_epi32((int32_t)word);
}

/* From this many outputs on the next rows are fetched one after another. */
#define ST_LONG_ROW 2048

/* Bytes before it is read at which a line is asked for again. */
#define ST_SOON 256

/* How far the next rows are fetched: from `at` to the `end` of one of them, `rows` more after it.
 */
typedef struct {
    const void *const *next;
    int rows;
    const char *at, *end;
    ptrdiff_t bytes;
} st_ahead;

static inline st_ahead fetch_from(const void *const *next, int rows, ptrdiff_t bytes)
{
    return (st_ahead){next + 1, rows - 1, next[0], (const char *)next[0] + bytes, bytes};
}

/* Fetches `lines` cache lines, row after row, so that the processor's own fetching joins in. */
static inline __attribute__((always_inline)) void fetch_lines(st_ahead *ahead, const int lines)
{
    const char *at = ahead->at, *end = ahead->end;
    for (int k = 0; k < lines; k++) {
        if (at >= end) {
            if (ahead->rows == 0) break;
            ahead->rows--;
            at = *ahead->next++;
            end = at + ahead->bytes;
        }
        _mm_prefetch(at, _MM_HINT_T1);
        at += 64;
    }
    ahead->at = at;
    ahead->end = end;
}

/* At every 64 bytes `o` of the present rows: fetches as many cache lines of the next ones as there
 * are rows, row after row where rows are long, else the same columns of all, which leaves each line
 * the same time (docs/performance.md). A processor that has as many lines under way as it can drops
 * what else it is asked for, so that lines are asked for again shortly before they are read. */
static inline __attribute__((always_inline)) void fetch_ahead(const void *const *row,
                                                              const void *const *next,
                                                              const int rows, ptrdiff_t o,
                                                              ptrdiff_t bytes, st_ahead *ahead)
{
    ptrdiff_t soon = o + ST_SOON;
    if (soon >= bytes) {
        soon -= (bytes + 63) / 64 * 64;
        row = next;
    }
    if (soon < bytes)
        for (int k = 0; k < rows; k++) _mm_prefetch((const char *)row[k] + soon, _MM_HINT_T1);
    if (bytes >= ST_LONG_ROW)
        fetch_lines(ahead, rows);
    else
        for (int k = 0; k < rows; k++) _mm_prefetch((const char *)next[k] + o, _MM_HINT_T1);
}

static inline __attribute__((always_inline)) void add_fours(const int8_t *const *row,
                                                            const int8_t *const *next,
                                                            const int16_t *value, int fours,
                                                            ptrdiff_t n, int32_t *restrict acc)
{
    __m512i bytes[ST_INT8_ROWS / 2];
    ptrdiff_t o = 0;
    st_ahead ahead = fetch_from((const void *const *)next, 4 * fours, n);
    for (int f = 0; f < fours; f++) {
        bytes[2 * f] = event_bytes(value + 4 * f, 0);
        bytes[2 * f + 1] = event_bytes(value + 4 * f, 8);
    }
    for (; o + ST_BLOCK <= n; o += ST_BLOCK) {
        fetch_ahead((const void *const *)row, (const void *const *)next, 4 * fours, o, n, &ahead);
        add_block(row, o, ~(__mmask64)0, bytes, fours, acc);
    }
    if (o < n) add_block(row, o, ~(__mmask64)0 >> (64 - (n - o)), bytes, fours, acc);
}

static void add_rows(const int8_t *const *row, const int8_t *const *next, const int16_t *value,
                     ptrdiff_t rows, ptrdiff_t n, int32_t *restrict acc)
{
    if (rows <= ST_INT8_ROWS / 2)
        add_fours(row, next, value, ST_INT8_ROWS / 8, n, acc);
    else
        add_fours(row, next, value, ST_INT8_ROWS / 4, n, acc);
}

static void settle(int32_t *acc, ptrdiff_t n)
{
    for (ptrdiff_t o = 0; o < n; o += ST_BLOCK) {
        __m512i a = _mm512_load_si512(acc + o), b = _mm512_load_si512(acc + o + 16);
        __m512i c = _mm512_load_si512(acc + o + 32), d = _mm512_load_si512(acc + o + 48);
        __m512i ab0 = _mm512_shuffle_i32x4(a, b, 0x44), ab1 = _mm512_shuffle_i32x4(a, b, 0xee);
        __m512i cd0 = _mm512_shuffle_i32x4(c, d, 0x44), cd1 = _mm512_shuffle_i32x4(c, d, 0xee);
        _mm512_store_si512(acc + o, _mm512_shuffle_i32x4(ab0, cd0, 0x88));
        _mm512_store_si512(acc + o + 16, _mm512_shuffle_i32x4(ab0, cd0, 0xdd));
        _mm512_store_si512(acc + o + 32, _mm512_shuffle_i32x4(ab1, cd1, 0x88));
        _mm512_store_si512(acc + o + 48, _mm512_shuffle_i32x4(ab1, cd1, 0xdd));
    }
}

#elif defined(__AVX2__)

static inline __m256i event_pair(int16_t low, int16_t high)
{
    return _mm256_set1_epi32((int32_t)((uint32_t)(uint16_t)low | (uint32_t)(uint16_t)high << 16));
}

/* Two rows' codes of 16 outputs as int16 pairs: outputs 0-3, 8-11 and 4-7, 12-15. */
static inline void pair_codes(const int8_t *a, const int8_t *b, __m256i *pair)
{
    __m256i x = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)a));
    __m256i y = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)b));
    pair[0] = _mm256_unpacklo_epi16(x, y);
    pair[1] = _mm256_unpackhi_epi16(x, y);
}

static inline void add_block(const int8_t *const *row, ptrdiff_t o, const __m256i *events,
                             int32_t *acc)
{
    __m256i sum0 = _mm256_load_si256((const __m256i *)acc);
    __m256i sum1 = _mm256_load_si256((const __m256i *)(acc + 8));
    for (int k = 0; k < ST_INT8_ROWS; k += 2) {
        __m256i pair[2];
        pair_codes(row[k] + o, row[k + 1] + o, pair);
        sum0 = _mm256_add_epi32(sum0, _mm256_madd_epi16(pair[0], events[k / 2]));
        sum1 = _mm256_add_epi32(sum1, _mm256_madd_epi16(pair[1], events[k / 2]));
    }
    _mm256_store_si256((__m256i *)acc, sum0);
    _mm256_store_si256((__m256i *)(acc + 8), sum1);
}

static void add_rows(const int8_t *const *row, const int8_t *const *next, const int16_t *value,
                     ptrdiff_t rows, ptrdiff_t n, int32_t *restrict acc)
{
    (void)rows;
    const __m256i events[4] = {event_pair(value[0], value[1]), event_pair(value[2], value[3]),
                               event_pair(value[4], value[5]), event_pair(value[6], value[7])};
    ptrdiff_t o = 0;
    for (; o + ST_BLOCK <= n; o += ST_BLOCK) {
        if (o % 64 == 0)
            for (int k = 0; k < ST_INT8_ROWS; k++)
                _mm_prefetch((const char *)(next[k] + o), _MM_HINT_T1);
        add_block(row, o, events, acc + o);
    }
    if (o < n) {
        int8_t rest[ST_INT8_ROWS][ST_BLOCK] = {{0}};
        const int8_t *part[ST_INT8_ROWS];
        for (int k = 0; k < ST_INT8_ROWS; k++) {
            memcpy(rest[k], row[k] + o, (size_t)(n - o));
            part[k] = rest[k];
        }
        add_block(part, 0, events, acc + o);
    }
}

static void settle(int32_t *acc, ptrdiff_t n)
{
    for (ptrdiff_t o = 0; o < n; o += ST_BLOCK) {
        __m256i a = _mm256_load_si256((const __m256i *)(acc + o));
        __m256i b = _mm256_load_si256((const __m256i *)(acc + o + 8));
        _mm256_store_si256((__m256i *)(acc + o), _mm256_permute2x128_si256(a, b, 0x20));
        _mm256_store_si256((__m256i *)(acc + o + 8), _mm256_permute2x128_si256(a, b, 0x31));
    }
}

#else

static void add_rows(const int8_t *const *row, const int8_t *const *next, const int16_t *value,
                     ptrdiff_t rows, ptrdiff_t n, int32_t *restrict acc)
{
    for (int k = 0; k < rows; k += 4) {
        const int8_t *restrict a = row[k], *restrict b = row[k + 1];
        const int8_t *restrict c = row[k + 2], *restrict d = row[k + 3];
        int32_t va = value[k], vb = value[k + 1], vc = value[k + 2], vd = value[k + 3];
        for (ptrdiff_t o = 0; o < n; o += 64)
            for (int j = k; j < k + 4; j++) __builtin_prefetch(next[j] + o);
        for (ptrdiff_t o = 0; o < n; o++) acc[o] += va * a[o] + vb * b[o] + vc * c[o] + vd * d[o];
    }
}

static void settle(int32_t *acc, ptrdiff_t n)
{
    (void)acc;
    (void)n;
}

#endif

/* acc[0 .. n) = sums of the rows of events begin .. end; the last group repeats its last row with
 * events of zero. */
static void sum_part(const int8_t *weight, ptrdiff_t stride, const int32_t *index,
                     const int16_t *value, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t n,
                     int32_t *acc)
{
    ptrdiff_t padded = (n + ST_BLOCK - 1) / ST_BLOCK * ST_BLOCK;
    memset(acc, 0, (size_t)padded * sizeof *acc);
    for (ptrdiff_t e = begin; e < end; e += ST_INT8_ROWS) {
        const int8_t *row[ST_INT8_ROWS], *next[ST_INT8_ROWS];
        int16_t events[ST_INT8_ROWS];
        for (int k = 0; k < ST_INT8_ROWS; k++) {
            ptrdiff_t here = ST_MIN(e + k, end - 1);
            ptrdiff_t later = ST_MIN(e + ST_INT8_ROWS + k, end - 1);
            row[k] = weight + index[here] * stride;
            next[k] = weight + index[later] * stride;
            events[k] = e + k < end ? value[here] : 0;
        }
        add_rows(row, next, events, ST_MIN(ST_INT8_ROWS, end - e), n, acc);
    }
    settle(acc, padded);
}

static void sum_values_int8(const st_rows *m, const int32_t *index, const int16_t *value,
                            ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count,
                            int32_t *acc)
{
    sum_part((const int8_t *)m->weight + at, m->stride, index, value, begin, end, count, acc);
}

static void rows_int8(const st_rows *m, const st_list *list, ptrdiff_t first, ptrdiff_t last,
                      float *y)
{
    multiply_parts(m, list, first, last, y, ST_SAFE_EVENT_SUM, sum_values_int8);
}
