/* The units of EGRU: gates, cell, event, reset. */

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
