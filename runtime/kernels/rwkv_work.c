/* How the work of an RWKV network is shared out, and how it is counted. */
#include <string.h>

#include "rwkv.h"

/* Values below which elementwise work is not shared out. */
#define ST_SHARE_VALUES 8192
#define ST_STEP_CHANNELS 64

#define ST_MIN(a, b) ((a) < (b) ? (a) : (b))

typedef struct {
    const st_pass *pass;
    const void *subject;
    st_range function;
    ptrdiff_t size, width;
} st_range_job;

static void range_block(void *argument, int block)
{
    const st_range_job *job = argument;
    ptrdiff_t first = block * job->width, last = ST_MIN(first + job->width, job->size);
    if (first < last) job->function(job->pass, job->subject, first, last);
}

/* [0, size) in pieces that are multiples of `step`. */
static void share(const st_pass *pass, const void *subject, st_range function, ptrdiff_t size,
                  ptrdiff_t step)
{
    st_pool *pool = pass->network->pool;
    ptrdiff_t threads = st_pool_threads(pool);
    if (threads == 1 || pass->tokens * pass->network->width < ST_SHARE_VALUES) {
        function(pass, subject, 0, size);
        return;
    }
    ptrdiff_t blocks = 2 * threads, width = (size + blocks - 1) / blocks;
    width = (width + step - 1) / step * step;
    st_range_job job = {pass, subject, function, size, width};
    st_pool_run(pool, range_block, &job, (int)((size + width - 1) / width));
}

void st_over_tokens(const st_pass *pass, const void *subject, st_range function)
{
    share(pass, subject, function, pass->tokens, 1);
}

void st_over_channels(const st_pass *pass, const void *subject, st_range function)
{
    share(pass, subject, function, pass->network->width, ST_STEP_CHANNELS);
}

/* --- counters ------------------------------------------------------------------------------ */

int64_t st_dense_bytes(const st_dense *m)
{
    int64_t weights = (int64_t)m->inputs * m->outputs;
    if (m->format != ST_INT4) return st_weight_bytes(m->format) * weights;
    int64_t groups = (m->inputs + m->group - 1) / m->group;
    return (weights + 1) / 2 + 2 * groups * m->outputs;
}

int64_t st_sparse_row_bytes(const st_sparse *m)
{
    if (m->format != ST_INT4) return st_weight_bytes(m->format) * m->cols;
    return (m->cols + 1) / 2 + (m->cols + ST_SPAN - 1) / ST_SPAN;
}

void st_count_dense(const st_pass *pass, st_work *work, const st_dense *m)
{
    int64_t bytes = st_dense_bytes(m), macs = (int64_t)m->inputs * m->outputs;
    work->bytes_touched += bytes;
    work->bytes_dense += bytes * pass->tokens;
    work->macs_dense += macs * pass->tokens;
    work->macs_effective += macs * pass->tokens;
    for (ptrdiff_t t = 0; t < pass->tokens; t++)
        pass->sequence[pass->scan ? 0 : t].bytes_touched += bytes;
}

/* The inputs among the events of one token, a count in several pieces being one, and those that are
 * 1 or -1: additions alone. */
static void count_pieces(const st_sparse_input *events, const st_sparse_list *list,
                         int64_t *inputs, int64_t *ones)
{
    *inputs = *ones = 0;
    for (ptrdiff_t e = 0; e < list->count; e++) {
        int first = e == 0 || list->index[e - 1] != list->index[e];
        int last = e + 1 == list->count || list->index[e + 1] != list->index[e];
        float size = st_is_float(events->format) ? ((const float *)list->value)[e] / list->unit
                                                 : ((const int16_t *)list->value)[e];
        *inputs += last;
        *ones += first && last && (size == 1.0f || size == -1.0f);
    }
}

/* Threads mark the same rows with the same value. */
static void count_lists(const st_pass *pass, const void *subject, ptrdiff_t first, ptrdiff_t last)
{
    const st_sparse_input *events = subject;
    const st_rwkv *n = pass->network;
    for (ptrdiff_t t = first; t < last; t++) {
        const st_sparse_list *list = &events->list[t];
        n->inputs[t] = list->count;
        n->ones[t] = 0;
        if (events->kind == ST_COUNTS) count_pieces(events, list, &n->inputs[t], &n->ones[t]);
        if (pass->tokens == 1 || events->shares) continue;
        for (ptrdiff_t e = 0; e < list->count; e++)
            __atomic_store_n(&n->active[list->index[e]], 1, __ATOMIC_RELAXED);
    }
}

void st_count_sparse(const st_pass *pass, st_work *work, const st_sparse *m,
                     const st_sparse_input *events)
{
    const st_rwkv *n = pass->network;
    int64_t row = st_sparse_row_bytes(m), read = 0;
    if (!events->shares) memset(n->active, 0, (size_t)m->rows);
    st_over_tokens(pass, events, count_lists);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        work->silent_rows += m->rows - n->inputs[t];
        work->macs_effective += (n->inputs[t] - n->ones[t]) * m->cols;
        work->acs_effective += n->ones[t] * m->cols;
        pass->sequence[pass->scan ? 0 : t].bytes_touched += n->inputs[t] * row;
    }
    if (events->shares)
        read = events->sharing.shared.rows;
    else if (pass->tokens == 1)
        read = n->inputs[0];
    else
        for (ptrdiff_t i = 0; i < m->rows; i++) read += n->active[i];
    work->bytes_touched += read * row;
    work->bytes_dense += m->rows * row * pass->tokens;
    work->macs_dense += (int64_t)m->rows * m->cols * pass->tokens;
}

void st_count_units(const st_pass *pass, st_work *work, ptrdiff_t units, const int64_t *fired)
{
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        st_sequence_work *sequence = &pass->sequence[pass->scan ? 0 : t];
        work->neurons += units;
        work->events += fired[t];
        if (work == pass->network->head_work) continue;
        sequence->neurons += units;
        sequence->events += fired[t];
    }
}

/* --- counts before projections -------------------------------------------------------------- */

typedef struct {
    const float *from;
    ptrdiff_t stride, size;
    float scale;
    st_sparse_input *events;
} st_counting;

/* What a sequence's counts have to reach, in thresholds. */
static float dial_of(const st_pass *pass, ptrdiff_t t)
{
    ptrdiff_t at = pass->network->dial;
    return at < 0 ? 1.0f : pass->state[pass->scan ? 0 : t][at];
}

static void count_rows(const st_pass *pass, const void *subject, ptrdiff_t first, ptrdiff_t last)
{
    const st_counting *counting = subject;
    const st_rwkv *n = pass->network;
    for (ptrdiff_t t = first; t < last; t++) {
        int16_t *spikes = n->spikes + t * counting->size;
        int64_t fired = 0;
        n->unit[t] = n->kernels->count_spikes(counting->from + t * counting->stride,
                                              counting->scale, dial_of(pass, t),
                                              counting->size, spikes);
        for (ptrdiff_t i = 0; i < counting->size; i++) fired += spikes[i] != 0;
        n->fired[t] = fired;
    }
    st_sparse_counts(counting->events, n->kernels, n->spikes, counting->size, n->unit, first, last);
}

void st_list_counts(const st_pass *pass, const float *from, ptrdiff_t stride, ptrdiff_t size,
                    float scale, st_sparse_input *events, st_work *work)
{
    st_counting counting = {from, stride, size, scale, events};
    events->size = size;
    events->tokens = pass->tokens;
    st_over_tokens(pass, &counting, count_rows);
    st_count_units(pass, work, size, pass->network->fired);
    st_record *record = &pass->network->record;
    if (!record->next || record->room < size) return;
    for (ptrdiff_t i = 0; i < size; i++) record->next[i] = pass->network->spikes[i];
    record->next += size;
    record->room -= size;
}
