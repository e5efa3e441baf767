#include "core.h"

#include <stdlib.h>
#include <string.h>

/* Values below which elementwise work is not split. */
#define ST_SPLIT_VALUES 8192
#define ST_PIECES_A_THREAD 2
#define ST_STEP_CHANNELS 64
#define ST_MAX_SCRATCHES 64
/* Most tokens of a pass of any family. */
#define ST_MAX_PASS 256

st_pass st_pass_from(const st_pass *pass, ptrdiff_t first)
{
    st_pass rest = *pass;
    rest.tokens -= first;
    if (!pass->scan) {
        rest.state += first;
        rest.sequence += first;
    }
    return rest;
}

float st_dial_of(const st_pass *pass, ptrdiff_t token)
{
    ptrdiff_t at = pass->core->dial;
    return at < 0 ? 1.0f : *(const float *)(st_state_of(pass, token) + at);
}

/* --- memory ----------------------------------------------------------------------------------- */

int st_core_init(st_core *core, const st_kernels *kernels, int threads)
{
    core->kernels = kernels;
    core->pool = st_pool_new(threads);
    core->pieces = ST_PIECES_A_THREAD * threads;
    core->scratch = calloc(ST_MAX_SCRATCHES, sizeof *core->scratch);
    if (!core->pool || !core->scratch) return -1;
    core->fired = st_scratch(core, ST_MAX_PASS * (ptrdiff_t)sizeof *core->fired);
    return core->is_short ? -1 : 0;
}

void st_core_free(st_core *core)
{
    st_pool_free(core->pool);
    for (int i = 0; i < core->scratches; i++) free(core->scratch[i]);
    free(core->scratch);
}

void *st_scratch(st_core *core, ptrdiff_t bytes)
{
    void *space = NULL;
    int fits = core->scratches < ST_MAX_SCRATCHES;
    if (!fits || posix_memalign(&space, 64, (size_t)bytes + 64)) {
        core->is_short = 1;
        return NULL;
    }
    return core->scratch[core->scratches++] = space;
}

/* --- the split over threads ------------------------------------------------------------------- */

typedef struct {
    const st_pass *pass;
    const void *subject;
    st_range function;
    ptrdiff_t size, width;
} st_split_job;

static void split_piece(void *argument, int piece)
{
    const st_split_job *job = argument;
    ptrdiff_t first = piece * job->width, last = ST_MIN(first + job->width, job->size);
    if (first < last) job->function(job->pass, job->subject, piece, first, last);
}

void st_split(const st_pass *pass, const void *subject, st_range function, ptrdiff_t size,
              ptrdiff_t step, ptrdiff_t values)
{
    const st_core *core = pass->core;
    if (st_pool_threads(core->pool) == 1 || values < ST_SPLIT_VALUES) {
        function(pass, subject, 0, 0, size);
        return;
    }
    ptrdiff_t pieces = core->pieces;
    ptrdiff_t width = ((size + pieces - 1) / pieces + step - 1) / step * step;
    st_split_job job = {pass, subject, function, size, width};
    st_pool_run(core->pool, split_piece, &job, (int)((size + width - 1) / width));
}

void st_over_tokens(const st_pass *pass, const void *subject, st_range function)
{
    st_split(pass, subject, function, pass->tokens, 1, pass->tokens * pass->core->width);
}

void st_over_channels(const st_pass *pass, const void *subject, st_range function)
{
    ptrdiff_t width = pass->core->width;
    st_split(pass, subject, function, width, ST_STEP_CHANNELS, pass->tokens * width);
}

/* --- what goes in ----------------------------------------------------------------------------- */

void st_embed(const st_core *core, int64_t token, float *row)
{
    const st_embedding *e = &core->embedding;
    const ptrdiff_t at = (ptrdiff_t)token * e->stride, step = e->step, width = core->width;
    if (e->format == ST_BITS) {
        const uint8_t *bits = (const uint8_t *)e->rows + at;
        for (ptrdiff_t i = 0; i < width; i++) row[i] = (float)(bits[i / 8] >> i % 8 & 1);
    } else if (e->format == ST_INT8) {
        const int8_t *codes = (const int8_t *)e->rows + at;
        float scale = e->scale[token];
        for (ptrdiff_t i = 0; i < width; i++) row[i] = (float)codes[i * step] * scale;
    } else if (e->format == ST_BFLOAT16) {
        const uint16_t *values = (const uint16_t *)e->rows + at;
        if (step == 1) core->kernels->widen_bfloat16(values, width, row);
        for (ptrdiff_t i = 0; step != 1 && i < width; i++) row[i] = st_widen(values[i * step]);
    } else {
        const float *values = (const float *)e->rows + at;
        for (ptrdiff_t i = 0; i < width; i++) row[i] = values[i * step];
    }
}

/* --- products and their counters -------------------------------------------------------------- */

void st_count_whole(const st_pass *pass, st_counters *counters, int64_t bytes, int64_t macs,
                    ptrdiff_t first, ptrdiff_t tokens)
{
    counters->bytes_touched += bytes;
    counters->bytes_dense += bytes * tokens;
    counters->macs_dense += macs * tokens;
    counters->macs_effective += macs * tokens;
    for (ptrdiff_t t = first; t < first + tokens; t++)
        st_sequence_of(pass, t)->bytes_touched += bytes;
}

void st_count_rows(const st_pass *pass, st_counters *counters, const st_rows *m, ptrdiff_t matrices,
                   st_events *events, ptrdiff_t first)
{
    const int64_t row = st_row_bytes(m->format, m->cols);
    for (ptrdiff_t t = 0; t < events->tokens; t++) {
        int64_t inputs = events->list[t].inputs, ones = events->list[t].ones;
        counters->silent_rows += (m->rows - inputs) * matrices;
        counters->macs_effective += (inputs - ones) * m->cols;
        counters->acs_effective += ones * m->cols;
        st_sequence_of(pass, first + t)->bytes_touched += inputs * row;
    }
    counters->bytes_touched += st_events_rows_read(events, pass->core->pool) * row;
    counters->bytes_dense += m->rows * row * events->tokens;
    counters->macs_dense += (int64_t)m->rows * m->cols * events->tokens;
}

void st_run_dense(const st_pass *pass, st_counters *counters, const st_dense_product *product,
                  int count)
{
    for (int i = 0; i < count; i++) {
        const st_dense *m = product[i].matrix;
        st_count_whole(pass, counters, st_dense_bytes(m), (int64_t)m->inputs * m->outputs, 0,
                       pass->tokens);
    }
    st_dense_run(product, count, pass->core->kernels, pass->core->pool);
}

void st_run_events(const st_pass *pass, st_counters *counters, const st_event_product *product,
                   int count)
{
    st_event_products_run(product, count, pass->core->kernels, pass->core->pool);
    for (int i = 0; i < count; i++)
        st_count_rows(pass, counters, product[i].matrix, 1, product[i].events, 0);
}

void st_count_neurons(const st_pass *pass, st_counters *counters, ptrdiff_t units,
                      const int64_t *fired)
{
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        st_sequence_counters *sequence = st_sequence_of(pass, t);
        counters->neurons += units;
        counters->events += fired[t];
        if (counters == pass->core->head_counters) continue;
        sequence->neurons += units;
        sequence->events += fired[t];
    }
}

int32_t *st_record_site(st_core *core, ptrdiff_t size)
{
    st_record *record = &core->record;
    if (!record->next || record->room < size) return NULL;
    int32_t *counts = record->next;
    record->next += size;
    record->room -= size;
    return counts;
}
