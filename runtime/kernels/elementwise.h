/* Kernels that go over a vector element by element. */

static void exp_all(const float *restrict x, float *restrict out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = st_exp(x[i]);
}

static void sigmoid_all(const float *restrict x, float *restrict out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = st_sigmoid(x[i]);
}

static void tanh_all(const float *restrict x, float *restrict out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = st_tanh(x[i]);
}

/* Both lists are filled without a branch: an entry is written always and kept when non-zero, so
 * index and value need room for n entries. */
static ptrdiff_t list_float32(const float *restrict y, ptrdiff_t n, int32_t *restrict index,
                              float *restrict value)
{
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        index[count] = (int32_t)i;
        value[count] = y[i];
        count += y[i] != 0.0f;
    }
    return count;
}

static ptrdiff_t list_int16(const int16_t *restrict y, ptrdiff_t n, int32_t *restrict index,
                            int16_t *restrict value)
{
    ptrdiff_t count = 0, i = 0;
#if defined(__AVX512F__)
    /* Sixteen entries are stored, the kept ones in front: count <= i leaves room for them. */
    const __m512i step = _mm512_set1_epi32(16);
    __m512i at = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (; i + 16 <= n; i += 16) {
        __m512i wide = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(y + i)));
        __mmask16 active = _mm512_test_epi32_mask(wide, wide);
        __m512i kept = _mm512_maskz_compress_epi32(active, wide);
        _mm512_storeu_si512(index + count, _mm512_maskz_compress_epi32(active, at));
        _mm256_storeu_si256((__m256i *)(value + count), _mm512_cvtepi32_epi16(kept));
        count += __builtin_popcount(active);
        at = _mm512_add_epi32(at, step);
    }
#endif
    for (; i < n; i++) {
        index[count] = (int32_t)i;
        value[count] = y[i];
        count += y[i] != 0;
    }
    return count;
}

/* Nearest whole number, half to even, of |v| < 2^22. */
static inline float round_even(float v)
{
    const float to_integer = 12582912.0f;
    return (v + to_integer) - to_integer;
}

/* Symmetric codes in [-127, 127] of one vector; returns the scale, 0 for a zero vector. */
static float quantise(const float *restrict x, ptrdiff_t n, int16_t *restrict codes)
{
    float most = 0.0f;
    for (ptrdiff_t i = 0; i < n; i++) {
        float size = x[i] < 0.0f ? -x[i] : x[i];
        most = size > most ? size : most;
    }
    float scale = most / 127.0f;
    if (!(scale > 0.0f)) {
        memset(codes, 0, (size_t)n * sizeof *codes);
        return 0.0f;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        float code = x[i] / scale;
        code = code < 127.0f ? code : 127.0f; /* no number: where the largest is infinite */
        code = code > -127.0f ? code : -127.0f;
        codes[i] = (int16_t)(int32_t)round_even(code);
    }
    return scale;
}

/* The largest absolute value, NaN aside: sizes compare as their bits do, which vectorises. */
static float largest_size(const float *restrict x, ptrdiff_t n)
{
    const int32_t infinity = 0x7f800000;
    int32_t most = 0;
    float found;
    for (ptrdiff_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, 4);
        bits &= 0x7fffffff;
        bits = bits > infinity ? 0 : bits;
        most = bits > most ? bits : most;
    }
    memcpy(&found, &most, 4);
    return found;
}

/* As `quantise`, but a zero vector has scale 1, and the codes are bytes; `codes` is zero from n up to
 * the next multiple of 64, and sum[g] is that of codes ST_GROUP g .. ST_GROUP (g + 1). */
static float quantise_row(const float *restrict x, ptrdiff_t n, int8_t *restrict codes,
                          int32_t *restrict sum)
{
    float scale = largest_size(x, n) / 127.0f;
    scale = scale > 0.0f ? scale : 1.0f;
    for (ptrdiff_t i = 0; i < n; i++) {
        float code = x[i] / scale;
        code = code < 127.0f ? code : 127.0f;
        code = code > -127.0f ? code : -127.0f;
        codes[i] = (int8_t)(int32_t)round_even(code);
    }
    for (ptrdiff_t g = 0; g < (n + 63) / 64 * (64 / ST_GROUP); g++) {
        int32_t total = 0;
        for (int k = 0; k < ST_GROUP; k++) total += codes[g * ST_GROUP + k];
        sum[g] = total;
    }
    return scale;
}

/* Units that the neuron update handles between two passes. */
#define ST_UNITS 64

/* c~ of `count` units from `at` on: gates, cell, zoneout. */
static inline void candidate(const float *restrict x, const float *restrict y,
                             const float *restrict cell, float zoneout, ptrdiff_t size,
                             ptrdiff_t at, ptrdiff_t count, float *restrict out)
{
    float z[ST_UNITS], r[ST_UNITS], g[ST_UNITS];
    const float *xz = x + at, *xr = x + size + at, *xg = x + 2 * size + at;
    const float *yz = y + at, *yr = y + size + at, *yg = y + 2 * size + at;
    const float keep = 1.0f - zoneout;
    for (ptrdiff_t i = 0; i < count; i++) z[i] = st_sigmoid(xz[i] + yz[i]);
    for (ptrdiff_t i = 0; i < count; i++) r[i] = st_sigmoid(xr[i] + yr[i]);
    for (ptrdiff_t i = 0; i < count; i++) g[i] = st_tanh(xg[i] + r[i] * yg[i]);
    for (ptrdiff_t i = 0; i < count; i++) {
        float c = cell[at + i];
        float next = z[i] * c + (1.0f - z[i]) * g[i];
        out[i] = zoneout * c + keep * next;
    }
}

static void egru_float32(const float *restrict x, const float *restrict y,
                         const float *restrict threshold, float zoneout, ptrdiff_t size,
                         ptrdiff_t first, ptrdiff_t last, float *restrict cell,
                         float *restrict output)
{
    float c[ST_UNITS];
    for (ptrdiff_t at = first; at < last; at += ST_UNITS) {
        ptrdiff_t count = ST_MIN(ST_UNITS, last - at);
        candidate(x, y, cell, zoneout, size, at, count, c);
        for (ptrdiff_t i = 0; i < count; i++) {
            float above = c[i] - threshold[at + i];
            cell[at + i] = above > 0.0f ? above : c[i];
            output[at + i] = above > 0.0f ? c[i] : 0.0f;
        }
    }
}

static void egru_int16(const float *restrict x, const float *restrict y,
                       const float *restrict threshold, float zoneout, ptrdiff_t size,
                       ptrdiff_t first, ptrdiff_t last, float *restrict cell,
                       int16_t *restrict output)
{
    float c[ST_UNITS];
    for (ptrdiff_t at = first; at < last; at += ST_UNITS) {
        ptrdiff_t count = ST_MIN(ST_UNITS, last - at);
        candidate(x, y, cell, zoneout, size, at, count, c);
        for (ptrdiff_t i = 0; i < count; i++) {
            float above = c[i] - threshold[at + i];
            float fired = above > 0.0f ? c[i] : 0.0f;
            cell[at + i] = above > 0.0f ? above : c[i];
            output[at + i] = (int16_t)(int32_t)round_even(fired * 32767.0f);
        }
    }
}
