/* The passes over all logits that a draw makes: greatest, group maxima, weights, sums of blocks. */

/* Values of which the greatest stands for all in a first look: element g + j * groups. */
#define ST_LOOK 16

typedef double st_doubles __attribute__((vector_size(8 * ST_LANES), aligned(8), may_alias));

/* The index of the greatest, the first of several; that of the first NaN if there is one. */
static ptrdiff_t first_greatest(const float *restrict x, ptrdiff_t n)
{
    float most[ST_LANES], odd[ST_LANES];
    for (int j = 0; j < ST_LANES; j++) most[j] = x[0], odd[j] = 0.0f;
    ptrdiff_t i = 0;
    for (; i + ST_LANES <= n; i += ST_LANES)
        for (int j = 0; j < ST_LANES; j++) {
            float v = x[i + j];
            most[j] = v > most[j] ? v : most[j];
            odd[j] = v != v ? 1.0f : odd[j];
        }
    for (int j = 0; i + j < n; j++) {
        float v = x[i + j];
        most[j] = v > most[j] ? v : most[j];
        odd[j] = v != v ? 1.0f : odd[j];
    }
    float best = most[0], any = odd[0];
    for (int j = 1; j < ST_LANES; j++) {
        best = most[j] > best ? most[j] : best;
        any = odd[j] > any ? odd[j] : any;
    }
    if (any != 0.0f || best != best) {
        for (i = 0; x[i] == x[i]; i++)
            ;
        return i;
    }
    for (i = 0; x[i] != best; i++)
        ;
    return i;
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

/* weight[i] = e^((x[i] - most) / temperature), 0 below e^-700. */
static void weigh(const float *restrict x, ptrdiff_t n, double most, double temperature,
                  double *restrict weight)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        double v = ((double)x[i] - most) / temperature;
        double e = st_exp_of(v < -700.0 ? -700.0 : v);
        weight[i] = v < -700.0 ? 0.0 : e;
    }
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
