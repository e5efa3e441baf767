#include "events.h"

#include <stdlib.h>
#include <string.h>

#include "sharing.h"

int st_events_init(st_events *events, int format, int kind, ptrdiff_t size, ptrdiff_t room,
                   ptrdiff_t tokens)
{
    memset(events, 0, sizeof *events);
    events->format = format;
    events->kind = kind;
    events->size = size;
    events->rows_read = -1;
    events->list = calloc((size_t)tokens + 1, sizeof *events->list);
    if (!events->list) return -1;
    events->capacity = tokens;
    int failed = st_sharing_init(events, size, tokens);
    int has_bytes = kind == ST_GRADED && !st_is_float(format);
    /* Sixteen entries more: lists are filled vector by vector. */
    const size_t entries = (size_t)room + 16;
    for (ptrdiff_t t = 0; t < tokens && !failed; t++) {
        st_list *list = &events->list[t];
        failed |= !(list->index = malloc(entries * sizeof *list->index));
        failed |= !(list->value = malloc(entries * sizeof(float)));
        if (!has_bytes) continue;
        failed |= !(list->low = malloc(entries / 4 * sizeof *list->low));
        failed |= !(list->high = malloc(entries / 4 * sizeof *list->high));
    }
    if (failed) st_events_free(events);
    return failed ? -1 : 0;
}

void st_events_free(st_events *events)
{
    for (ptrdiff_t t = 0; t < events->capacity; t++) {
        free(events->list[t].index);
        free(events->list[t].value);
        free(events->list[t].low);
        free(events->list[t].high);
    }
    free(events->list);
    st_sharing_free(events);
    memset(events, 0, sizeof *events);
}

void st_events_begin(st_events *events, ptrdiff_t tokens, ptrdiff_t size)
{
    events->tokens = tokens;
    events->size = size;
    events->rows_read = -1;
    events->sharing = ST_TURNS;
}

st_events st_events_of(const st_events *events, ptrdiff_t first, ptrdiff_t last)
{
    st_events some = *events;
    some.list += first;
    some.tokens = last - first;
    some.rows_read = -1;
    if (some.code) some.code += first * some.size;
    return some;
}

/* --- lists -------------------------------------------------------------------------------- */

void st_list_graded(st_events *events, const st_kernels *kernels, ptrdiff_t token,
                    const void *output)
{
    st_list *list = &events->list[token];
    list->count = st_is_float(events->format)
                      ? kernels->list_float32(output, events->size, list->index, list->value)
                      : kernels->list_int16(output, events->size, list->index, list->value);
    list->unit = 1.0f;
    list->inputs = list->count;
    list->ones = 0;
}

void st_list_squares(st_events *events, const st_kernels *kernels, const float *x,
                     ptrdiff_t x_stride, ptrdiff_t first, ptrdiff_t last)
{
    int32_t most = st_formats[events->format].max_event[ST_SQUARES];
    int codes = st_has_codes(events, kernels);
    for (ptrdiff_t t = first; t < last; t++) {
        st_list *list = &events->list[t];
        const float *from = x + t * x_stride;
        list->unit = 1.0f;
        if (codes)
            list->count = kernels->square_codes(from, events->size, most,
                                                events->code + t * events->size, &list->unit);
        else if (st_is_float(events->format))
            list->count =
                kernels->list_squares_float32(from, events->size, list->index, list->value);
        else
            list->count = kernels->list_squares(from, events->size, most, list->index, list->value,
                                                &list->unit);
        list->inputs = list->count;
        list->ones = 0;
    }
}

/* Weights that are floats take the real values of the counts, each one event. */
static ptrdiff_t list_products(const int16_t *count, ptrdiff_t n, float unit, int32_t *index,
                               float *value)
{
    ptrdiff_t listed = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        if (!count[i]) continue;
        index[listed] = (int32_t)i;
        value[listed++] = (float)count[i] * unit;
    }
    return listed;
}

void st_list_counts(st_events *events, const st_kernels *kernels, const int16_t *count,
                    ptrdiff_t count_stride, const float *unit, ptrdiff_t first, ptrdiff_t last)
{
    int32_t most = st_formats[events->format].max_event[ST_COUNTS];
    for (ptrdiff_t t = first; t < last; t++) {
        st_list *list = &events->list[t];
        const int16_t *from = count + t * count_stride;
        int32_t inputs = 0, ones = 0;
        list->unit = unit[t];
        list->count =
            st_is_float(events->format)
                ? list_products(from, events->size, unit[t], list->index, list->value)
                : kernels->list_counts(from, events->size, most, list->index, list->value);
        for (ptrdiff_t i = 0; i < events->size; i++) {
            inputs += from[i] != 0;
            ones += (from[i] == 1) | (from[i] == -1);
        }
        list->inputs = inputs;
        list->ones = ones;
    }
}

/* Inputs whose count is 1 or -1; a count in several pieces is neither. */
static int64_t count_ones(const st_list *list)
{
    const int32_t *index = list->index;
    const int16_t *value = list->value;
    int32_t ones = 0;
    ptrdiff_t last = list->count - 1;
    for (ptrdiff_t e = 1; e < last; e++)
        ones += ((value[e] == 1) | (value[e] == -1)) & (index[e - 1] != index[e]) &
                (index[e + 1] != index[e]);
    if (last < 0) return 0;
    ones += (value[0] == 1 || value[0] == -1) && (last == 0 || index[1] != index[0]);
    if (last == 0) return ones;
    return ones + ((value[last] == 1 || value[last] == -1) && index[last - 1] != index[last]);
}

void st_list_spikes(st_events *events, const st_kernels *kernels, ptrdiff_t token, const float *x,
                    float k, float dead_zone)
{
    st_list *list = &events->list[token];
    list->count = kernels->spike_list(x, k, dead_zone, events->size,
                                      st_formats[events->format].max_event[ST_COUNTS], list->index,
                                      list->value, &list->unit, &list->inputs);
    list->ones = count_ones(list);
}
