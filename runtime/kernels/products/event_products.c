/* How the products of events run: one call of a kernel, strips, blocks of outputs, parts of a list.
 */
#include <string.h>

#include "sharing.h"

/* Weight bytes below which a second thread costs more than it saves. */
#define ST_SPLIT_BYTES 100000
/* Blocks of outputs that a thread takes of a product that shares rows as bytes. */
#define ST_BLOCKS_A_THREAD 2

/* Parts of a list a thread, the fewest events of one, and those that kernels add at a time. */
#define ST_PARTS_A_THREAD 2
#define ST_PART_EVENTS 64
#define ST_GROUP_EVENTS 16

typedef void (*st_rows_kernel)(const st_rows *m, const st_list *list, ptrdiff_t first,
                               ptrdiff_t last, float *y);

static st_rows_kernel kernel_of(const st_rows *m, int kind, const st_kernels *kernels)
{
    size_t at = st_formats[m->format].multiply_rows[kind];
    return *(const st_rows_kernel *)((const char *)kernels + at);
}

/* Outputs first .. last of every token. */
static void multiply(const st_event_product *product, const st_kernels *kernels, ptrdiff_t first,
                     ptrdiff_t last)
{
    const st_rows *m = product->matrix;
    const st_events *events = product->events;
    if (events->sharing == ST_SHARED_BYTES) {
        kernels->multiply_shared(m, &events->shared, first, last, product->y, product->y_stride);
        return;
    }
    int shares = events->sharing == ST_SHARED_LISTS;
    if (shares && events->lists.lanes)
        kernels->rows_int8_shared(m, &events->lists, first, last, product->y, product->y_stride);
    if (shares && events->lists.lanes == events->tokens) return;
    st_rows_kernel kernel = kernel_of(m, events->kind, kernels);
    ptrdiff_t strip = st_strip_outputs(m, events);
    for (ptrdiff_t at = first; at < last; at += strip)
        for (ptrdiff_t t = 0; t < events->tokens; t++) {
            const st_list *list = &events->list[t];
            if (!shares || !list->has_bytes)
                kernel(m, list, at, ST_MIN(at + strip, last), product->y + t * product->y_stride);
        }
}

typedef struct {
    const st_event_product *product;
    const st_kernels *kernels;
    ptrdiff_t width[2]; /* outputs of a block, or events of a part */
    int blocks[2];
} st_event_job;

static void product_block(void *argument, int block)
{
    const st_event_job *job = argument;
    int which = block >= job->blocks[0];
    ptrdiff_t first = (block - (which ? job->blocks[0] : 0)) * job->width[which];
    ptrdiff_t last = ST_MIN(first + job->width[which], job->product[which].matrix->cols);
    if (first < last) multiply(&job->product[which], job->kernels, first, last);
}

/* Cuts a product into blocks of outputs; returns how many. */
static int cut(const st_event_product *product, ptrdiff_t threads, ptrdiff_t *width)
{
    const st_events *events = product->events;
    ptrdiff_t cols = product->matrix->cols, most = st_block_outputs(events), blocks = 1;
    if (threads > 1) {
        blocks = ST_MAX((cols + most - 1) / most, 1);
        blocks = (blocks + threads - 1) / threads * threads;
        if (events->sharing == ST_SHARED_BYTES) blocks *= ST_BLOCKS_A_THREAD;
    }
    ptrdiff_t step = st_block_step(events);
    *width = ST_MAX(((cols + blocks - 1) / blocks + step - 1) / step * step, step);
    return (int)((cols + *width - 1) / *width);
}

/* Parts of the list of a single token, whole rows each: 0 where outputs are better split, or the
 * sums may not fit. */
static ptrdiff_t list_parts(const st_rows *m, const st_events *events, int threads)
{
    if (events->kind == ST_GRADED || events->tokens != 1 || m->cols > ST_PART_OUTPUTS) return 0;
    if (m->format != ST_INT8 && m->format != ST_INT4) return 0;
    const st_list *list = events->list;
    const int16_t *value = list->value;
    int64_t sum = 0;
    for (ptrdiff_t e = 0; e < list->count; e++) sum += value[e] < 0 ? -value[e] : value[e];
    int small = m->format == ST_INT4 && events->kind == ST_COUNTS;
    if (sum > (small ? ST_SAFE_COUNT_SUM : ST_SAFE_EVENT_SUM)) return 0;
    ptrdiff_t parts = ST_MIN(threads * ST_PARTS_A_THREAD, ST_PARTS);
    parts = ST_MIN(parts, list->count / ST_PART_EVENTS);
    return parts < 2 ? 0 : parts;
}

static void list_part(void *argument, int part)
{
    const st_event_job *job = argument;
    const st_events *events = job->product->events;
    st_list some = *events->list;
    ptrdiff_t first = part * job->width[0], last = ST_MIN(first + job->width[0], some.count);
    some.index += first;
    some.value = (int16_t *)some.value + first;
    some.count = last - first;
    job->kernels->sum_events(job->product->matrix, events->kind == ST_COUNTS, &some,
                             events->sums + part * ST_PART_OUTPUTS);
}

/* Integer sums are exact, so that their parts add up to the same. */
static void run_parts(st_event_job *job, ptrdiff_t parts, st_pool *pool)
{
    const st_events *events = job->product->events;
    const st_list *list = events->list;
    job->width[0] = ((list->count + parts - 1) / parts + ST_GROUP_EVENTS - 1) / ST_GROUP_EVENTS *
                    ST_GROUP_EVENTS;
    int count = (int)((list->count + job->width[0] - 1) / job->width[0]);
    st_pool_run(pool, list_part, job, count);
    job->kernels->add_parts(job->product->matrix, events->sums, count, ST_PART_OUTPUTS, list->unit,
                            job->product->y);
}

/* Weight bytes that a product reads: of graded events the rows that any token reads, which stay in
 * the caches from one token to the next, else those of all tokens, each for itself. */
static ptrdiff_t bytes_read(const st_event_product *product, st_pool *pool)
{
    st_events *events = product->events;
    const st_rows *m = product->matrix;
    ptrdiff_t rows = 0;
    if (events->kind == ST_GRADED)
        rows = st_events_rows_read(events, pool);
    else
        for (ptrdiff_t t = 0; t < events->tokens; t++) rows += events->list[t].count;
    return st_code_bytes(m->format, m->cols) * rows;
}

void st_event_products_run(const st_event_product *product, int count, const st_kernels *kernels,
                           st_pool *pool)
{
    st_event_job job = {.product = product, .kernels = kernels};
    ptrdiff_t bytes = 0;
    for (int i = 0; i < count; i++) {
        st_share_rows(product[i].matrix, product[i].events, kernels, pool);
        bytes += bytes_read(&product[i], pool);
    }
    int threads = bytes < ST_SPLIT_BYTES ? 1 : st_pool_threads(pool), blocks = 0;
    ptrdiff_t parts =
        threads == 1 || count > 1 ? 0 : list_parts(product->matrix, product->events, threads);
    if (parts) {
        run_parts(&job, parts, pool);
        return;
    }
    for (int i = 0; i < count; i++) {
        job.blocks[i] = cut(&product[i], threads, &job.width[i]);
        blocks += job.blocks[i];
    }
    if (threads == 1)
        for (int block = 0; block < blocks; block++) product_block(&job, block);
    else
        st_pool_run(pool, product_block, &job, blocks);
}
