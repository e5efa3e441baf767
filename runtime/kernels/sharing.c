#include "sharing.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Tokens from which on packing rows is worth it. */
#define ST_LEAST_TOKENS 12
/* Percent of the inputs that must be active on average (measured, docs/performance.md). */
#define ST_SQUARES_PERCENT 33
#define ST_COUNTS_PERCENT 20
/* 255 * 128 * 65792 < 2^31: sums of low bytes fit. */
#define ST_MOST_ROWS 65792
/* Rows that a kernel reads beyond the last. */
#define ST_ROWS_BEYOND 6

#define ST_MIN(a, b) ((a) < (b) ? (a) : (b))

static ptrdiff_t planes_of(int kind)
{
    return kind == ST_COUNTS ? 1 : 2;
}

static void *aligned(size_t bytes)
{
    void *space = NULL;
    return posix_memalign(&space, 64, bytes + 64) ? NULL : space;
}

int st_sharing_init(st_sharing *sharing, int kind, ptrdiff_t size, ptrdiff_t tokens)
{
    memset(sharing, 0, sizeof *sharing);
    sharing->kind = kind;
    size_t stride = ((size_t)size + 63) / 64 * 64;
    size_t bytes = ((size_t)(tokens * planes_of(kind)) + ST_ROWS_BEYOND) * stride;
    sharing->row = aligned((size_t)size * sizeof *sharing->row);
    sharing->place = aligned((size_t)size * sizeof *sharing->place);
    sharing->sum = aligned((size_t)tokens * sizeof *sharing->sum);
    sharing->unit = aligned((size_t)tokens * sizeof *sharing->unit);
    sharing->bytes = aligned(bytes);
    if (!sharing->row || !sharing->place || !sharing->sum || !sharing->unit || !sharing->bytes) {
        st_sharing_free(sharing);
        return -1;
    }
    memset(sharing->bytes, 0, bytes);
    return 0;
}

void st_sharing_free(st_sharing *sharing)
{
    free(sharing->row);
    free(sharing->place);
    free(sharing->sum);
    free(sharing->unit);
    free(sharing->bytes);
    memset(sharing, 0, sizeof *sharing);
}

int st_sharing_possible(ptrdiff_t tokens, const st_kernels *kernels)
{
    return kernels->sparse_shared && tokens >= ST_LEAST_TOKENS;
}

int st_sharing_pays(const st_sparse *m, int kind, const st_sparse_list *list, ptrdiff_t tokens,
                    const st_kernels *kernels)
{
    ptrdiff_t events = 0;
    if (!st_sharing_possible(tokens, kernels) || m->rows > ST_MOST_ROWS) return 0;
    if (st_is_float(m->format) || m->format == ST_INT8_GROUPS) return 0;
    for (ptrdiff_t t = 0; t < tokens; t++) events += list[t].count;
    ptrdiff_t percent = kind == ST_COUNTS ? ST_COUNTS_PERCENT : ST_SQUARES_PERCENT;
    return events * 100 >= m->rows * tokens * percent;
}

/* --- filling -------------------------------------------------------------------------------- */

static void mark_codes(const int16_t *restrict code, ptrdiff_t size, int32_t *restrict place)
{
    for (ptrdiff_t i = 0; i < size; i++) place[i] |= code[i] != 0;
}

/* Rows that any token reads, ascending, and the place of each. */
static ptrdiff_t find_rows(st_sharing *sharing, const int16_t *code, const st_sparse_list *list,
                           ptrdiff_t tokens, ptrdiff_t size)
{
    ptrdiff_t rows = 0;
    memset(sharing->place, 0, (size_t)size * sizeof *sharing->place);
    for (ptrdiff_t t = 0; t < tokens; t++) {
        if (code)
            mark_codes(code + t * size, size, sharing->place);
        else
            for (ptrdiff_t e = 0; e < list[t].count; e++) sharing->place[list[t].index[e]] = 1;
    }
    for (ptrdiff_t i = 0; i < size; i++) {
        int active = sharing->place[i];
        sharing->row[rows] = (int32_t)i;
        sharing->place[i] = (int32_t)rows;
        rows += active;
    }
    return rows;
}

static void fill_squares(const int16_t *restrict code, const int32_t *restrict row, ptrdiff_t size,
                         const st_shared *shared, uint8_t *restrict low)
{
    uint8_t *restrict high = low + shared->stride;
    size_t beyond = (size_t)(shared->stride - shared->rows);
    memset(low + shared->rows, 0, beyond);
    memset(high + shared->rows, 0, beyond);
    if (shared->rows == size) { /* each in its place: without a look at it */
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
static int fill_counts(const st_sharing *sharing, const st_sparse_list *list, int8_t *bytes,
                       int32_t *sum)
{
    const int16_t *value = list->value;
    int fits = 1;
    *sum = 0;
    memset(bytes, 0, (size_t)sharing->shared.stride);
    for (ptrdiff_t e = 0; e < list->count; e++) {
        int8_t *to = bytes + sharing->place[list->index[e]];
        int together = *to + value[e];
        fits &= together >= -127 && together <= 127;
        *to = (int8_t)together;
        *sum += value[e];
    }
    return fits;
}

typedef struct {
    st_sharing *sharing;
    const int16_t *code;
    const st_sparse_list *list;
    ptrdiff_t size, width;
    _Atomic int misfits;
} st_fill_job;

static void fill_block(void *argument, int block)
{
    st_fill_job *job = argument;
    const st_shared *shared = &job->sharing->shared;
    ptrdiff_t first = block * job->width, last = ST_MIN(first + job->width, shared->tokens);
    for (ptrdiff_t t = first; t < last; t++) {
        uint8_t *bytes = job->sharing->bytes + t * shared->planes * shared->stride;
        job->sharing->unit[t] = job->list[t].unit;
        if (job->code)
            fill_squares(job->code + t * job->size, shared->row, job->size, shared, bytes);
        else if (!fill_counts(job->sharing, &job->list[t], (int8_t *)bytes,
                              &job->sharing->sum[t]))
            atomic_store(&job->misfits, 1);
    }
}

int st_sharing_set(st_sharing *sharing, const int16_t *code, const st_sparse_list *list,
                   ptrdiff_t tokens, ptrdiff_t size, st_pool *pool)
{
    ptrdiff_t rows = find_rows(sharing, code, list, tokens, size);
    sharing->shared = (st_shared){
        .planes = (int)planes_of(sharing->kind),
        .tokens = tokens,
        .rows = rows,
        .stride = (rows + 63) / 64 * 64,
        .row = sharing->row,
        .bytes = sharing->bytes,
        .sum = sharing->sum,
        .unit = sharing->unit,
    };
    ptrdiff_t blocks = st_pool_threads(pool) == 1 ? 1 : 2 * st_pool_threads(pool);
    st_fill_job job = {sharing, code, list, size, (tokens + blocks - 1) / blocks, 0};
    st_pool_run(pool, fill_block, &job, (int)blocks);
    return atomic_load(&job.misfits) ? -1 : 0;
}
