/* Event-driven products of a block of tokens that share rows: the rows that any token reads are
 * packed once for every 64 outputs, as in dense_int8.h, and multiplied with the tokens' events as
 * bytes. Rows' sums are those of the lists, being exact.
 *
 * Squares have two rows of unsigned bytes a token, low and high, which meet the weights as they
 * are: with the most rows (sharing.c) 255 * 128 * 65792 < 2^31. Counts have one of signed bytes,
 * which meets weights + 128; 128 times the counts' sum is where the sum starts, so 127 * 128 *
 * 131072 < 2^31 holds for the rest. */

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

/* Packed rows at a time: 128 KB, half of the second-level cache at the least. */
#define ST_PACKED_ROWS 2048
/* Tokens whose sums wait while the next rows are packed: 64 KB. */
#define ST_WAITING 256
/* Rows of which the first byte is asked for before they are packed. */
#define ST_FETCHED_AHEAD 32

/* What a nibble is worth as a byte, for every multiplier. */
static __m512i nibble_values(int multiplier)
{
    _Alignas(16) int8_t value[16];
    for (int code = 0; code < 16; code++) value[code] = (int8_t)((code - 8) * multiplier);
    return _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)value));
}

/* Outputs at .. at + count of a row as bytes, four by four in the order that interleaving undoes.
 */
static inline __attribute__((always_inline)) __m512i row_bytes(const st_rows *m, const int format,
                                                               int32_t row, ptrdiff_t at,
                                                               ptrdiff_t count,
                                                               const __m512i *values)
{
    const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i codes;
    if (format == ST_INT8) {
        const int8_t *from = (const int8_t *)m->weight + row * m->stride + at;
        codes = load_codes(from, ~(__mmask64)0 >> (64 - count));
    } else {
        const uint8_t *from = (const uint8_t *)m->weight + row * m->stride + at / 2;
        __mmask32 mask = ~(__mmask32)0 >> (32 - (count + 1) / 2);
        __m512i wide = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, from));
        const __m512i low = _mm512_set1_epi16(0x000f), high = _mm512_set1_epi16(0x0f00);
        wide = _mm512_or_si512(_mm512_and_si512(wide, low),
                               _mm512_and_si512(_mm512_slli_epi16(wide, 4), high));
        int multiplier = m->multiplier[row * m->multiplier_stride + at / ST_SPAN];
        codes = _mm512_shuffle_epi8(values[multiplier], wide);
    }
    return _mm512_permutexvar_epi32(order, codes);
}

static inline const char *row_at(const st_rows *m, int format, int32_t row, ptrdiff_t at)
{
    return (const char *)m->weight + row * m->stride + (format == ST_INT8 ? at : at / 2);
}

/* Rows that are packed next: products bring them to the second-level cache, `each` for every quad.
 */
typedef struct {
    const char *weight;
    ptrdiff_t stride, each;
    const int32_t *row, *end;
} st_rows_ahead;

static inline void fetch_ahead_of_packing(st_rows_ahead *ahead)
{
    for (ptrdiff_t k = 0; k < ahead->each && ahead->row < ahead->end; k++)
        _mm_prefetch(ahead->weight + *ahead->row++ * ahead->stride, _MM_HINT_T1);
}

static inline __attribute__((always_inline)) void
pack_format(const st_rows *m, const int format, const int32_t *row, ptrdiff_t rows, ptrdiff_t at,
            ptrdiff_t count, const __m512i *values, __m512i shift, uint8_t *quads)
{
    for (ptrdiff_t i = 0; i < rows; i += 4) {
        __m512i r[4];
        for (int k = 0; k < 4; k++)
            _mm_prefetch(row_at(m, format, row[ST_MIN(i + ST_FETCHED_AHEAD + k, rows - 1)], at),
                         _MM_HINT_T0);
        for (int k = 0; k < 4; k++)
            r[k] = i + k < rows ? row_bytes(m, format, row[i + k], at, count, values)
                                : _mm512_setzero_si512();
        for (int k = 0; k < 4; k++) r[k] = _mm512_xor_si512(r[k], shift);
        __m512i ab0 = _mm512_unpacklo_epi8(r[0], r[1]), ab1 = _mm512_unpackhi_epi8(r[0], r[1]);
        __m512i cd0 = _mm512_unpacklo_epi8(r[2], r[3]), cd1 = _mm512_unpackhi_epi8(r[2], r[3]);
        uint8_t *to = quads + i * ST_PANEL;
        _mm512_storeu_si512(to, _mm512_unpacklo_epi16(ab0, cd0));
        _mm512_storeu_si512(to + 64, _mm512_unpackhi_epi16(ab0, cd0));
        _mm512_storeu_si512(to + 128, _mm512_unpacklo_epi16(ab1, cd1));
        _mm512_storeu_si512(to + 192, _mm512_unpackhi_epi16(ab1, cd1));
    }
}

/* Quads of the rows `row` for 64 outputs; rows beyond the last are zeros. */
static void pack_rows(const st_rows *m, const int32_t *row, ptrdiff_t rows, ptrdiff_t at,
                      ptrdiff_t count, const __m512i *values, __m512i shift, uint8_t *quads)
{
    if (m->format == ST_INT8)
        pack_format(m, ST_INT8, row, rows, at, count, values, shift, quads);
    else
        pack_format(m, ST_INT4, row, rows, at, count, values, shift, quads);
}

/* sums + the products of four unsigned bytes `x` with their quads of signed weights `w`. */
static inline st_sums add_unsigned(st_sums sums, st_sums w, const uint8_t *x)
{
    __m512i quad = _mm512_set1_epi32(load_quad((const int8_t *)x));
    sums.a = _mm512_dpbusd_epi32(sums.a, quad, w.a);
    sums.b = _mm512_dpbusd_epi32(sums.b, quad, w.b);
    sums.c = _mm512_dpbusd_epi32(sums.c, quad, w.c);
    sums.d = _mm512_dpbusd_epi32(sums.d, quad, w.d);
    /* Nothing but: keep them in these registers. */
    __asm__("" : "+v"(sums.a), "+v"(sums.b), "+v"(sums.c), "+v"(sums.d));
    return sums;
}

/* acc[r] += the products of `rows` rows of bytes, `stride` apart, with the quads. */
static inline __attribute__((always_inline)) void
add_square_rows(const uint8_t *quads, ptrdiff_t count, const uint8_t *x, ptrdiff_t stride,
                const int rows, st_rows_ahead *ahead, int32_t (*acc)[ST_PANEL])
{
    st_sums r0 = load_sums(acc[0]), r1 = load_sums(acc[1]), r2 = load_sums(acc[2]);
    st_sums r3 = load_sums(acc[3]), r4 = load_sums(acc[4]), r5 = load_sums(acc[5]);
    for (ptrdiff_t q = 0; q < count; q++, x += 4) {
        st_sums w = load_sums(quads + q * 4 * ST_PANEL);
        fetch_ahead_of_packing(ahead);
        r0 = add_unsigned(r0, w, x);
        r1 = add_unsigned(r1, w, x + stride);
        r2 = add_unsigned(r2, w, x + 2 * stride);
        r3 = add_unsigned(r3, w, x + 3 * stride);
        if (rows == 4) continue;
        r4 = add_unsigned(r4, w, x + 4 * stride);
        r5 = add_unsigned(r5, w, x + 5 * stride);
    }
    store_sums(r0, acc[0]), store_sums(r1, acc[1]), store_sums(r2, acc[2]);
    store_sums(r3, acc[3]), store_sums(r4, acc[4]), store_sums(r5, acc[5]);
}

/* Four or six rows: two or three tokens. */
static __attribute__((noinline)) void add_squares(const uint8_t *quads, ptrdiff_t count,
                                                  const uint8_t *x, ptrdiff_t stride, int rows,
                                                  st_rows_ahead *ahead, int32_t (*acc)[ST_PANEL])
{
    if (rows == 4)
        add_square_rows(quads, count, x, stride, 4, ahead, acc);
    else
        add_square_rows(quads, count, x, stride, 6, ahead, acc);
}

/* The same of signed bytes and weights + 128, six rows at a time. */
static __attribute__((noinline)) void add_signed(const uint8_t *quads, ptrdiff_t count,
                                                 const uint8_t *bytes, ptrdiff_t stride, int rows,
                                                 st_rows_ahead *ahead, int32_t (*acc)[ST_PANEL])
{
    (void)rows;
    const int8_t *x = (const int8_t *)bytes;
    st_row_sums sums = {load_sums(acc[0]), load_sums(acc[1]), load_sums(acc[2]),
                        load_sums(acc[3]), load_sums(acc[4]), load_sums(acc[5])};
    for (ptrdiff_t q = 0; q < count; q++) {
        fetch_ahead_of_packing(ahead);
        add_rows_quad(&sums, load_sums(quads + q * 4 * ST_PANEL), x + 4 * q, stride, 6);
    }
    store_sums(sums.r0, acc[0]), store_sums(sums.r1, acc[1]), store_sums(sums.r2, acc[2]);
    store_sums(sums.r3, acc[3]), store_sums(sums.r4, acc[4]), store_sums(sums.r5, acc[5]);
}

/* y of one token: its rows of sums put together, times its unit, times each output's scale. */
static void finish_shared(int32_t (*acc)[ST_PANEL], int planes, float unit, const st_rows *m,
                          ptrdiff_t at, ptrdiff_t count, float *y)
{
    int64_t sum[ST_PANEL];
    if (planes == 1) {
        finish(acc[0], unit, m, at, count, y);
        return;
    }
    for (ptrdiff_t j = 0; j < count; j++) sum[j] = acc[0][j] + 256 * (int64_t)acc[1][j];
    finish_wide(sum, unit, m, at, count, y);
}

/* What is packed after the `part` rows i on for the outputs at .. last: rows that wait, or the
 * first ones for the next outputs. `lines`: rows of bytes that meet each quad meanwhile. */
static st_rows_ahead rows_after(const st_rows *m, const st_shared_bytes *shared, ptrdiff_t i,
                                ptrdiff_t part, ptrdiff_t at, ptrdiff_t last, ptrdiff_t lines)
{
    ptrdiff_t next = i + part < shared->rows ? i + part : 0, outputs = next ? at : at + ST_PANEL;
    ptrdiff_t rows = outputs < last ? ST_MIN(part, shared->rows - next) : 0;
    ptrdiff_t blocks = (lines + ST_ROWS - 1) / ST_ROWS;
    const int32_t *row = shared->row + next;
    return (st_rows_ahead){row_at(m, m->format, 0, outputs), m->stride, (3 + blocks) / blocks, row,
                           row + rows};
}

/* Rows to pack at a time: all, or equal parts of them, whole quads. */
static ptrdiff_t packed_rows(ptrdiff_t rows)
{
    ptrdiff_t parts = (rows + ST_PACKED_ROWS - 1) / ST_PACKED_ROWS;
    return parts ? ((rows + parts - 1) / parts + 3) / 4 * 4 : 0;
}

/* Tokens first_token on, at most ST_WAITING, with 64 outputs of those before `last`. */
static void multiply_waiting(const st_rows *m, const st_shared_bytes *shared, ptrdiff_t first_token,
                             ptrdiff_t at, ptrdiff_t last, const __m512i *values, float *y,
                             ptrdiff_t y_stride)
{
    _Alignas(64) uint8_t quads[ST_PACKED_ROWS * ST_PANEL];
    _Alignas(64) int32_t acc[2 * ST_WAITING + ST_ROWS][ST_PANEL];
    const int planes = shared->planes;
    const ptrdiff_t count = ST_MIN(ST_PANEL, last - at);
    const __m512i shift = planes == 1 ? _mm512_set1_epi8(-128) : _mm512_setzero_si512();
    ptrdiff_t tokens = ST_MIN(ST_WAITING, shared->tokens - first_token), lines = tokens * planes;
    memset(acc, 0, (size_t)(lines + ST_ROWS) * sizeof *acc);
    for (ptrdiff_t t = 0; planes == 1 && t < tokens; t++)
        store_sums(start_sums(-128 * shared->sum[first_token + t]), acc[t]);
    const ptrdiff_t part = packed_rows(shared->rows);
    for (ptrdiff_t i = 0; i < shared->rows; i += part) {
        ptrdiff_t rows = ST_MIN(part, shared->rows - i);
        st_rows_ahead ahead = rows_after(m, shared, i, part, at, last, lines);
        pack_rows(m, shared->row + i, rows, at, count, values, shift, quads);
        for (ptrdiff_t l = 0; l < lines; l += ST_ROWS) {
            const uint8_t *x = shared->bytes + (first_token * planes + l) * shared->stride + i;
            (planes == 1 ? add_signed : add_squares)(quads, (rows + 3) / 4, x, shared->stride,
                                                     lines - l <= 4 ? 4 : 6, &ahead, acc + l);
        }
    }
    for (ptrdiff_t t = 0; t < tokens; t++)
        finish_shared(acc + t * planes, planes, shared->unit[first_token + t], m, at, count,
                      y + (first_token + t) * y_stride + at);
}

static void multiply_shared(const st_rows *m, const st_shared_bytes *shared, ptrdiff_t first,
                            ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    __m512i values[16];
    for (int multiplier = 0; multiplier < 16; multiplier++)
        values[multiplier] = nibble_values(multiplier);
    for (ptrdiff_t at = first; at < last; at += ST_PANEL)
        for (ptrdiff_t t = 0; t < shared->tokens; t += ST_WAITING)
            multiply_waiting(m, shared, t, at, last, values, y, y_stride);
}

#else

/* Lists cost no more here. */
enum { multiply_shared = 0 };

#endif
