/* From exact integer sums of events to outputs: sum * unit * scale, then the bias where there is
 * one. */

static void finish(const int32_t *restrict sum, float unit, const st_rows *m, ptrdiff_t at,
                   ptrdiff_t n, float *restrict y)
{
    const float *restrict scale = m->scale + at;
    if (m->bias) {
        const float *restrict bias = m->bias + at;
        for (ptrdiff_t o = 0; o < n; o++) {
            float value = (float)sum[o] * unit;
            value = value * scale[o];
            y[o] = value + bias[o];
        }
        return;
    }
    for (ptrdiff_t o = 0; o < n; o++) {
        float value = (float)sum[o] * unit;
        y[o] = value * scale[o];
    }
}

static void finish_wide(const int64_t *restrict sum, float unit, const st_rows *m, ptrdiff_t at,
                        ptrdiff_t n, float *restrict y)
{
    for (ptrdiff_t o = 0; o < n; o++) {
        float value = (float)sum[o] * unit;
        value = value * m->scale[at + o];
        y[o] = m->bias ? value + m->bias[at + o] : value;
    }
}

/* So many outputs in as few tiles as they need, all about as long, of whole spans. */
static ptrdiff_t even_tile(ptrdiff_t outputs)
{
    ptrdiff_t tiles = (outputs + ST_TILE - 1) / ST_TILE;
    if (tiles <= 1) return ST_TILE;
    return ((outputs + tiles - 1) / tiles + ST_SPAN - 1) / ST_SPAN * ST_SPAN;
}

/* acc[0 .. count) = exact sums of events begin .. end, for outputs `at` on. */
typedef void (*st_sum)(const st_rows *m, const int32_t *index, const int16_t *value,
                       ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count, int32_t *acc);

/* The longest part of the list from `e` on whose absolute values add up to no more than `limit`. */
static ptrdiff_t part_end(const int16_t *value, ptrdiff_t e, ptrdiff_t n, int64_t limit)
{
    int64_t sum = 0;
    for (; e < n; e++) {
        sum += value[e] < 0 ? -value[e] : value[e];
        if (sum > limit) break;
    }
    return e;
}

/* Whether the absolute values of the whole list add up to no more than `limit`: without a look at
 * where they exceed it, so that the sum vectorises. */
static int is_safe(const int16_t *restrict value, ptrdiff_t n, int64_t limit)
{
    int64_t sum = 0;
    for (ptrdiff_t e = 0; e < n; e++) sum += value[e] < 0 ? -value[e] : value[e];
    return sum <= limit;
}

/* One tile of a list that int32 may not hold: summed in parts, which are added in int64. */
static __attribute__((noinline)) void multiply_wide(const st_rows *m, const st_list *list,
                                                    ptrdiff_t at, ptrdiff_t count, float *y,
                                                    int64_t limit, st_sum sum, int32_t *acc)
{
    int64_t wide[ST_TILE];
    const int16_t *value = list->value;
    memset(wide, 0, (size_t)count * sizeof *wide);
    for (ptrdiff_t e = 0, end; e < list->count; e = end) {
        end = part_end(value, e, list->count, limit);
        sum(m, list->index, value, e, end, at, count, acc);
        for (ptrdiff_t o = 0; o < count; o++) wide[o] += acc[o];
    }
    finish_wide(wide, list->unit, m, at, count, y + at);
}

/* Outputs first .. last of one list, tile after tile. */
static inline __attribute__((always_inline)) void
multiply_parts(const st_rows *m, const st_list *list, ptrdiff_t first, ptrdiff_t last, float *y,
               int64_t limit, st_sum sum)
{
    _Alignas(64) int32_t acc[ST_TILE + 128];
    const int16_t *value = list->value;
    int fits = is_safe(value, list->count, limit);
    ptrdiff_t tile = even_tile(last - first);
    for (ptrdiff_t at = first; at < last; at += tile) {
        ptrdiff_t count = ST_MIN(tile, last - at);
        if (!fits) {
            multiply_wide(m, list, at, count, y, limit, sum, acc);
            continue;
        }
        sum(m, list->index, value, 0, list->count, at, count, acc);
        finish(acc, list->unit, m, at, count, y + at);
    }
}
