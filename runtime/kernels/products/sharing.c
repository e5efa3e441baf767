#include "sharing.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Tokens from which on packing rows, or lists with their sums in registers, are worth it. */
#define ST_MIN_SHARING 12
/* Rows up to which lists share them: the lines of two times 64 outputs have to fit the second-level
 * cache. */
#define ST_MAX_LIST_ROWS 6144
/* 255 * 128 * 65792 < 2^31: sums of low bytes fit. */
#define ST_MAX_BYTE_ROWS 65792
/* Rows that a kernel reads beyond the last. */
#define ST_ROWS_BEYOND 6
#define ST_MIN_STRIP 256
/* Graded events have no int4 weights, whose spans are longer: whole cache lines of int8 will do. */
#define ST_LINE_OUTPUTS 64

/* What pays for each kind of events (measured, docs/performance.md). */
static const struct {
    int planes;              /* rows of bytes that hold a token's events; 0: lists are shared */
    int percent;             /* of the inputs that must be active on average */
    ptrdiff_t strip_bytes;   /* of weights that tokens pass over in turn */
    ptrdiff_t block_outputs; /* most of a block that a thread takes */
    ptrdiff_t step;          /* of which the outputs of blocks and strips are multiples */
} policy[ST_KINDS] = {
    [ST_GRADED] = {0, 0, 1536 << 10, 8192, ST_LINE_OUTPUTS},
    [ST_SQUARES] = {2, 33, 768 << 10, PTRDIFF_MAX / 2, ST_SPAN},
    [ST_COUNTS] = {1, 20, 768 << 10, PTRDIFF_MAX / 2, ST_SPAN},
};

static void *aligned(size_t bytes)
{
    void *space = NULL;
    return posix_memalign(&space, 64, bytes + 64) ? NULL : space;
}

int st_sharing_init(st_events *events, ptrdiff_t size, ptrdiff_t tokens)
{
    int planes = policy[events->kind].planes, integer = !st_is_float(events->format);
    size_t inputs = (size_t)size, stride = (inputs + 63) / 64 * 64;
    size_t bytes = ((size_t)(tokens * planes) + ST_ROWS_BEYOND) * stride;
    events->row = aligned(inputs * sizeof *events->row);
    events->offset = aligned(inputs * sizeof *events->offset);
    int failed = !events->row || !events->offset;
    if (!integer) return failed;
    if (events->kind == ST_SQUARES)
        failed |= !(events->code = aligned((size_t)(tokens * size) * sizeof *events->code));
    if (!planes || failed) return failed;
    failed |= !(events->sums = aligned(ST_PARTS * ST_PART_OUTPUTS * sizeof *events->sums));
    failed |= !(events->byte_sum = aligned((size_t)tokens * sizeof *events->byte_sum));
    failed |= !(events->unit = aligned((size_t)tokens * sizeof *events->unit));
    failed |= !(events->bytes = aligned(bytes));
    if (!failed) memset(events->bytes, 0, bytes);
    return failed;
}

void st_sharing_free(st_events *events)
{
    free(events->row);
    free(events->offset);
    free(events->code);
    free(events->sums);
    free(events->byte_sum);
    free(events->unit);
    free(events->bytes);
}

/* --- lists that share rows ---------------------------------------------------------------------
 */

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

/* Lists whose sums int32 may not hold keep taking turns. */
static void share_lists(st_events *events)
{
    st_shared_lists *lists = &events->lists;
    lists->lanes = 0;
    for (ptrdiff_t t = 0; t < events->tokens; t++) {
        st_list *list = &events->list[t];
        list->has_bytes = set_fours(list);
        if (!list->has_bytes) continue;
        lists->lane[lists->lanes] = t;
        lists->list[lists->lanes++] = list;
    }
    lists->row = events->row;
    lists->rows = events->rows_read;
}

static int lists_pay(const st_events *events, const st_kernels *kernels)
{
    return kernels->rows_int8_shared && events->tokens <= ST_MAX_LANES &&
           events->rows_read <= ST_MAX_LIST_ROWS;
}

/* --- events as bytes ---------------------------------------------------------------------------
 */

int st_has_codes(const st_events *events, const st_kernels *kernels)
{
    return events->code && kernels->multiply_shared && events->tokens >= ST_MIN_SHARING;
}

static int bytes_pay(const st_rows *m, const st_events *events, const st_kernels *kernels)
{
    ptrdiff_t active = 0;
    if (!kernels->multiply_shared || m->rows > ST_MAX_BYTE_ROWS) return 0;
    if (m->format == ST_INT8_GROUPS) return 0;
    for (ptrdiff_t t = 0; t < events->tokens; t++) active += events->list[t].count;
    return active * 100 >= m->rows * events->tokens * policy[events->kind].percent;
}

static void fill_squares(const int16_t *restrict code, const int32_t *restrict row, ptrdiff_t size,
                         const st_shared_bytes *shared, uint8_t *restrict low)
{
    uint8_t *restrict high = low + shared->stride;
    size_t beyond = (size_t)(shared->stride - shared->rows);
    memset(low + shared->rows, 0, beyond);
    memset(high + shared->rows, 0, beyond);
    if (shared->rows == size) { /* Every input is active: row i is input i. */
        for (ptrdiff_t i = 0; i < size; i++) low[i] = (uint8_t)code[i];
        for (ptrdiff_t i = 0; i < size; i++) high[i] = (uint8_t)(code[i] >> 8);
        return;
    }
    for (ptrdiff_t i = 0; i < shared->rows; i++) {
        low[i] = (uint8_t)code[row[i]];
        high[i] = (uint8_t)(code[row[i]] >> 8);
    }
}

/* A count in several pieces is put together again; returns whether all fit a byte. */
static int fill_counts(const st_events *events, const st_list *list, int8_t *bytes, int32_t *sum)
{
    const int16_t *value = list->value;
    int fits = 1;
    *sum = 0;
    memset(bytes, 0, (size_t)events->shared.stride);
    for (ptrdiff_t e = 0; e < list->count; e++) {
        int8_t *to = bytes + events->offset[list->index[e]];
        int together = *to + value[e];
        fits &= together >= -127 && together <= 127;
        *to = (int8_t)together;
        *sum += value[e];
    }
    return fits;
}

typedef struct {
    st_events *events;
    const int16_t *code;
    ptrdiff_t width;
    _Atomic int misfits;
} st_fill_job;

static void fill_block(void *argument, int block)
{
    st_fill_job *job = argument;
    st_events *events = job->events;
    const st_shared_bytes *shared = &events->shared;
    ptrdiff_t first = block * job->width, last = ST_MIN(first + job->width, shared->tokens);
    for (ptrdiff_t t = first; t < last; t++) {
        uint8_t *bytes = events->bytes + t * shared->planes * shared->stride;
        const st_list *list = &events->list[t];
        events->unit[t] = list->unit;
        if (job->code)
            fill_squares(job->code + t * events->size, shared->row, events->size, shared, bytes);
        else if (!fill_counts(events, list, (int8_t *)bytes, &events->byte_sum[t]))
            atomic_store(&job->misfits, 1);
    }
}

/* 0 where a count fits no byte, so that only lists will do. */
static int share_bytes(st_events *events, const int16_t *code, st_pool *pool)
{
    if (code || events->rows_read < 0) st_find_rows(events, code, pool);
    events->shared = (st_shared_bytes){
        .planes = policy[events->kind].planes,
        .tokens = events->tokens,
        .rows = events->rows_read,
        .stride = (events->rows_read + 63) / 64 * 64,
        .row = events->row,
        .bytes = events->bytes,
        .sum = events->byte_sum,
        .unit = events->unit,
    };
    ptrdiff_t blocks = st_pool_threads(pool) == 1 ? 1 : 2 * st_pool_threads(pool);
    st_fill_job job = {events, code, (events->tokens + blocks - 1) / blocks, 0};
    st_pool_run(pool, fill_block, &job, (int)blocks);
    return !atomic_load(&job.misfits);
}

typedef struct {
    st_events *events;
    const st_kernels *kernels;
} st_list_job;

static void list_codes(void *argument, int token)
{
    const st_list_job *job = argument;
    const st_events *events = job->events;
    st_list *list = &events->list[token];
    job->kernels->list_int16(events->code + token * events->size, events->size, list->index,
                             list->value);
}

/* --- the policy --------------------------------------------------------------------------------
 */

void st_share_rows(const st_rows *m, st_events *events, const st_kernels *kernels, st_pool *pool)
{
    int codes = st_has_codes(events, kernels);
    int may = events->tokens >= ST_MIN_SHARING && !st_is_float(m->format);
    events->sharing = ST_TURNS;
    if (events->kind == ST_GRADED) {
        st_events_rows_read(events, pool);
        if (!may || !lists_pay(events, kernels)) return;
        events->sharing = ST_SHARED_LISTS;
        share_lists(events);
        return;
    }
    if (may && bytes_pay(m, events, kernels) &&
        share_bytes(events, codes ? events->code : NULL, pool)) {
        events->sharing = ST_SHARED_BYTES;
        return;
    }
    st_list_job job = {events, kernels};
    if (codes) st_pool_run(pool, list_codes, &job, (int)events->tokens);
}

ptrdiff_t st_strip_outputs(const st_rows *m, const st_events *events)
{
    ptrdiff_t rows = events->kind == ST_GRADED ? events->rows_read : m->rows;
    if (events->tokens <= 1 || rows <= 0) return ST_MAX(m->cols, 1);
    ptrdiff_t bits = policy[events->kind].strip_bytes * 8 / rows;
    ptrdiff_t step = policy[events->kind].step;
    return ST_MAX(bits / st_formats[m->format].bits / step * step, ST_MIN_STRIP);
}

ptrdiff_t st_block_outputs(const st_events *events)
{
    return policy[events->kind].block_outputs;
}

ptrdiff_t st_block_step(const st_events *events)
{
    return events->sharing == ST_SHARED_BYTES ? ST_PANEL : policy[events->kind].step;
}
