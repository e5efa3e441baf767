#include "events.h"

#include <stdlib.h>
#include <string.h>

int st_events_init(st_events *events, int is_int8, ptrdiff_t size, ptrdiff_t lanes)
{
    memset(events, 0, sizeof *events);
    events->is_int8 = is_int8;
    size_t n = (size_t)size + 1, entries = is_int8 ? (n / 2 + 1) * (size_t)lanes : n * (size_t)lanes;
    events->index = malloc(n * sizeof *events->index);
    events->value_float = malloc(n * sizeof *events->value_float);
    events->value_int = malloc(n * sizeof *events->value_int);
    st_batch *b = &events->batch;
    b->first_row = malloc(n * sizeof *b->first_row);
    b->second_row = malloc(n * sizeof *b->second_row);
    b->start = malloc((n + 1) * sizeof *b->start);
    b->lane = malloc(entries * sizeof *b->lane);
    b->coef = malloc(entries * sizeof *b->coef);
    if (events->index && events->value_float && events->value_int && b->first_row &&
        b->second_row && b->start && b->lane && b->coef)
        return 0;
    st_events_free(events);
    return -1;
}

void st_events_free(st_events *events)
{
    st_batch *b = &events->batch;
    free(events->index);
    free(events->value_float);
    free(events->value_int);
    free(b->first_row);
    free(b->second_row);
    free(b->start);
    free(b->lane);
    free(b->coef);
    memset(events, 0, sizeof *events);
}

/* Rows in which a lane of the batch has an event, in ascending order, into events->index. */
static ptrdiff_t union_int16(st_events *events)
{
    int16_t *any = events->value_int;
    memset(any, 0, (size_t)events->size * sizeof *any);
    for (ptrdiff_t lane = 0; lane < events->lanes; lane++) {
        if (events->wide[lane]) continue;
        const int16_t *y = events->vector[lane];
        for (ptrdiff_t i = 0; i < events->size; i++) any[i] |= y[i];
    }
    ptrdiff_t rows = 0;
    for (ptrdiff_t i = 0; i < events->size; i++) {
        events->index[rows] = (int32_t)i;
        rows += any[i] != 0;
    }
    return rows;
}

static void count_int16(st_events *events, int is_signed)
{
    events->any_wide = 0;
    for (ptrdiff_t lane = 0; lane < events->lanes; lane++) {
        const int16_t *y = events->vector[lane];
        int64_t sum = 0;
        ptrdiff_t count = 0;
        for (ptrdiff_t i = 0; i < events->size; i++) {
            sum += y[i];
            count += y[i] != 0;
        }
        events->lane_events[lane] = count;
        events->wide[lane] = !is_signed && sum > ST_SAFE_EVENT_SUM;
        events->any_wide |= events->wide[lane];
    }
}

static void batch_int16(st_events *events)
{
    st_batch *b = &events->batch;
    ptrdiff_t rows = union_int16(events);
    int32_t entries = 0;
    b->groups = (rows + 1) / 2;
    b->start[0] = 0;
    for (ptrdiff_t g = 0; g < b->groups; g++) {
        int32_t r0 = events->index[2 * g];
        int has_second = 2 * g + 1 < rows;
        int32_t r1 = has_second ? events->index[2 * g + 1] : r0;
        b->first_row[g] = r0;
        b->second_row[g] = r1;
        for (ptrdiff_t lane = 0; lane < events->lanes; lane++) {
            if (events->wide[lane]) continue;
            const int16_t *y = events->vector[lane];
            uint32_t low = (uint16_t)y[r0], high = has_second ? (uint16_t)y[r1] : 0;
            b->lane[entries] = (int32_t)lane;
            b->coef[entries] = (int32_t)(low | high << 16);
            entries += (low | high) != 0;
        }
        b->start[g + 1] = entries;
    }
    events->rows_read = rows;
    for (ptrdiff_t lane = 0; lane < events->lanes; lane++)
        if (events->wide[lane]) events->rows_read += events->lane_events[lane];
}

static void batch_float(st_events *events)
{
    st_batch *b = &events->batch;
    int32_t entries = 0;
    memset(events->lane_events, 0, sizeof events->lane_events);
    b->groups = 0;
    b->start[0] = 0;
    for (ptrdiff_t i = 0; i < events->size; i++) {
        int32_t before = entries;
        for (ptrdiff_t lane = 0; lane < events->lanes; lane++) {
            float value = ((const float *)events->vector[lane])[i];
            int active = value != 0.0f;
            b->lane[entries] = (int32_t)lane;
            memcpy(&b->coef[entries], &value, sizeof value);
            entries += active;
            events->lane_events[lane] += active;
        }
        b->first_row[b->groups] = (int32_t)i;
        b->second_row[b->groups] = (int32_t)i;
        b->groups += entries != before;
        b->start[b->groups] = entries;
    }
    events->rows_read = b->groups;
}

void st_events_list(st_events *events, const st_kernels *kernels, const void *const *vector,
                    ptrdiff_t lanes, ptrdiff_t size, int is_signed)
{
    events->lanes = lanes;
    events->size = size;
    events->batched = lanes > 1 || is_signed;
    events->any_wide = 0;
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        events->vector[lane] = vector[lane];
        events->lane_scale[lane] = 1.0f;
    }
    if (!events->batched) {
        events->count = events->is_int8
                            ? kernels->list_int16(vector[0], size, events->index, events->value_int)
                            : kernels->list_float32(vector[0], size, events->index,
                                                    events->value_float);
        events->lane_events[0] = events->rows_read = events->count;
        return;
    }
    events->batch.lanes = lanes;
    if (events->is_int8) {
        count_int16(events, is_signed);
        batch_int16(events);
    } else {
        batch_float(events);
    }
}

void st_events_multiply(const st_events *events, const st_kernels *k, const st_matrix *m,
                        ptrdiff_t first, ptrdiff_t last, float *const *out)
{
    if (!events->batched && events->is_int8)
        k->gather_int8(m, events->index, events->value_int, events->count, first, last, out[0]);
    else if (!events->batched)
        k->gather_float32(m, events->index, events->value_float, events->count, first, last,
                          out[0]);
    else if (events->is_int8)
        k->batch_int8(m, &events->batch, events->lane_scale, first, last, out);
    else
        k->batch_float32(m, &events->batch, first, last, out);
}

void st_events_multiply_wide(st_events *events, const st_kernels *k, const st_matrix *m,
                             float *const *out)
{
    if (!events->any_wide) return;
    for (ptrdiff_t lane = 0; lane < events->lanes; lane++) {
        if (!events->wide[lane]) continue;
        ptrdiff_t count = k->list_int16(events->vector[lane], events->size, events->index,
                                        events->value_int);
        k->gather_int8(m, events->index, events->value_int, count, 0, m->cols, out[lane]);
    }
}
