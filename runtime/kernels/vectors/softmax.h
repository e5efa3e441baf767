/* The softmax of a vector, and minus the logarithm of one element of it: e^(x - greatest) over its
 * sum. Terms and sums are float64, the sum in sixteen parts (element i in number i mod 16) that are
 * added in halves; e^x is within 2^-32 of its value. */

/* Elements whose terms are held at a time: a multiple of ST_LANES. */
#define ST_TERMS 256

static void round_terms(const double *restrict term, ptrdiff_t n, float *restrict out)
{
    for (ptrdiff_t i = 0; i < n; i++) out[i] = (float)term[i];
}

/* The sum of e^(x - most), each term rounded to `out` as well unless it is NULL. */
static double sum_exp(const float *x, ptrdiff_t n, float most, float *out)
{
    _Alignas(64) double term[ST_TERMS];
    st_doubles sum = {0};
    for (ptrdiff_t at = 0; at < n; at += ST_TERMS) {
        ptrdiff_t count = ST_MIN(ST_TERMS, n - at), i = 0;
        weigh_apart(x + at, count, most, term);
        for (; i + ST_LANES <= count; i += ST_LANES) sum = sum + *(const st_doubles *)(term + i);
        for (int j = 0; i + j < count; j++) sum[j] = sum[j] + term[i + j];
        if (out) round_terms(term, count, out + at);
    }
    for (int half = ST_LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) sum[j] = sum[j] + sum[j + half];
    return sum[0];
}

/* 0, or -1 and nothing written where the greatest element is not finite or one is NaN. */
static int softmax(const float *x, ptrdiff_t n, float *out)
{
    float most = x[first_greatest(x, n)];
    if (most - most != 0.0f) return -1;
    double factor = 1.0 / sum_exp(x, n, most, out);
    for (ptrdiff_t i = 0; i < n; i++) out[i] = (float)((double)out[i] * factor);
    return 0;
}

/* -ln of the softmax at element `at`; NaN where the greatest element is not finite or one is NaN.
 */
static double nats(const float *x, ptrdiff_t n, ptrdiff_t at)
{
    float most = x[first_greatest(x, n)];
    double above = (double)most - (double)x[at];
    if (most - most != 0.0f) return (double)(most - most);
    return st_log_of(sum_exp(x, n, most, NULL)) + above;
}
