/* The passes over all logits that a draw makes: greatest, group maxima, weights, sums of blocks. */

/* Values of which the greatest stands for all in a first look: element g + j * groups. */
#define ST_LOOK 16

typedef double st_doubles __attribute__((vector_size(8 * ST_LANES), aligned(8), may_alias));

/* Values of which the greatest is found before the next ones are looked at. */
#define ST_SEARCHED 1024

typedef int32_t st_orders __attribute__((vector_size(4 * ST_LANES), aligned(4), may_alias));

/* Floats' bits as integers that order as the floats do, both zeros alike, NaN above all. */
static inline void to_orders(st_orders *bits)
{
    st_orders size = *bits & INT32_MAX, sign = *bits >> 31;
    st_orders odd = size > 0x7f800000;
    *bits = (((size ^ sign) - sign) & ~odd) | (odd & INT32_MAX);
}

/* The greatest of the orders of n > 0 floats. */
static int32_t greatest_order(const float *restrict x, ptrdiff_t n)
{
    st_orders most = (st_orders){0} + INT32_MIN, rest = {0};
    ptrdiff_t i = 0;
    for (; i + ST_LANES <= n; i += ST_LANES) {
        st_orders order = *(const st_orders *)(x + i);
        to_orders(&order);
        st_orders above = order > most;
        most = (order & above) | (most & ~above);
    }
    int32_t greatest = INT32_MIN;
    for (int j = 0; j < ST_LANES; j++) greatest = most[j] > greatest ? most[j] : greatest;
    memcpy(&rest, x + i, (size_t)(n - i) * sizeof *x);
    to_orders(&rest);
    for (int j = 0; i + j < n; j++) greatest = rest[j] > greatest ? rest[j] : greatest;
    return greatest;
}

/* The index of the greatest, the first of several; that of the first NaN if there is one. */
static ptrdiff_t first_greatest(const float *restrict x, ptrdiff_t n)
{
    int32_t best = INT32_MIN;
    ptrdiff_t at = 0;
    for (ptrdiff_t i = 0; i < n; i += ST_SEARCHED) {
        int32_t most = greatest_order(x + i, ST_MIN(ST_SEARCHED, n - i));
        if (most <= best) continue;
        best = most;
        at = i;
    }
    while (greatest_order(x + at, 1) != best) at++;
    return at;
}

/* maxima[g] is the greatest of x[g + j * groups] for j < ST_LOOK. */
static void group_maxima(const float *restrict x, ptrdiff_t groups, float *restrict maxima)
{
    memcpy(maxima, x, (size_t)groups * sizeof(float));
    for (int j = 1; j < ST_LOOK; j++) {
        const float *restrict row = x + j * groups;
        for (ptrdiff_t g = 0; g < groups; g++) maxima[g] = row[g] > maxima[g] ? row[g] : maxima[g];
    }
}

static inline double weight_of(double v)
{
    double e = st_exp_of(v < -700.0 ? -700.0 : v);
    return v < -700.0 ? 0.0 : e;
}

/* The weights at a temperature of 1, where a division would change nothing. */
static void weigh_apart(const float *restrict x, ptrdiff_t n, double most, double *restrict weight)
{
    for (ptrdiff_t i = 0; i < n; i++) weight[i] = weight_of((double)x[i] - most);
}

/* weight[i] = e^((x[i] - most) / temperature), 0 below e^-700. */
static void weigh(const float *restrict x, ptrdiff_t n, double most, double temperature,
                  double *restrict weight)
{
    if (temperature == 1.0) {
        weigh_apart(x, n, most, weight);
        return;
    }
    for (ptrdiff_t i = 0; i < n; i++) weight[i] = weight_of(((double)x[i] - most) / temperature);
}

/* The sum of n weights: sixteen partial sums, then added in halves. */
static double sum_weights(const double *restrict weight, ptrdiff_t n)
{
    st_doubles sum = {0};
    ptrdiff_t i = 0;
    for (; i + ST_LANES <= n; i += ST_LANES) sum = sum + *(const st_doubles *)(weight + i);
    for (int j = 0; i + j < n; j++) sum[j] = sum[j] + weight[i + j];
    for (int half = ST_LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) sum[j] = sum[j] + sum[j + half];
    return sum[0];
}
