/* Sites of SpikingBrain: what their products read, and the products. */
#include <stdlib.h>
#include <string.h>

#include "spikingbrain.h"

/* --- readings ------------------------------------------------------------------------------ */

/* Sum of |counts|: k a unit and half of one for rounding, with room for that of the mean. */
static ptrdiff_t max_counts(const st_spikingbrain *n, ptrdiff_t size)
{
    return (ptrdiff_t)((double)size * ((double)n->max_k * 1.01 + 0.5)) + 64;
}

int st_reading_init(st_reading *reading, const st_spikingbrain *n, ptrdiff_t size)
{
    int32_t most = st_formats[n->event_format].max_event[ST_COUNTS];
    ptrdiff_t room = size + max_counts(n, size) / most;
    void *values = NULL;
    memset(reading, 0, sizeof *reading);
    if (posix_memalign(&values, 64, (size_t)(ST_BLOCK_TOKENS * size) * sizeof(float) + 64))
        return -1;
    reading->values = values;
    if (st_dense_input_init(&reading->dense, size, ST_BLOCK_TOKENS)) return -1;
    if (n->max_k == 0.0f) return 0;
    return st_events_init(&reading->events, n->event_format, ST_COUNTS, size, room,
                          ST_BLOCK_TOKENS);
}

void st_reading_free(st_reading *reading)
{
    st_dense_input_free(&reading->dense);
    st_events_free(&reading->events);
    free(reading->values);
}

typedef struct {
    st_reading *reading;
    const st_site *site;
    const float *from;
    ptrdiff_t stride, size;
} st_read_job;

/* Thresholds below which a sequence's inputs are silent. Rounding leaves nothing of half a
 * threshold: a dial above 1 raises that half where the site has no larger dead zone. */
static float dead_zone_of(const st_pass *pass, ptrdiff_t t, const st_site *site)
{
    float dial = st_dial_of(pass, t);
    if (dial == 1.0f) return site->dead_zone;
    return dial * (site->dead_zone < 0.5f ? 0.5f : site->dead_zone);
}

static void read_rows(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                      ptrdiff_t last)
{
    (void)piece;
    const st_read_job *job = subject;
    const st_kernels *kernels = pass->core->kernels;
    st_reading *reading = job->reading;
    const st_site *site = job->site;
    if (site->codes) st_dense_quantise(&reading->dense, kernels, first, last);
    if (!site->spiking) return;
    for (ptrdiff_t t = first; t < last; t++) {
        const float *row = job->from + t * job->stride;
        float *values = reading->values + t * job->size;
        float dead_zone = dead_zone_of(pass, t, site);
        if (site->values) {
            kernels->spike_values(row, site->k, dead_zone, job->size, values);
            int64_t fired = 0;
            for (ptrdiff_t i = 0; i < job->size; i++) fired += values[i] != 0.0f;
            pass->core->fired[t] = fired;
        }
        if (site->events || pass->core->record.next) {
            st_list_spikes(&reading->events, kernels, t, row, site->k, dead_zone);
            pass->core->fired[t] = reading->events.list[t].inputs;
        }
    }
}

/* The counts of a single token; one in several pieces is their sum. */
static void record_counts(int32_t *record, const st_list *list, ptrdiff_t size)
{
    const int16_t *value = list->value;
    memset(record, 0, (size_t)size * sizeof *record);
    for (ptrdiff_t e = 0; e < list->count; e++) record[list->index[e]] += value[e];
}

void st_read(const st_pass *pass, st_reading *reading, const st_site *site, const float *from,
             ptrdiff_t stride, ptrdiff_t size, st_counters *counters)
{
    st_read_job job = {reading, site, from, stride, size};
    int makes_values = site->spiking && site->values;
    st_dense_input_set(&reading->dense, makes_values ? reading->values : from,
                       makes_values ? size : stride, pass->tokens, size);
    st_events_begin(&reading->events, pass->tokens, size);
    st_split(pass, &job, read_rows, pass->tokens, 1, pass->tokens * size);
    if (!site->spiking) return;
    st_count_neurons(pass, counters, size, pass->core->fired);
    int32_t *record = st_record_site(pass->core, size);
    if (record) record_counts(record, reading->events.list, size);
}

void st_read_values(const st_pass *pass, st_reading *reading, const float *from, ptrdiff_t size,
                    st_counters *counters)
{
    static const st_site plain = {.values = 1};
    st_read(pass, reading, &plain, from, size, size, counters);
}

/* --- products ------------------------------------------------------------------------------ */

typedef struct {
    const float *bias;
    float *y;
    ptrdiff_t outputs, stride;
} st_bias_job;

static void add_bias(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                     ptrdiff_t last)
{
    (void)piece;
    const st_bias_job *job = subject;
    for (ptrdiff_t t = first; t < last; t++)
        pass->core->kernels->add_vector(job->bias, job->outputs, job->y + t * job->stride);
}

static st_dense_input input_of(const st_dense_input *all, ptrdiff_t first, ptrdiff_t last)
{
    st_dense_input input = *all;
    input.x += first * input.x_stride;
    input.codes += first * input.stride;
    input.scale += first;
    input.sum += first * (input.stride / ST_GROUP);
    input.total += first;
    input.tokens = last - first;
    return input;
}

void st_multiply(const st_pass *pass, const st_reading *reading, const st_linear *linear,
                 ptrdiff_t first, ptrdiff_t last, float *y, ptrdiff_t stride, st_counters *counters)
{
    const st_core *core = pass->core;
    const st_dense *m = &linear->dense;
    ptrdiff_t outputs = linear->by_rows ? linear->rows.cols : m->outputs, tokens = last - first;
    if (linear->by_rows) {
        st_events events = st_events_of(&reading->events, first, last);
        const st_event_product product = {&linear->rows, &events, y, stride};
        st_event_products_run(&product, 1, core->kernels, core->pool);
        st_count_rows(pass, counters, &linear->rows, linear->matrices, &events, first);
    } else {
        const st_dense_input input = input_of(&reading->dense, first, last);
        const st_dense_product product = {m, &input, y, stride};
        st_dense_run(&product, 1, core->kernels, core->pool);
        st_count_whole(pass, counters, st_dense_bytes(m), (int64_t)m->inputs * m->outputs, first,
                       tokens);
    }
    if (!linear->bias) return;
    st_bias_job job = {linear->bias, y, outputs, stride};
    st_split(pass, &job, add_bias, tokens, 1, tokens * outputs);
}
