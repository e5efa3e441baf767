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

/* Tokens whose float sums stay in the first-level cache while a group is unpacked for them. */
#define ST_TOKENS 48

static inline __m512 widen_scale(const uint16_t *scale)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)scale));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline __m512 add_scaled(__m512 acc, __m512i sum, __m512 scale)
{
    return _mm512_add_ps(acc, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
}

/* One row with one panel, straight from the halves: the high ones count sixteenfold in their own
 * sums until the group's end. */
static inline __attribute__((always_inline)) void
multiply_row(const st_dense *m, const uint8_t *panel, const int8_t *x, const int32_t *sum,
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
            acc[v] = add_scaled(acc[v],
                                _mm512_add_epi32(part[v], _mm512_srai_epi32(other[v], 4)),
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

/* out[.] += sums * scale */
static inline void add_row(st_sums sums, const __m512 *scale, float *out)
{
    _mm512_storeu_ps(out, add_scaled(_mm512_loadu_ps(out), sums.a, scale[0]));
    _mm512_storeu_ps(out + 16, add_scaled(_mm512_loadu_ps(out + 16), sums.b, scale[1]));
    _mm512_storeu_ps(out + 32, add_scaled(_mm512_loadu_ps(out + 32), sums.c, scale[2]));
    _mm512_storeu_ps(out + 48, add_scaled(_mm512_loadu_ps(out + 48), sums.d, scale[3]));
}

static inline __attribute__((always_inline)) void
add_group(const uint8_t *quads, const int count, const int8_t *x, ptrdiff_t x_stride,
          const int32_t *excess_of, const __m512 *scale, const int rows, float (*out)[ST_PANEL])
{
    st_row_sums sums = start_rows(excess_of, rows);
    for (int q = 0; q < count; q++)
        add_rows_quad(&sums, load_sums(quads + q * 4 * ST_PANEL), x + 4 * q, x_stride, rows);
    add_row(sums.r0, scale, out[0]);
    if (rows > 1) add_row(sums.r1, scale, out[1]);
    if (rows > 2) add_row(sums.r2, scale, out[2]);
    if (rows > 3) add_row(sums.r3, scale, out[3]);
    if (rows > 4) add_row(sums.r4, scale, out[4]);
    if (rows > 5) add_row(sums.r5, scale, out[5]);
}

static __attribute__((noinline)) void add_groups(const uint8_t *quads, int count, const int8_t *x,
                                                 ptrdiff_t x_stride, const int32_t *excess_of,
                                                 const __m512 *scale, ptrdiff_t rows,
                                                 float (*out)[ST_PANEL])
{
    switch (rows) {
    case 1: add_group(quads, count, x, x_stride, excess_of, scale, 1, out); break;
    case 2: add_group(quads, count, x, x_stride, excess_of, scale, 2, out); break;
    case 3: add_group(quads, count, x, x_stride, excess_of, scale, 3, out); break;
    case 4: add_group(quads, count, x, x_stride, excess_of, scale, 4, out); break;
    case 5: add_group(quads, count, x, x_stride, excess_of, scale, 5, out); break;
    default: add_group(quads, count, x, x_stride, excess_of, scale, 6, out); break;
    }
}

/* Up to ST_TOKENS rows with one panel: each group is unpacked once for all of them. */
static void multiply_tokens(const st_dense *m, const st_dense_input *input, const uint8_t *panel,
                            ptrdiff_t begin, ptrdiff_t tokens, float (*acc)[ST_PANEL])
{
    _Alignas(64) uint8_t quads[2 * ST_GROUP * ST_PANEL];
    ptrdiff_t groups = (m->inputs + m->group - 1) / m->group, sums = input->stride / ST_GROUP;
    memset(acc, 0, (size_t)tokens * sizeof *acc);
    for (ptrdiff_t g = 0; g < groups; g++) {
        const uint8_t *packed = panel + g * group_bytes(m);
        __m512 scale[4];
        for (int v = 0; v < 4; v++) scale[v] = widen_scale((const uint16_t *)packed + 16 * v);
        unpack_group(packed + 2 * ST_PANEL, m->group / 8, quads);
        for (ptrdiff_t t = 0; t < tokens; t += ST_ROWS) {
            ptrdiff_t rows = ST_MIN(ST_ROWS, tokens - t);
            int32_t excess_of[ST_ROWS];
            for (ptrdiff_t r = 0; r < rows; r++)
                excess_of[r] = group_excess(m, input->sum + (begin + t + r) * sums, g);
            add_groups(quads, (int)m->group / 4,
                       input->codes + (begin + t) * input->stride + g * m->group, input->stride,
                       excess_of, scale, rows, acc + t);
        }
    }
}

static void multiply_int4(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                          ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    float acc[ST_TOKENS][ST_PANEL];
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

static inline float from_bfloat16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

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
        _mm256_storeu_si256(
            to, _mm256_add_epi32(_mm256_loadu_si256(to), _mm256_madd_epi16(acc, ones)));
    }
}

#else

static void sum_group(const uint8_t *packed, const int8_t *x, int32_t *sum)
{
    for (int e = 0; e < ST_GROUP / 8; e++) {
        const uint8_t *w = packed + e * 4 * ST_PANEL;
        for (int j = 0; j < ST_PANEL; j++)
            for (int k = 0; k < 4; k++)
                sum[j] += (w[4 * j + k] & 15) * x[8 * e + k] +
                          (w[4 * j + k] >> 4) * x[8 * e + 4 + k];
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
            float product = (float)sum[j] * from_bfloat16(scale[j]);
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
