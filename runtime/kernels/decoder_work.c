/* How a decoder's work is shared out, what its products read, and how both are counted. */
#include <stdlib.h>
#include <string.h>

#include "decoder.h"

/* Values below which elementwise work is not shared out. */
#define ST_SHARE_VALUES 8192

#define ST_MIN(a, b) ((a) < (b) ? (a) : (b))

typedef struct {
    const st_block *block;
    const void *subject;
    st_task task;
    ptrdiff_t size, width;
} st_shared_job;

static void shared_part(void *argument, int part)
{
    const st_shared_job *job = argument;
    ptrdiff_t first = part * job->width, last = ST_MIN(first + job->width, job->size);
    if (first < last) job->task(job->block, job->subject, part, first, last);
}

void st_share(const st_block *block, const void *subject, st_task task, ptrdiff_t size,
              ptrdiff_t step, ptrdiff_t values)
{
    st_pool *pool = block->network->pool;
    ptrdiff_t parts = block->network->parts;
    if (st_pool_threads(pool) == 1 || values < ST_SHARE_VALUES) {
        task(block, subject, 0, 0, size);
        return;
    }
    ptrdiff_t width = ((size + parts - 1) / parts + step - 1) / step * step;
    st_shared_job job = {block, subject, task, size, width};
    st_pool_run(pool, shared_part, &job, (int)((size + width - 1) / width));
}

/* --- readings ------------------------------------------------------------------------------ */

/* Sum of |counts|: k a unit and half of one for rounding, with room for that of the mean. */
static ptrdiff_t most_counts(const st_decoder *n, ptrdiff_t size)
{
    return (ptrdiff_t)((double)size * ((double)n->most_k * 1.01 + 0.5)) + 64;
}

int st_reading_init(st_reading *reading, const st_decoder *n, ptrdiff_t size)
{
    ptrdiff_t room = size + most_counts(n, size) / st_sparse_most(n->event_format, ST_COUNTS);
    void *values = NULL;
    memset(reading, 0, sizeof *reading);
    reading->fired = calloc(2 * ST_BLOCK_TOKENS, sizeof *reading->fired);
    reading->ones = reading->fired + ST_BLOCK_TOKENS;
    if (posix_memalign(&values, 64, (size_t)(ST_BLOCK_TOKENS * size) * sizeof(float) + 64))
        return -1;
    reading->values = values;
    if (!reading->fired || st_dense_input_init(&reading->dense, size, ST_BLOCK_TOKENS)) return -1;
    if (n->most_k == 0.0f) return 0;
    return st_sparse_input_init(&reading->events, n->event_format, ST_COUNTS, size, room,
                                ST_BLOCK_TOKENS);
}

void st_reading_free(st_reading *reading)
{
    st_dense_input_free(&reading->dense);
    st_sparse_input_free(&reading->events);
    free(reading->values);
    free(reading->fired);
}

/* Inputs whose count is 1 or -1; a count in several pieces is neither. */
static int64_t count_ones(const st_sparse_list *list)
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

typedef struct {
    st_reading *reading;
    const st_place *place;
    const float *from;
    ptrdiff_t stride, size;
} st_read_job;

/* Thresholds below which a sequence's inputs are silent. Rounding leaves nothing of half a one, which
 * is what a dial above 1 raises where the place has no larger dead zone. */
static float dead_zone_of(const st_block *block, ptrdiff_t t, const st_place *place)
{
    ptrdiff_t at = block->network->dial;
    float dial = at ? *(const float *)(st_state_of(block, t) + at) : 1.0f;
    if (dial == 1.0f) return place->dead_zone;
    return dial * (place->dead_zone < 0.5f ? 0.5f : place->dead_zone);
}

static void read_rows(const st_block *block, const void *subject, int part, ptrdiff_t first,
                      ptrdiff_t last)
{
    (void)part;
    const st_read_job *job = subject;
    const st_kernels *kernels = block->network->kernels;
    st_reading *reading = job->reading;
    const st_place *place = job->place;
    if (place->codes) st_dense_quantise(&reading->dense, kernels, first, last);
    if (!place->spiking) return;
    for (ptrdiff_t t = first; t < last; t++) {
        const float *row = job->from + t * job->stride;
        float *values = reading->values + t * job->size;
        st_sparse_list *list = &reading->events.list[t];
        float dead_zone = dead_zone_of(block, t, place);
        if (place->values) {
            kernels->spike_values(row, place->k, dead_zone, job->size, values);
            int64_t fired = 0;
            for (ptrdiff_t i = 0; i < job->size; i++) fired += values[i] != 0.0f;
            reading->fired[t] = fired;
        }
        if (place->events || block->network->record.next) {
            list->count = kernels->spike_list(
                row, place->k, dead_zone, job->size,
                st_sparse_most(reading->events.format, ST_COUNTS), list->index, list->value,
                &list->unit, &reading->fired[t]);
            reading->ones[t] = count_ones(list);
        }
    }
}

/* The counts of a single token; one in several pieces is their sum. */
static void record_counts(st_record *record, const st_sparse_list *list, ptrdiff_t size)
{
    const int16_t *value = list->value;
    if (record->room < size) return;
    memset(record->next, 0, (size_t)size * sizeof *record->next);
    for (ptrdiff_t e = 0; e < list->count; e++) record->next[list->index[e]] += value[e];
    record->next += size;
    record->room -= size;
}

/* Neurons before the head are none of a sequence's own: how often it runs depends on the calls. */
static void count_neurons(const st_block *block, const st_reading *reading, ptrdiff_t size,
                          st_work *work)
{
    for (ptrdiff_t t = 0; t < block->tokens; t++) {
        st_sequence_work *sequence = &block->sequence[block->scan ? 0 : t];
        work->neurons += size;
        work->events += reading->fired[t];
        sequence->neurons += size;
        sequence->events += reading->fired[t];
    }
}

void st_read(const st_block *block, st_reading *reading, const st_place *place, const float *from,
             ptrdiff_t stride, ptrdiff_t size, st_work *work)
{
    st_read_job job = {reading, place, from, stride, size};
    int own = place->spiking && place->values;
    st_dense_input_set(&reading->dense, own ? reading->values : from, own ? size : stride,
                       block->tokens, size);
    reading->events.tokens = block->tokens;
    reading->events.size = size;
    st_share(block, &job, read_rows, block->tokens, 1, block->tokens * size);
    if (!place->spiking) return;
    count_neurons(block, reading, size, work);
    if (block->network->record.next)
        record_counts(&block->network->record, reading->events.list, size);
}

/* --- products ------------------------------------------------------------------------------ */

static int64_t dense_bytes(const st_dense *m)
{
    int64_t weights = (int64_t)m->inputs * m->outputs;
    if (m->format == ST_FLOAT32) return 4 * weights;
    if (m->format == ST_BFLOAT16) return 2 * weights;
    if (m->format == ST_INT8) return weights;
    return (weights + 1) / 2 + 2 * ((m->inputs + m->group - 1) / m->group) * m->outputs;
}

static int64_t row_bytes(const st_sparse *m)
{
    return m->format == ST_INT4 ? (m->cols + 1) / 2 + (m->cols + ST_SPAN - 1) / ST_SPAN : m->cols;
}

static void add_dense(const st_block *block, const st_dense *m, ptrdiff_t first, ptrdiff_t last,
                      st_work *work)
{
    int64_t bytes = dense_bytes(m), macs = (int64_t)m->inputs * m->outputs * (last - first);
    work->bytes_touched += bytes;
    work->bytes_dense += bytes * (last - first);
    work->macs_dense += macs;
    work->macs_effective += macs;
    for (ptrdiff_t t = first; t < last; t++)
        block->sequence[block->scan ? 0 : t].bytes_touched += bytes;
}

/* Rows that any of the tokens reads; a count in several pieces is one input. */
static int64_t rows_read(const st_block *block, const st_reading *reading, ptrdiff_t first,
                         ptrdiff_t last)
{
    uint8_t *active = block->network->active;
    int64_t read = 0;
    if (last - first == 1) return reading->fired[first];
    memset(active, 0, (size_t)reading->events.size);
    for (ptrdiff_t t = first; t < last; t++) {
        const st_sparse_list *list = &reading->events.list[t];
        for (ptrdiff_t e = 0; e < list->count; e++) {
            read += !active[list->index[e]];
            active[list->index[e]] = 1;
        }
    }
    return read;
}

/* Counts of 1 and -1 are additions alone. */
static void add_sparse(const st_block *block, const st_linear *linear, const st_reading *reading,
                       ptrdiff_t first, ptrdiff_t last, st_work *work)
{
    const st_sparse *m = &linear->sparse;
    int64_t row = row_bytes(m);
    for (ptrdiff_t t = first; t < last; t++) {
        int64_t inputs = reading->fired[t], ones = reading->ones[t];
        work->silent_rows += (m->rows - inputs) * linear->matrices;
        work->macs_effective += (inputs - ones) * m->cols;
        work->acs_effective += ones * m->cols;
        block->sequence[block->scan ? 0 : t].bytes_touched += inputs * row;
    }
    work->bytes_touched += rows_read(block, reading, first, last) * row;
    work->bytes_dense += m->rows * row * (last - first);
    work->macs_dense += (int64_t)m->rows * m->cols * (last - first);
}

typedef struct {
    const st_linear *linear;
    float *y;
    ptrdiff_t outputs, stride;
} st_bias_job;

static void add_bias(const st_block *block, const void *subject, int part, ptrdiff_t first,
                     ptrdiff_t last)
{
    (void)part;
    const st_bias_job *job = subject;
    for (ptrdiff_t t = first; t < last; t++)
        block->network->kernels->add_vector(job->linear->bias, job->outputs,
                                            job->y + t * job->stride);
}

void st_multiply(const st_block *block, const st_reading *reading, const st_linear *linear,
                 ptrdiff_t first, ptrdiff_t last, float *y, ptrdiff_t stride, st_work *work)
{
    const st_decoder *n = block->network;
    ptrdiff_t tokens = last - first;
    if (linear->by_rows) {
        st_sparse_input events = reading->events;
        events.list += first;
        events.tokens = tokens;
        add_sparse(block, linear, reading, first, last, work);
        st_sparse_run(&linear->sparse, &events, n->kernels, y, stride, n->pool);
    } else {
        st_dense_input input = reading->dense;
        input.x += first * input.x_stride;
        input.codes += first * input.stride;
        input.scale += first;
        input.sum += first * (input.stride / ST_GROUP);
        input.total += first;
        input.tokens = tokens;
        add_dense(block, &linear->dense, first, last, work);
        const st_dense_product product = {&linear->dense, &input, y, stride};
        st_dense_run(&product, 1, n->kernels, n->pool);
    }
    if (!linear->bias) return;
    ptrdiff_t outputs = linear->by_rows ? linear->sparse.cols : linear->dense.outputs;
    st_bias_job job = {linear, y, outputs, stride};
    st_share(block, &job, add_bias, tokens, 1, tokens * outputs);
}
