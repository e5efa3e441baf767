/* Products of spike counts with int8 rows whose scales are shared by groups of inputs: the exact
 * integer sum of each group times its scale, added in float32 in ascending order of the groups,
 * then times the unit. Codes beyond int8 have the rest in a list of corrections of their row. */

#define ST_GROUP_TILE 2048
/* Sums of counts with codes and the int16 beyond them fit int32 while the counts' absolute values
 * add up to no more than this: 65279 * (128 + 32768) = 2147417984 < 2^31. */
#define ST_SAFE_CORRECTED_SUM 65279

/* The first of the sorted columns of a row from `from` to `to` that is at least `column`. */
static ptrdiff_t lower_bound(const int32_t *column, ptrdiff_t from, ptrdiff_t to, int32_t least)
{
    while (from < to) {
        ptrdiff_t middle = from + (to - from) / 2;
        if (column[middle] < least)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static void add_corrections(const st_rows *m, const int32_t *index, const int16_t *value,
                            ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count,
                            int32_t *acc)
{
    for (ptrdiff_t e = begin; e < end; e++) {
        ptrdiff_t from = m->extra_row[index[e]], to = m->extra_row[index[e] + 1];
        from = lower_bound(m->extra_column, from, to, (int32_t)at);
        for (; from < to && m->extra_column[from] < at + count; from++)
            acc[m->extra_column[from] - at] += value[e] * m->extra[from];
    }
}

/* acc = the sum of one group's events, whose absolute values add up to a safe sum. */
static void sum_inputs(const st_rows *m, const int32_t *index, const int16_t *value,
                       ptrdiff_t begin, ptrdiff_t end, ptrdiff_t at, ptrdiff_t count, int32_t *acc)
{
    sum_counts_int8(m, index, value, begin, end, at, count, acc);
    if (m->extra_row) add_corrections(m, index, value, begin, end, at, count, acc);
}

/* The same in parts that int32 holds. */
static __attribute__((noinline)) void sum_wide_group(const st_rows *m, const int32_t *index,
                                                     const int16_t *value, ptrdiff_t begin,
                                                     ptrdiff_t end, int64_t limit, ptrdiff_t at,
                                                     ptrdiff_t count, int32_t *acc, int64_t *wide)
{
    memset(wide, 0, (size_t)count * sizeof *wide);
    for (ptrdiff_t e = begin, next; e < end; e = next) {
        next = part_end(value, e, end, limit);
        sum_inputs(m, index, value, e, next, at, count, acc);
        for (ptrdiff_t o = 0; o < count; o++) wide[o] += acc[o];
    }
}

static void counts_int8_groups(const st_rows *m, const st_list *list, ptrdiff_t first,
                               ptrdiff_t last, float *y)
{
    const int32_t *index = list->index;
    const int16_t *value = list->value;
    const ptrdiff_t n = list->count;
    _Alignas(64) int32_t acc[ST_GROUP_TILE + 128];
    int64_t wide[ST_GROUP_TILE];
    const int64_t limit = m->extra_row ? ST_SAFE_CORRECTED_SUM : ST_SAFE_EVENT_SUM;
    for (ptrdiff_t at = first; at < last; at += ST_GROUP_TILE) {
        ptrdiff_t count = ST_MIN(ST_GROUP_TILE, last - at);
        memset(y + at, 0, (size_t)count * sizeof *y);
        for (ptrdiff_t e = 0, end; e < n; e = end) {
            ptrdiff_t group = index[e] / m->group;
            for (end = e + 1; end < n && index[end] / m->group == group;) end++;
            const float *scale = m->scale + group * m->cols + at;
            if (part_end(value, e, end, limit) < end) {
                sum_wide_group(m, index, value, e, end, limit, at, count, acc, wide);
                for (ptrdiff_t o = 0; o < count; o++) {
                    float part = (float)wide[o] * scale[o];
                    y[at + o] = y[at + o] + part;
                }
                continue;
            }
            sum_inputs(m, index, value, e, end, at, count, acc);
            for (ptrdiff_t o = 0; o < count; o++) {
                float part = (float)acc[o] * scale[o];
                y[at + o] = y[at + o] + part;
            }
        }
        for (ptrdiff_t o = 0; o < count; o++) y[at + o] = y[at + o] * list->unit;
        if (m->bias) add_bias(m->bias + at, count, y + at);
    }
}
