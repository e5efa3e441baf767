/* Dense int4 products over packed panels: exact sums over groups of inputs, added in float32.
 *
 * Codes + 8 are the unsigned side of vpdpbusd and vpmaddubsw; 8 times the sum of the inputs' codes
 * is taken off again. With AVX2 a group of eight pairs fits 16 bits: 8 * 2 * 15 * 127 = 30480. */

/* Bytes of one group in a panel: scales, then codes. */
static ptrdiff_t group_bytes(const st_dense *m)
{
    return (m->group / 2 + 2) * ST_PANEL;
}

/* 8 times the sum of the codes of one group. */
static inline int32_t group_excess(const st_dense *m, const int32_t *sum, ptrdiff_t g)
{
    if (m->group == ST_GROUP) return 8 * sum[g];
    return 8 * (sum[2 * g] + sum[2 * g + 1]);
}

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

/* Inputs that are unpacked at a time, for all tokens: 16 KB of the first-level cache. */
#define ST_UNPACKED 256
/* Tokens whose float sums wait meanwhile. */
#define ST_TOKENS 128
/* Rows whose integer and float sums both stay in registers: 24 of them. */
#define ST_INT4_ROWS 3

static inline __m512 widen_scale(const uint16_t *scale)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)scale));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline __m512 add_scaled(__m512 acc, __m512i sum, __m512 scale)
{
    return _mm512_add_ps(acc, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
}

/* One row with one panel, straight from the nibbles: the high ones count sixteenfold in their own
 * sums until the group's end. */
static inline __attribute__((always_inline)) void multiply_row(const st_dense *m,
                                                               const uint8_t *panel,
                                                               const int8_t *x, const int32_t *sum,
                                                               const int eights, float *out)
{
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(-16);
    ptrdiff_t groups = (m->inputs + 8 * eights - 1) / (8 * eights);
    __m512 acc[4];
    for (int v = 0; v < 4; v++) acc[v] = _mm512_setzero_ps();
    for (ptrdiff_t g = 0; g < groups; g++) {
        const uint8_t *at = panel + g * (4 * eights + 2) * ST_PANEL;
        const uint16_t *scale = (const uint16_t *)at;
        __m512i part[4], other[4];
        for (int v = 0; v < 4; v++) {
            part[v] = _mm512_set1_epi32(-group_excess(m, sum, g));
            other[v] = _mm512_setzero_si512();
        }
        at += 2 * ST_PANEL;
        for (int e = 0; e < eights; e++) {
            const int8_t *from = x + (g * eights + e) * 8;
            __m512i x0 = _mm512_set1_epi32(load_quad(from));
            __m512i x1 = _mm512_set1_epi32(load_quad(from + 4));
            for (int v = 0; v < 4; v++) {
                const uint8_t *place = at + (e * 4 + v) * 64;
                __m512i w = _mm512_loadu_si512(place);
                part[v] = _mm512_dpbusd_epi32(part[v], _mm512_and_si512(w, low), x0);
                other[v] = _mm512_dpbusd_epi32(other[v], _mm512_and_si512(w, high), x1);
            }
        }
        for (int v = 0; v < 4; v++)
            acc[v] = add_scaled(acc[v], _mm512_add_epi32(part[v], _mm512_srai_epi32(other[v], 4)),
                                widen_scale(scale + 16 * v));
    }
    for (int v = 0; v < 4; v++) _mm512_storeu_ps(out + 16 * v, acc[v]);
}

/* The codes + 8 of one group as quads of bytes. */
static void unpack_group(const uint8_t *packed, ptrdiff_t eights, uint8_t *quads)
{
    const __m512i low = _mm512_set1_epi8(15);
    for (ptrdiff_t e = 0; e < eights; e++) {
        for (int v = 0; v < 4; v++) {
            __m512i w = _mm512_loadu_si512(packed + (e * 4 + v) * 64);
            uint8_t *to = quads + e * 8 * ST_PANEL + v * 64;
            _mm512_storeu_si512(to, _mm512_and_si512(w, low));
            w = _mm512_and_si512(_mm512_srli_epi16(w, 4), low);
            _mm512_storeu_si512(to + 4 * ST_PANEL, w);
        }
    }
}

/* Float sums of one row. */
typedef struct {
    __m512 a, b, c, d;
} st_float_sums;

static inline st_float_sums load_float_sums(const float *at)
{
    return (st_float_sums){_mm512_loadu_ps(at), _mm512_loadu_ps(at + 16), _mm512_loadu_ps(at + 32),
                           _mm512_loadu_ps(at + 48)};
}

static inline void store_float_sums(st_float_sums sums, float *at)
{
    _mm512_storeu_ps(at, sums.a);
    _mm512_storeu_ps(at + 16, sums.b);
    _mm512_storeu_ps(at + 32, sums.c);
    _mm512_storeu_ps(at + 48, sums.d);
}

static inline st_float_sums add_group(st_float_sums acc, st_sums sums, const float *scale)
{
    st_float_sums s = load_float_sums(scale);
    acc.a = add_scaled(acc.a, sums.a, s.a);
    acc.b = add_scaled(acc.b, sums.b, s.b);
    acc.c = add_scaled(acc.c, sums.c, s.c);
    acc.d = add_scaled(acc.d, sums.d, s.d);
    return acc;
}

/* Groups of inputs, unpacked, with their scales. */
typedef struct {
    ptrdiff_t groups;
    int quads, sums; /* of a group: quads of inputs, and inputs' sums */
    const uint8_t *codes;
    const float *scale;
} st_unpacked;

static inline int32_t start_of(const st_unpacked *w, const int32_t *sum, ptrdiff_t g)
{
    return -8 * (w->sums == 1 ? sum[g] : sum[2 * g] + sum[2 * g + 1]);
}

/* out[r] += the products of `rows` rows with the groups. */
static inline __attribute__((always_inline)) void add_groups(const st_unpacked *w, const int8_t *x,
                                                             ptrdiff_t x_stride, const int32_t *sum,
                                                             ptrdiff_t sum_stride, const int rows,
                                                             float (*out)[ST_PANEL])
{
    st_float_sums f0 = load_float_sums(out[0]), f1 = f0, f2 = f0;
    if (rows > 1) f1 = load_float_sums(out[1]);
    if (rows > 2) f2 = load_float_sums(out[2]);
    for (ptrdiff_t g = 0; g < w->groups; g++) {
        const uint8_t *codes = w->codes + g * w->quads * 4 * ST_PANEL;
        st_sums s0 = start_sums(start_of(w, sum, g)), s1 = s0, s2 = s0;
        if (rows > 1) s1 = start_sums(start_of(w, sum + sum_stride, g));
        if (rows > 2) s2 = start_sums(start_of(w, sum + 2 * sum_stride, g));
        for (int q = 0; q < w->quads; q++, x += 4) {
            st_sums quad = load_sums(codes + q * 4 * ST_PANEL);
            s0 = add_quad(s0, quad, x);
            if (rows > 1) s1 = add_quad(s1, quad, x + x_stride);
            if (rows > 2) s2 = add_quad(s2, quad, x + 2 * x_stride);
        }
        f0 = add_group(f0, s0, w->scale + g * ST_PANEL);
        if (rows > 1) f1 = add_group(f1, s1, w->scale + g * ST_PANEL);
        if (rows > 2) f2 = add_group(f2, s2, w->scale + g * ST_PANEL);
    }
    store_float_sums(f0, out[0]);
    if (rows > 1) store_float_sums(f1, out[1]);
    if (rows > 2) store_float_sums(f2, out[2]);
}

static __attribute__((noinline)) void add_rows_groups(const st_unpacked *w, const int8_t *x,
                                                      ptrdiff_t x_stride, const int32_t *sum,
                                                      ptrdiff_t sum_stride, ptrdiff_t rows,
                                                      float (*out)[ST_PANEL])
{
    switch (rows) {
    case 1:
        add_groups(w, x, x_stride, sum, sum_stride, 1, out);
        break;
    case 2:
        add_groups(w, x, x_stride, sum, sum_stride, 2, out);
        break;
    default:
        add_groups(w, x, x_stride, sum, sum_stride, 3, out);
        break;
    }
}

/* Up to ST_TOKENS rows with one panel: groups are unpacked once for all of them. */
static void multiply_tokens(const st_dense *m, const st_dense_input *input, const uint8_t *panel,
                            ptrdiff_t begin, ptrdiff_t tokens, float (*acc)[ST_PANEL])
{
    _Alignas(64) uint8_t codes[ST_UNPACKED * ST_PANEL];
    _Alignas(64) float scale[ST_UNPACKED / ST_GROUP * ST_PANEL];
    const ptrdiff_t groups = (m->inputs + m->group - 1) / m->group;
    const ptrdiff_t sums = m->group / ST_GROUP, sum_stride = input->stride / ST_GROUP;
    st_unpacked w = {0, (int)m->group / 4, (int)sums, codes, scale};
    memset(acc, 0, (size_t)tokens * sizeof *acc);
    for (ptrdiff_t g = 0; g < groups; g += w.groups) {
        w.groups = ST_MIN(ST_UNPACKED / m->group, groups - g);
        for (ptrdiff_t i = 0; i < w.groups; i++) {
            const uint8_t *packed = panel + (g + i) * group_bytes(m);
            for (int v = 0; v < 4; v++)
                _mm512_store_ps(scale + i * ST_PANEL + 16 * v,
                                widen_scale((const uint16_t *)packed + 16 * v));
            unpack_group(packed + 2 * ST_PANEL, m->group / 8, codes + i * m->group * ST_PANEL);
        }
        for (ptrdiff_t t = 0; t < tokens; t += ST_INT4_ROWS)
            add_rows_groups(&w, input->codes + (begin + t) * input->stride + g * m->group,
                            input->stride, input->sum + (begin + t) * sum_stride + g * sums,
                            sum_stride, tokens - t, acc + t);
    }
}

static void multiply_int4(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                          ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    _Alignas(64) float acc[ST_TOKENS][ST_PANEL];
    for (ptrdiff_t at = first; at < last; at += ST_PANEL) {
        const uint8_t *panel = m->panel + at / ST_PANEL * m->panel_stride;
        ptrdiff_t count = ST_MIN(ST_PANEL, last - at);
        for (ptrdiff_t t = 0; t < input->tokens; t += ST_TOKENS) {
            ptrdiff_t tokens = ST_MIN(ST_TOKENS, input->tokens - t);
            if (tokens > 1)
                multiply_tokens(m, input, panel, t, tokens, acc);
            else if (m->group == ST_GROUP)
                multiply_row(m, panel, input->codes + t * input->stride,
                             input->sum + t * input->stride / ST_GROUP, ST_GROUP / 8, acc[0]);
            else
                multiply_row(m, panel, input->codes + t * input->stride,
                             input->sum + t * input->stride / ST_GROUP, ST_GROUP / 4, acc[0]);
            for (ptrdiff_t r = 0; r < tokens; r++) {
                float *to = y + (t + r) * y_stride + at, scale = input->scale[t + r];
                for (ptrdiff_t j = 0; j < count; j++) to[j] = acc[r][j] * scale;
            }
        }
    }
}

#else

#if defined(__AVX2__)

/* Sums of codes + 8 over one group of 32 inputs. */
static void sum_group(const uint8_t *packed, const int8_t *x, int32_t *sum)
{
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    for (int v = 0; v < ST_PANEL / 8; v++) {
        __m256i acc = _mm256_setzero_si256();
        for (int e = 0; e < ST_GROUP / 8; e++) {
            __m256i x0 = _mm256_set1_epi32(load_quad(x + 8 * e));
            __m256i x1 = _mm256_set1_epi32(load_quad(x + 8 * e + 4));
            __m256i w = _mm256_loadu_si256((const __m256i *)(packed + e * 4 * ST_PANEL + 32 * v));
            __m256i high = _mm256_and_si256(_mm256_srli_epi16(w, 4), low);
            acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(_mm256_and_si256(w, low), x0));
            acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(high, x1));
        }
        __m256i *to = (__m256i *)(sum + 8 * v);
        _mm256_storeu_si256(to,
                            _mm256_add_epi32(_mm256_loadu_si256(to), _mm256_madd_epi16(acc, ones)));
    }
}

#else

static void sum_group(const uint8_t *packed, const int8_t *x, int32_t *sum)
{
    for (int e = 0; e < ST_GROUP / 8; e++) {
        const uint8_t *w = packed + e * 4 * ST_PANEL;
        for (int j = 0; j < ST_PANEL; j++)
            for (int k = 0; k < 4; k++)
                sum[j] +=
                    (w[4 * j + k] & 15) * x[8 * e + k] + (w[4 * j + k] >> 4) * x[8 * e + 4 + k];
    }
}

#endif

static void multiply_row(const st_dense *m, const uint8_t *panel, const int8_t *x,
                         const int32_t *sums, float *acc)
{
    ptrdiff_t groups = (m->inputs + m->group - 1) / m->group;
    memset(acc, 0, ST_PANEL * sizeof *acc);
    for (ptrdiff_t g = 0; g < groups; g++) {
        const uint8_t *packed = panel + g * group_bytes(m);
        const uint16_t *scale = (const uint16_t *)packed;
        int32_t sum[ST_PANEL], excess = group_excess(m, sums, g);
        for (int j = 0; j < ST_PANEL; j++) sum[j] = -excess;
        for (ptrdiff_t i = 0; i < m->group; i += ST_GROUP)
            sum_group(packed + 2 * ST_PANEL + i / 2 * ST_PANEL, x + g * m->group + i, sum);
        for (int j = 0; j < ST_PANEL; j++) {
            float product = (float)sum[j] * st_widen(scale[j]);
            acc[j] = acc[j] + product;
        }
    }
}

static void multiply_int4(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                          ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    for (ptrdiff_t at = first; at < last; at += ST_PANEL) {
        const uint8_t *panel = m->panel + at / ST_PANEL * m->panel_stride;
        for (ptrdiff_t t = 0; t < input->tokens; t++) {
            float acc[ST_PANEL], *to = y + t * y_stride + at;
            multiply_row(m, panel, input->codes + t * input->stride,
                         input->sum + t * input->stride / ST_GROUP, acc);
            for (ptrdiff_t j = 0; j < ST_MIN(ST_PANEL, last - at); j++)
                to[j] = acc[j] * input->scale[t];
        }
    }
}

#endif
