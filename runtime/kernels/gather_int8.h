/* Event-driven int8 products with exact integer sums.
 *
 * Lists: events are 0 .. 32767, up to sixteen rows at a time. Dense: codes of several lanes, two rows
 * at a time. Accumulators are kept in the order in which the interleaving of rows leaves the
 * outputs, in blocks of ST_BLOCK, and put right once at the end (`settle`). */

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

/* How far the next rows are fetched: from `at` to the `end` of one of them, `rows` more after it. */
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
static inline __attribute__((always_inline)) void
fetch_ahead(const void *const *row, const void *const *next, const int rows, ptrdiff_t o,
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

/* Two rows' codes of 64 outputs as int16 pairs, in the order that `settle` expects: vector q, lane
 * L holds outputs 16 L + 4 q .. + 3. */
static inline __attribute__((always_inline)) void pair_codes(const int8_t *a, const int8_t *b,
                                                             __mmask64 mask, __m512i *pair)
{
    const __m512i order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
    /* 64-bit pieces 0 2 4 6 | 1 3 5 7: the low half then holds the first 8 outputs of each 16. */
    __m512i x = _mm512_permutexvar_epi64(order, load_codes(a, mask));
    __m512i y = _mm512_permutexvar_epi64(order, load_codes(b, mask));
    __m512i x0 = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(x));
    __m512i x1 = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(x, 1));
    __m512i y0 = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(y));
    __m512i y1 = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(y, 1));
    pair[0] = _mm512_unpacklo_epi16(x0, y0);
    pair[1] = _mm512_unpackhi_epi16(x0, y0);
    pair[2] = _mm512_unpacklo_epi16(x1, y1);
    pair[3] = _mm512_unpackhi_epi16(x1, y1);
}

static inline __attribute__((always_inline)) void add_pair_block(const int32_t *codes,
                                                                 ptrdiff_t lanes, const int8_t *r0,
                                                                 const int8_t *r1, __mmask64 mask,
                                                                 ptrdiff_t tile, int32_t *acc)
{
    __m512i pair[4];
    pair_codes(r0, r1, mask, pair);
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        int32_t *sum = acc + lane * tile;
        __m512i coef = _mm512_set1_epi32(codes[lane]);
        for (int q = 0; q < 4; q++) {
            __m512i s = _mm512_load_si512(sum + 16 * q);
            _mm512_store_si512(sum + 16 * q, _mm512_dpwssd_epi32(s, pair[q], coef));
        }
    }
}

static void add_pair(const int32_t *codes, ptrdiff_t lanes, const int8_t *r0, const int8_t *r1,
                     ptrdiff_t n, ptrdiff_t tile, int32_t *restrict acc)
{
    ptrdiff_t o = 0;
    for (; o + ST_BLOCK <= n; o += ST_BLOCK)
        add_pair_block(codes, lanes, r0 + o, r1 + o, ~(__mmask64)0, tile, acc + o);
    if (o < n)
        add_pair_block(codes, lanes, r0 + o, r1 + o, ~(__mmask64)0 >> (64 - (n - o)), tile,
                       acc + o);
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

static inline void add_pair_block(const int32_t *codes, ptrdiff_t lanes, const int8_t *r0,
                                  const int8_t *r1, ptrdiff_t tile, int32_t *acc)
{
    __m256i pair[2];
    pair_codes(r0, r1, pair);
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        __m256i *sum = (__m256i *)(acc + lane * tile);
        __m256i coef = _mm256_set1_epi32(codes[lane]);
        for (int q = 0; q < 2; q++) {
            __m256i product = _mm256_madd_epi16(pair[q], coef);
            _mm256_store_si256(sum + q, _mm256_add_epi32(_mm256_load_si256(sum + q), product));
        }
    }
}

static void add_pair(const int32_t *codes, ptrdiff_t lanes, const int8_t *r0, const int8_t *r1,
                     ptrdiff_t n, ptrdiff_t tile, int32_t *restrict acc)
{
    ptrdiff_t o = 0;
    for (; o + ST_BLOCK <= n; o += ST_BLOCK)
        add_pair_block(codes, lanes, r0 + o, r1 + o, tile, acc + o);
    if (o < n) {
        int8_t rest[2][ST_BLOCK] = {{0}};
        memcpy(rest[0], r0 + o, (size_t)(n - o));
        memcpy(rest[1], r1 + o, (size_t)(n - o));
        add_pair_block(codes, lanes, rest[0], rest[1], tile, acc + o);
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

static void add_pair(const int32_t *codes, ptrdiff_t lanes, const int8_t *r0, const int8_t *r1,
                     ptrdiff_t n, ptrdiff_t tile, int32_t *restrict acc)
{
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        int32_t *restrict sum = acc + lane * tile;
        int32_t v0 = (int16_t)(codes[lane] & 0xffff), v1 = (int16_t)(codes[lane] >> 16);
        for (ptrdiff_t o = 0; o < n; o++) sum[o] += v0 * r0[o] + v1 * r1[o];
    }
}

#endif

static void finish(const int32_t *restrict sum, float lane_scale, const float *restrict scale,
                   const float *restrict bias, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t o = 0; o < n; o++) {
        float value = (float)sum[o] * lane_scale;
        value = value * scale[o];
        out[o] = value + bias[o];
    }
}

static void finish_wide(const int64_t *restrict sum, const float *restrict scale,
                        const float *restrict bias, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t o = 0; o < n; o++) {
        float value = (float)sum[o] * scale[o];
        out[o] = value + bias[o];
    }
}

/* Whether the whole list adds up to no more than the safe sum. */
static int is_safe(const int16_t *value, ptrdiff_t n)
{
    int64_t sum = 0;
    for (ptrdiff_t e = 0; e < n; e++) sum += value[e];
    return sum <= ST_SAFE_EVENT_SUM;
}

/* The longest part of the list from `e` on whose events add up to no more than the safe sum. */
static ptrdiff_t safe_end(const int16_t *value, ptrdiff_t e, ptrdiff_t n)
{
    int64_t sum = 0;
    for (; e < n; e++) {
        sum += value[e];
        if (sum > ST_SAFE_EVENT_SUM) break;
    }
    return e;
}

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

static __attribute__((noinline)) void sum_wide(const int8_t *weight, ptrdiff_t stride,
                                               const int32_t *index, const int16_t *value,
                                               ptrdiff_t events, ptrdiff_t n, int32_t *acc,
                                               const float *scale, const float *bias, float *out)
{
    int64_t wide[ST_TILE];
    memset(wide, 0, (size_t)n * sizeof *wide);
    for (ptrdiff_t e = 0; e < events;) {
        ptrdiff_t end = safe_end(value, e, events);
        sum_part(weight, stride, index, value, e, end, n, acc);
        for (ptrdiff_t o = 0; o < n; o++) wide[o] += acc[o];
        e = end;
    }
    finish_wide(wide, scale, bias, n, out);
}

/* So many outputs in as few tiles as they need, all about as long, of whole spans. */
static ptrdiff_t even_tile(ptrdiff_t outputs)
{
    ptrdiff_t tiles = (outputs + ST_TILE - 1) / ST_TILE;
    if (tiles <= 1) return ST_TILE;
    return ((outputs + tiles - 1) / tiles + ST_SPAN - 1) / ST_SPAN * ST_SPAN;
}

static void gather_int8(const st_matrix *m, const int32_t *index, const int16_t *value,
                        ptrdiff_t n, ptrdiff_t first, ptrdiff_t last, float *out)
{
    _Alignas(64) int32_t acc[ST_TILE];
    int fits = is_safe(value, n);
    ptrdiff_t tile = even_tile(last - first);
    for (ptrdiff_t at = first; at < last; at += tile) {
        ptrdiff_t count = ST_MIN(tile, last - at);
        const int8_t *weight = (const int8_t *)m->weight + at;
        if (fits) {
            sum_part(weight, m->stride, index, value, 0, n, count, acc);
            finish(acc, 1.0f, m->scale + at, m->bias + at, count, out + at);
        } else {
            sum_wide(weight, m->stride, index, value, n, count, acc, m->scale + at, m->bias + at,
                     out + at);
        }
    }
}

static void dense_int8(const st_matrix *m, const st_codes *codes, const float *code_scale,
                       ptrdiff_t first, ptrdiff_t last, float *const *out)
{
    _Alignas(64) int32_t acc[ST_DENSE_BYTES / 4];
    const int8_t *weight = m->weight;
    ptrdiff_t lanes = codes->lanes, tile = ST_DENSE_BYTES / 4 / lanes / 64 * 64;
    for (ptrdiff_t at = first; at < last; at += tile) {
        ptrdiff_t count = ST_MIN(tile, last - at);
        ptrdiff_t padded = (count + ST_BLOCK - 1) / ST_BLOCK * ST_BLOCK;
        memset(acc, 0, (size_t)(lanes * tile) * sizeof *acc);
        for (ptrdiff_t g = 0; g < codes->groups; g++) {
            ptrdiff_t second = ST_MIN(2 * g + 1, m->rows - 1);
            ptrdiff_t later = ST_MIN(2 * g + 8, m->rows - 2 + m->rows % 2);
            const int8_t *next = weight + (later < 0 ? 0 : later) * m->stride + at;
            for (ptrdiff_t o = 0; o < count; o += 64) {
                __builtin_prefetch(next + o);
                __builtin_prefetch(next + m->stride + o);
            }
            add_pair(codes->pair + g * lanes, lanes, weight + 2 * g * m->stride + at,
                     weight + second * m->stride + at, count, tile, acc);
        }
        for (ptrdiff_t lane = 0; lane < lanes; lane++) {
            settle(acc + lane * tile, padded);
            finish(acc + lane * tile, code_scale[lane], m->scale + at, m->bias + at, count,
                   out[lane] + at);
        }
    }
}
