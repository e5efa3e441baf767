#include "events.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of weights that the lanes of a batch pass over in turn: near the caches, but in pieces of
 * rows long enough to stream (measured, docs/performance.md). */
#define ST_STRIP_BYTES (1536 << 10)
#define ST_LEAST_STRIP 256
/* Lanes from which on int8 sums of 64 outputs are kept in registers, and rows up to which they are:
 * their lines of two times 64 outputs have to fit the second-level cache. */
#define ST_LEAST_SHARING 12
#define ST_MOST_SHARED_ROWS 6144

int st_events_init(st_events *events, int is_int8, ptrdiff_t size, ptrdiff_t lanes)
{
    memset(events, 0, sizeof *events);
    size_t n = (size_t)size + 4, pairs = (n / 2 + 1) * (size_t)lanes;
    int failed = 0;
    events->is_int8 = is_int8;
    events->capacity = lanes;
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        st_list *list = &events->list[lane];
        list->index = malloc(n * sizeof *list->index);
        list->value = malloc(n * sizeof(float));
        list->low = malloc(n / 4 * sizeof *list->low);
        list->high = malloc(n / 4 * sizeof *list->high);
        failed |= !list->index || !list->value || !list->low || !list->high;
    }
    events->active = malloc(n);
    events->codes.pair = malloc(pairs * sizeof *events->codes.pair);
    events->row = malloc(n * sizeof *events->row);
    if (!failed && events->active && events->codes.pair && events->row) return 0;
    st_events_free(events);
    return -1;
}

void st_events_free(st_events *events)
{
    for (ptrdiff_t lane = 0; lane < events->capacity; lane++) {
        free(events->list[lane].index);
        free(events->list[lane].value);
        free(events->list[lane].low);
        free(events->list[lane].high);
    }
    free(events->active);
    free(events->row);
    free(events->codes.pair);
    memset(events, 0, sizeof *events);
}

/* Rows in any lane's list. */
static ptrdiff_t count_rows(st_events *events, ptrdiff_t size)
{
    if (events->lanes == 1) return events->list[0].count;
    memset(events->active, 0, (size_t)size);
    for (ptrdiff_t lane = 0; lane < events->lanes; lane++) {
        const st_list *list = &events->list[lane];
        for (ptrdiff_t e = 0; e < list->count; e++) events->active[list->index[e]] = 1;
    }
    ptrdiff_t rows = 0;
    for (ptrdiff_t i = 0; i < size; i++) {
        events->row[rows] = (int32_t)i;
        rows += events->active[i];
    }
    return rows;
}

/* Bytes of the events by fours, zeros up to a whole four; 0 where they add up to too much. */
static int set_fours(st_list *list)
{
    int16_t *value = list->value;
    int64_t sum = 0;
    for (ptrdiff_t e = 0; e < list->count; e++) sum += value[e];
    if (sum > ST_SAFE_EVENT_SUM) return 0;
    for (ptrdiff_t e = list->count; e % 4; e++) list->index[e] = value[e] = 0;
    for (ptrdiff_t e = 0; e < list->count; e += 4) {
        uint32_t low = 0, high = 0;
        for (int k = 0; k < 4; k++) {
            low |= (uint32_t)(value[e + k] & 255) << 8 * k;
            high |= (uint32_t)(value[e + k] >> 8) << 8 * k;
        }
        list->low[e / 4] = low;
        list->high[e / 4] = high;
    }
    return 1;
}

/* Says which lanes share rows, and which take turns. */
static void share(st_events *events, const st_kernels *kernels)
{
    st_shared_lists *shared = &events->shared;
    int may = events->is_int8 && kernels->gather_int8_shared &&
              events->lanes >= ST_LEAST_SHARING && events->rows_read <= ST_MOST_SHARED_ROWS;
    shared->lanes = events->turn_lanes = 0;
    for (ptrdiff_t lane = 0; lane < events->lanes; lane++) {
        st_list *list = &events->list[lane];
        if (!may || !set_fours(list)) {
            events->turns[events->turn_lanes++] = lane;
            continue;
        }
        events->sharing[shared->lanes] = lane;
        shared->list[shared->lanes++] =
            (st_fours){(list->count + 3) / 4, list->index, list->low, list->high};
    }
    shared->row = events->row;
    shared->rows = events->rows_read;
}

void st_events_list(st_events *events, const st_kernels *kernels, const void *const *vector,
                    ptrdiff_t lanes, ptrdiff_t size)
{
    events->is_dense = 0;
    events->lanes = lanes;
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        st_list *list = &events->list[lane];
        list->count = events->is_int8
                          ? kernels->list_int16(vector[lane], size, list->index, list->value)
                          : kernels->list_float32(vector[lane], size, list->index, list->value);
        events->lane_events[lane] = list->count;
    }
    events->rows_read = count_rows(events, size);
    share(events, kernels);
}

void st_events_dense(st_events *events, const void *const *codes, ptrdiff_t lanes, ptrdiff_t size)
{
    events->is_dense = 1;
    events->lanes = events->codes.lanes = lanes;
    events->codes.groups = (size + 1) / 2;
    events->rows_read = size;
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        const int16_t *from = codes[lane];
        events->code_scale[lane] = 1.0f;
        events->lane_events[lane] = size;
        for (ptrdiff_t g = 0; g < events->codes.groups; g++) {
            uint32_t low = (uint16_t)from[2 * g];
            uint32_t high = 2 * g + 1 < size ? (uint16_t)from[2 * g + 1] : 0;
            events->codes.pair[g * lanes + lane] = (int32_t)(low | high << 16);
        }
    }
}

static ptrdiff_t strip_outputs(const st_events *events, int format, ptrdiff_t outputs)
{
    if (events->lanes == 1 || events->rows_read == 0) return outputs;
    ptrdiff_t row_bytes = ST_STRIP_BYTES / events->rows_read;
    ptrdiff_t strip = row_bytes / st_weight_bytes(format) / 64 * 64;
    return strip < ST_LEAST_STRIP ? ST_LEAST_STRIP : strip;
}

static void multiply_in_turns(const st_events *events, const st_kernels *k, const st_matrix *m,
                              ptrdiff_t first, ptrdiff_t last, float *const *out)
{
    ptrdiff_t strip = strip_outputs(events, m->format, last - first);
    for (ptrdiff_t at = first; at < last; at += strip) {
        ptrdiff_t end = at + strip < last ? at + strip : last;
        for (ptrdiff_t turn = 0; turn < events->turn_lanes; turn++) {
            ptrdiff_t lane = events->turns[turn];
            const st_list *list = &events->list[lane];
            if (events->is_int8)
                k->gather_int8(m, list->index, list->value, list->count, at, end, out[lane]);
            else
                (m->format == ST_BFLOAT16 ? k->gather_bfloat16 : k->gather_float32)(
                    m, list->index, list->value, list->count, at, end, out[lane]);
        }
    }
}

void st_events_multiply(const st_events *events, const st_kernels *k, const st_matrix *m,
                        ptrdiff_t first, ptrdiff_t last, float *const *out)
{
    if (events->is_dense) {
        k->dense_int8(m, &events->codes, events->code_scale, first, last, out);
        return;
    }
    float *shared_out[ST_MAX_LANES];
    for (ptrdiff_t i = 0; i < events->shared.lanes; i++) shared_out[i] = out[events->sharing[i]];
    if (events->shared.lanes) k->gather_int8_shared(m, &events->shared, first, last, shared_out);
    if (events->turn_lanes) multiply_in_turns(events, k, m, first, last, out);
}
