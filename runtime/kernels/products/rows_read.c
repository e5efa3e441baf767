/* The rows that any of the tokens of a block reads. */
#include <string.h>

#include "sharing.h"

/* Events below which one thread marks their rows. */
#define ST_SPLIT_MARKS 8192

static void mark_codes(const int16_t *restrict code, ptrdiff_t size, int32_t *restrict mark)
{
    for (ptrdiff_t i = 0; i < size; i++) mark[i] |= code[i] != 0;
}

typedef struct {
    const st_events *events;
    ptrdiff_t width; /* tokens of a block */
} st_mark_job;

/* Threads mark the same rows with the same value. */
static void mark_lists(void *argument, int block)
{
    const st_mark_job *job = argument;
    const st_events *events = job->events;
    ptrdiff_t first = block * job->width, last = ST_MIN(first + job->width, events->tokens);
    for (ptrdiff_t t = first; t < last; t++) {
        const st_list *list = &events->list[t];
        for (ptrdiff_t e = 0; e < list->count; e++)
            __atomic_store_n(&events->offset[list->index[e]], 1, __ATOMIC_RELAXED);
    }
}

static void mark_all_lists(const st_events *events, st_pool *pool)
{
    ptrdiff_t marks = 0, threads = st_pool_threads(pool);
    for (ptrdiff_t t = 0; t < events->tokens; t++) marks += events->list[t].count;
    ptrdiff_t blocks = marks < ST_SPLIT_MARKS ? 1 : ST_MIN(threads, events->tokens);
    st_mark_job job = {events, (events->tokens + blocks - 1) / blocks};
    st_pool_run(pool, mark_lists, &job, (int)blocks);
}

void st_find_rows(st_events *events, const int16_t *code, st_pool *pool)
{
    ptrdiff_t rows = 0, size = events->size;
    int32_t *mark = events->offset;
    memset(mark, 0, (size_t)size * sizeof *mark);
    if (!code) mark_all_lists(events, pool);
    for (ptrdiff_t t = 0; code && t < events->tokens; t++) mark_codes(code + t * size, size, mark);
    for (ptrdiff_t i = 0; i < size; i++) {
        int32_t active = mark[i];
        events->row[rows] = (int32_t)i;
        mark[i] = (int32_t)rows;
        rows += active;
    }
    events->rows_read = rows;
}

ptrdiff_t st_events_rows_read(st_events *events, st_pool *pool)
{
    if (events->tokens == 1) return (ptrdiff_t)events->list[0].inputs;
    if (events->rows_read < 0) st_find_rows(events, NULL, pool);
    return events->rows_read;
}
