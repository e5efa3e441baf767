/* Dense int8 products over packed panels: exact int32 sums. With AVX-512 the codes + 128 of the
 * weights are the unsigned side of vpdpbusd; with AVX2 vpmaddubsw takes the inputs' absolute values
 * and the weights with the inputs' signs: 2 * 127 * 127 fits its 16 bits. */

static inline int32_t load_quad(const int8_t *x)
{
    int32_t quad;
    memcpy(&quad, x, sizeof quad);
    return quad;
}

/* y = sum * row_scale * scale for the outputs of one panel, or as many as there are. */
static void finish_panel(const int32_t *restrict acc, float row_scale, const float *restrict scale,
                         ptrdiff_t n, float *restrict y)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        float value = (float)acc[j] * row_scale;
        y[j] = value * scale[j];
    }
}

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

/* Rows of the input that one pass over a panel serves: 24 accumulators. */
#define ST_ROWS 6

/* What the codes + 128 of the weights add too much: 128 times the sum of a row's codes. */
static int32_t excess(int32_t total)
{
    return (int32_t)((uint32_t)total * 128);
}

/* One value for each output of a panel. Rows' sums are named, not elements of an array, which the
 * compiler would keep in memory as well. */
typedef struct {
    __m512i a, b, c, d;
} st_sums;

static inline st_sums start_sums(int32_t value)
{
    __m512i all = _mm512_set1_epi32(value);
    return (st_sums){all, all, all, all};
}

static inline st_sums load_sums(const void *from)
{
    const uint8_t *at = from;
    return (st_sums){_mm512_loadu_si512(at), _mm512_loadu_si512(at + 64),
                     _mm512_loadu_si512(at + 128), _mm512_loadu_si512(at + 192)};
}

static inline void store_sums(st_sums sums, void *to)
{
    uint8_t *at = to;
    _mm512_storeu_si512(at, sums.a);
    _mm512_storeu_si512(at + 64, sums.b);
    _mm512_storeu_si512(at + 128, sums.c);
    _mm512_storeu_si512(at + 192, sums.d);
}

/* sums + the products of four inputs' codes `x` with their quads of weights `w`. */
static inline st_sums add_quad(st_sums sums, st_sums w, const int8_t *x)
{
    __m512i quad = _mm512_set1_epi32(load_quad(x));
    sums.a = _mm512_dpbusd_epi32(sums.a, w.a, quad);
    sums.b = _mm512_dpbusd_epi32(sums.b, w.b, quad);
    sums.c = _mm512_dpbusd_epi32(sums.c, w.c, quad);
    sums.d = _mm512_dpbusd_epi32(sums.d, w.d, quad);
    /* Nothing but: keep them in these registers. */
    __asm__("" : "+v"(sums.a), "+v"(sums.b), "+v"(sums.c), "+v"(sums.d));
    return sums;
}

/* Sums of up to ST_ROWS rows. */
typedef struct {
    st_sums r0, r1, r2, r3, r4, r5;
} st_row_sums;

static inline __attribute__((always_inline)) st_row_sums start_rows(const int32_t *excess_of,
                                                                    const int rows)
{
    st_row_sums sums;
    sums.r0 = start_sums(-excess_of[0]);
    sums.r1 = start_sums(rows > 1 ? -excess_of[1] : 0);
    sums.r2 = start_sums(rows > 2 ? -excess_of[2] : 0);
    sums.r3 = start_sums(rows > 3 ? -excess_of[3] : 0);
    sums.r4 = start_sums(rows > 4 ? -excess_of[4] : 0);
    sums.r5 = start_sums(rows > 5 ? -excess_of[5] : 0);
    return sums;
}

static inline __attribute__((always_inline)) void
add_rows_quad(st_row_sums *sums, st_sums w, const int8_t *x, ptrdiff_t x_stride, const int rows)
{
    sums->r0 = add_quad(sums->r0, w, x);
    if (rows > 1) sums->r1 = add_quad(sums->r1, w, x + x_stride);
    if (rows > 2) sums->r2 = add_quad(sums->r2, w, x + 2 * x_stride);
    if (rows > 3) sums->r3 = add_quad(sums->r3, w, x + 3 * x_stride);
    if (rows > 4) sums->r4 = add_quad(sums->r4, w, x + 4 * x_stride);
    if (rows > 5) sums->r5 = add_quad(sums->r5, w, x + 5 * x_stride);
}

/* Cache lines of a quad of a panel. */
#define ST_QUAD_LINES 4
/* Tokens up to which the processor fetches panels about as fast by itself (measured). */
#define ST_FEW_TOKENS 4

/* The part of the next panel that a block of rows brings to the second-level cache: so many lines
 * for every quad. */
typedef struct {
    const uint8_t *at;
    int lines;
} st_panel_ahead;

/* Lines for every quad with which `blocks` blocks of rows fetch a whole panel, or some of it. */
static int lines_ahead(ptrdiff_t blocks, ptrdiff_t tokens)
{
    if (tokens <= ST_FEW_TOKENS) return tokens > 1;
    return (int)((ST_QUAD_LINES + ST_MIN(blocks, ST_QUAD_LINES) - 1) /
                 ST_MIN(blocks, ST_QUAD_LINES));
}

/* out[r] = exact sums of `rows` rows, `x_stride` apart, with one panel; `ahead` is fetched
 * meanwhile. One row reads a single stream that the processor itself fetches best. */
static inline __attribute__((always_inline)) void
sum_panel(const uint8_t *panel, ptrdiff_t quads, const int8_t *x, ptrdiff_t x_stride,
          const int32_t *start, const int rows, st_panel_ahead ahead, int32_t (*out)[ST_PANEL])
{
    st_row_sums sums = start_rows(start, rows);
    for (ptrdiff_t q = 0; q < quads; q++) {
        st_sums w = load_sums(panel + q * 4 * ST_PANEL);
        for (int l = 0; rows > 1 && l < ahead.lines; l++, ahead.at += 64)
            _mm_prefetch((const char *)ahead.at, _MM_HINT_T1);
        add_rows_quad(&sums, w, x + 4 * q, x_stride, rows);
    }
    store_sums(sums.r0, out[0]);
    if (rows > 1) store_sums(sums.r1, out[1]);
    if (rows > 2) store_sums(sums.r2, out[2]);
    if (rows > 3) store_sums(sums.r3, out[3]);
    if (rows > 4) store_sums(sums.r4, out[4]);
    if (rows > 5) store_sums(sums.r5, out[5]);
}

static __attribute__((noinline)) void sum_rows(const uint8_t *panel, ptrdiff_t quads,
                                               const int8_t *x, ptrdiff_t x_stride,
                                               const int32_t *start, ptrdiff_t rows,
                                               st_panel_ahead ahead, int32_t (*out)[ST_PANEL])
{
    switch (rows) {
    case 1:
        sum_panel(panel, quads, x, x_stride, start, 1, ahead, out);
        break;
    case 2:
        sum_panel(panel, quads, x, x_stride, start, 2, ahead, out);
        break;
    case 3:
        sum_panel(panel, quads, x, x_stride, start, 3, ahead, out);
        break;
    case 4:
        sum_panel(panel, quads, x, x_stride, start, 4, ahead, out);
        break;
    case 5:
        sum_panel(panel, quads, x, x_stride, start, 5, ahead, out);
        break;
    default:
        sum_panel(panel, quads, x, x_stride, start, 6, ahead, out);
        break;
    }
}

static void multiply_int8(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                          ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    ptrdiff_t quads = (m->inputs + 3) / 4, tokens = input->tokens;
    ptrdiff_t blocks = (tokens + ST_ROWS - 1) / ST_ROWS, t = 0, rows;
    const int lines = lines_ahead(blocks, tokens);
    for (ptrdiff_t at = first; at < last; at += ST_PANEL) {
        const uint8_t *panel = m->panel + at / ST_PANEL * m->panel_stride;
        ptrdiff_t count = ST_MIN(ST_PANEL, last - at);
        t = 0;
        for (ptrdiff_t b = 0; b < blocks; b++, t += rows) {
            int32_t start[ST_ROWS], acc[ST_ROWS][ST_PANEL];
            rows = (tokens - t + blocks - b - 1) / (blocks - b);
            st_panel_ahead ahead = {panel + m->panel_stride + b * lines * quads * 64, lines};
            if (b * lines >= ST_QUAD_LINES) ahead.lines = 0;
            for (ptrdiff_t r = 0; r < rows; r++) start[r] = excess(input->total[t + r]);
            sum_rows(panel, quads, input->codes + t * input->stride, input->stride, start, rows,
                     ahead, acc);
            for (ptrdiff_t r = 0; r < rows; r++) {
                float *to = y + (t + r) * y_stride + at;
                if (count == ST_PANEL) /* of a known size: without a remainder */
                    finish_panel(acc[r], input->scale[t + r], m->scale + at, ST_PANEL, to);
                else
                    finish_panel(acc[r], input->scale[t + r], m->scale + at, count, to);
            }
        }
    }
}

#else

#if defined(__AVX2__)

/* acc[64] of one row: 32 outputs at a time, an accumulator for every eight. */
static void sum_row(const uint8_t *panel, ptrdiff_t quads, const int8_t *x, int32_t *acc)
{
    const __m256i shift = _mm256_set1_epi8(-128), ones = _mm256_set1_epi16(1);
    for (int half = 0; half < 2; half++) {
        __m256i sum[4];
        for (int v = 0; v < 4; v++) sum[v] = _mm256_setzero_si256();
        for (ptrdiff_t q = 0; q < quads; q++) {
            const uint8_t *at = panel + q * 4 * ST_PANEL + 128 * half;
            __m256i quad = _mm256_set1_epi32(load_quad(x + 4 * q));
            __m256i size = _mm256_abs_epi8(quad);
            for (int v = 0; v < 4; v++) {
                __m256i w = _mm256_loadu_si256((const __m256i *)(at + 32 * v));
                w = _mm256_sign_epi8(_mm256_xor_si256(w, shift), quad);
                w = _mm256_madd_epi16(_mm256_maddubs_epi16(size, w), ones);
                sum[v] = _mm256_add_epi32(sum[v], w);
            }
        }
        for (int v = 0; v < 4; v++)
            _mm256_storeu_si256((__m256i *)(acc + 32 * half + 8 * v), sum[v]);
    }
}

#else

static void sum_row(const uint8_t *panel, ptrdiff_t quads, const int8_t *x, int32_t *acc)
{
    memset(acc, 0, ST_PANEL * sizeof *acc);
    for (ptrdiff_t q = 0; q < quads; q++) {
        const uint8_t *w = panel + q * 4 * ST_PANEL;
        for (int j = 0; j < ST_PANEL; j++)
            for (int k = 0; k < 4; k++) acc[j] += (w[4 * j + k] - 128) * x[4 * q + k];
    }
}

#endif

static void multiply_int8(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                          ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    for (ptrdiff_t at = first; at < last; at += ST_PANEL) {
        const uint8_t *panel = m->panel + at / ST_PANEL * m->panel_stride;
        for (ptrdiff_t t = 0; t < input->tokens; t++) {
            int32_t acc[ST_PANEL];
            sum_row(panel, (m->inputs + 3) / 4, input->codes + t * input->stride, acc);
            finish_panel(acc, input->scale[t], m->scale + at, ST_MIN(ST_PANEL, last - at),
                         y + t * y_stride + at);
        }
    }
}

#endif
