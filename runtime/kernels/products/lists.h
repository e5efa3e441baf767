/* Lists of a vector's events. An entry is written always and kept when it is one: index and value
 * need room for sixteen entries more than are kept. */

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

static inline float square(float x)
{
    float positive = x > 0.0f ? x : 0.0f;
    return positive * positive;
}

static ptrdiff_t list_squares_float32(const float *restrict x, ptrdiff_t n, int32_t *restrict index,
                                      float *restrict value)
{
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        index[count] = (int32_t)i;
        value[count] = square(x[i]);
        count += value[count] != 0.0f;
    }
    return count;
}

/* Squares that are quantised between two passes. */
#define ST_SQUARES 256

/* The largest element, or 0: floats from 0 on compare as their bits do, which vectorises. */
static float largest_positive(const float *restrict x, ptrdiff_t n)
{
    int32_t most = 0;
    float largest;
    for (ptrdiff_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, 4);
        most = bits > most ? bits : most;
    }
    memcpy(&largest, &most, 4);
    return largest;
}

/* What a step of the largest square's share is worth: largest / most, or 0 where all are zero. */
static float square_unit(const float *restrict x, ptrdiff_t n, float limit)
{
    float unit_value = square(largest_positive(x, n)) / limit;
    return unit_value > 0.0f ? unit_value : 0.0f;
}

static inline void square_steps(const float *restrict x, ptrdiff_t n, float unit_value, float limit,
                                int16_t *restrict step)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        float code = square(x[i]) / unit_value;
        code = code < limit ? code : limit;
        step[i] = (int16_t)(int32_t)round_even(code);
    }
}

/* Squares in steps, none of them left out; returns how many are not zero. unit: 1 where all are. */
static ptrdiff_t square_codes(const float *restrict x, ptrdiff_t n, int32_t most,
                              int16_t *restrict code, float *unit)
{
    const float limit = (float)most, unit_value = square_unit(x, n, limit);
    int32_t zeros = 0;
    *unit = 1.0f;
    if (unit_value == 0.0f) {
        memset(code, 0, (size_t)n * sizeof *code);
        return 0;
    }
    *unit = unit_value;
    square_steps(x, n, unit_value, limit, code);
    for (ptrdiff_t i = 0; i < n; i++) zeros += code[i] == 0;
    return n - zeros;
}

static ptrdiff_t list_squares(const float *restrict x, ptrdiff_t n, int32_t most,
                              int32_t *restrict index, int16_t *restrict value, float *unit)
{
    const float limit = (float)most, unit_value = square_unit(x, n, limit);
    *unit = 1.0f;
    if (unit_value == 0.0f) return 0;
    *unit = unit_value;
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < n; i += ST_SQUARES) {
        int16_t step[ST_SQUARES];
        ptrdiff_t some = ST_MIN(ST_SQUARES, n - i);
        square_steps(x + i, some, unit_value, limit, step);
        ptrdiff_t listed = list_int16(step, some, index + count, value + count);
        for (ptrdiff_t e = 0; e < listed; e++) index[count + e] += (int32_t)i;
        count += listed;
    }
    return count;
}

/* The largest absolute value. */
static int32_t largest_count(const int16_t *restrict y, ptrdiff_t n)
{
    int16_t most = 0, least = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        most = y[i] > most ? y[i] : most;
        least = y[i] < least ? y[i] : least;
    }
    return most > -least ? most : -least;
}

/* Signed counts; one beyond `most` becomes several entries. */
static ptrdiff_t list_counts(const int16_t *restrict y, ptrdiff_t n, int32_t most,
                             int32_t *restrict index, int16_t *restrict value)
{
    ptrdiff_t count = 0;
    if (largest_count(y, n) <= most) return list_int16(y, n, index, value);
    for (ptrdiff_t i = 0; i < n; i++) {
        int32_t rest = y[i];
        for (; rest > most; rest -= most) {
            index[count] = (int32_t)i;
            value[count++] = (int16_t)most;
        }
        for (; rest < -most; rest += most) {
            index[count] = (int32_t)i;
            value[count++] = (int16_t)-most;
        }
        index[count] = (int32_t)i;
        value[count] = (int16_t)rest;
        count += rest != 0;
    }
    return count;
}
