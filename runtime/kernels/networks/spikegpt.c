#include "spikegpt.h"

#include <stdlib.h>
#include <string.h>

/* Sum of |counts| that adaptive thresholds allow, with room for rounding: the family's Spec bounds
 * size / scale by 32767. */
#define ST_MAX_COUNTS 33100
/* Floats of a cache line. */
#define ST_LINE 16

void st_fetch_state(const st_pass *pass, ptrdiff_t token, ptrdiff_t at, ptrdiff_t count)
{
    if (pass->scan || token >= pass->tokens) return;
    const float *from = st_floats_of(pass, token) + at;
    for (ptrdiff_t i = 0; i < count; i += ST_LINE) __builtin_prefetch(from + i, 1, 2);
}

/* --- products ------------------------------------------------------------------------------- */

typedef struct {
    const float *from;
    ptrdiff_t size;
    float scale;
    st_events *events;
} st_counting;

static void count_spikes(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                         ptrdiff_t last)
{
    (void)piece;
    const st_counting *counting = subject;
    const st_spikegpt *n = st_spikegpt_of(pass);
    const st_kernels *kernels = n->core.kernels;
    const ptrdiff_t size = counting->size;
    for (ptrdiff_t t = first; t < last; t++)
        n->unit[t] = kernels->count_spikes(counting->from + t * size, counting->scale,
                                           st_dial_of(pass, t), size, n->spikes + t * size);
    st_list_counts(counting->events, kernels, n->spikes, size, n->unit, first, last);
}

void st_spiking_product(const st_pass *pass, const float *from, const st_rows *m, float scale,
                        st_events *events, float *y, ptrdiff_t y_stride, st_counters *counters)
{
    st_spikegpt *n = st_spikegpt_of(pass);
    st_counting counting = {from, m->rows, scale, events};
    st_events_begin(events, pass->tokens, m->rows);
    st_over_tokens(pass, &counting, count_spikes);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) n->core.fired[t] = events->list[t].inputs;
    st_count_neurons(pass, counters, m->rows, n->core.fired);
    int32_t *record = st_record_site(&n->core, m->rows);
    for (ptrdiff_t i = 0; record && i < m->rows; i++) record[i] = n->spikes[i];
    const st_event_product product = {m, events, y, y_stride};
    st_run_events(pass, counters, &product, 1);
}

static void quantise(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                     ptrdiff_t last)
{
    (void)subject, (void)piece;
    st_dense_quantise(&st_spikegpt_of(pass)->input[0], pass->core->kernels, first, last);
}

void st_dense_product_of(const st_pass *pass, const float *from, const st_dense *m, float *y,
                         st_counters *counters)
{
    st_spikegpt *n = st_spikegpt_of(pass);
    st_dense_input_set(&n->input[0], from, m->inputs, pass->tokens, m->inputs);
    if (!st_is_float(m->format)) st_over_tokens(pass, NULL, quantise);
    const st_dense_product product = {m, &n->input[0], y, m->outputs};
    st_run_dense(pass, counters, &product, 1);
}

/* --- a pass ---------------------------------------------------------------------------------- */

static void embed(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                  ptrdiff_t last)
{
    (void)piece;
    const int64_t *token = subject;
    const st_spikegpt *n = st_spikegpt_of(pass);
    const ptrdiff_t width = n->core.width;
    for (ptrdiff_t t = first; t < last; t++) {
        float *row = n->x + t * width;
        st_embed(&n->core, token[t], row);
        n->core.kernels->layer_norm(row, n->first_norm.weight, n->first_norm.bias, n->epsilon,
                                    width, n->residual + t * width);
        memset(n->count + t * width, 0, (size_t)width * sizeof *n->count);
    }
}

static void last_norm(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                      ptrdiff_t last)
{
    (void)piece;
    const st_spikegpt *n = st_spikegpt_of(pass);
    const ptrdiff_t width = n->core.width, skipped = *(const ptrdiff_t *)subject;
    for (ptrdiff_t t = first; t < last; t++) {
        ptrdiff_t at = (t + skipped) * width;
        n->core.kernels->add_counts(n->residual + at, n->count + at, width, n->x + at);
        n->core.kernels->layer_norm(n->x + at, n->last_norm.weight, n->last_norm.bias, n->epsilon,
                                    width, n->normed + t * width);
    }
}

/* Logits of the tokens from the one numbered `skipped` on. */
static void run_head(const st_pass *whole, ptrdiff_t skipped, float *logits)
{
    st_spikegpt *n = st_spikegpt_of(whole);
    const st_pass pass = st_pass_from(whole, skipped);
    st_over_tokens(&pass, &skipped, last_norm);
    if (n->position == ST_BEFORE_PROJECTIONS)
        st_spiking_product(&pass, n->normed, &n->spiking_head, n->head_scale, &n->head_events,
                           logits, n->core.vocabulary, n->core.head_counters);
    else
        st_dense_product_of(&pass, n->normed, &n->head, logits, n->core.head_counters);
}

void st_spikegpt_run(const st_pass *pass, const int64_t *token, int want, float *logits)
{
    st_spikegpt *n = st_spikegpt_of(pass);
    st_over_tokens(pass, token, embed);
    for (ptrdiff_t s = 0; s < n->sublayers; s++) st_sublayer_run(pass, &n->sublayer[s]);
    if (want != ST_NO_LOGITS) run_head(pass, want == ST_ALL_LOGITS ? 0 : pass->tokens - 1, logits);
}

/* --- memory --------------------------------------------------------------------------------- */

static int prepare_events(st_spikegpt *n)
{
    int counts = n->position == ST_BEFORE_PROJECTIONS, kind = counts ? ST_COUNTS : ST_SQUARES;
    ptrdiff_t width = n->core.width, size = ST_MAX(n->inner, width);
    const st_format *body = &st_formats[n->body_format], *head = &st_formats[n->head_format];
    ptrdiff_t more = counts ? ST_MAX_COUNTS / body->max_event[kind] + 1 : 0;
    if (st_events_init(&n->events, n->body_format, kind, size, size + more, ST_MAX_TOKENS))
        return -1;
    if (!counts) return 0;
    more = ST_MAX_COUNTS / head->max_event[kind] + 1;
    return st_events_init(&n->head_events, n->head_format, kind, width, width + more,
                          ST_MAX_TOKENS);
}

int st_spikegpt_prepare(st_spikegpt *n)
{
    const ptrdiff_t row = ST_MAX_TOKENS * n->core.width, inner = ST_MAX_TOKENS * n->inner;
    const ptrdiff_t size = (ptrdiff_t)sizeof(float);
    int failed = prepare_events(n);
    for (int m = 0; m < 3; m++) {
        n->mixed[m] = st_scratch(&n->core, row * size);
        failed |= st_dense_input_init(&n->input[m], n->core.width, ST_MAX_TOKENS);
    }
    n->x = st_scratch(&n->core, row * size);
    n->residual = st_scratch(&n->core, row * size);
    n->normed = st_scratch(&n->core, row * size);
    n->branch = st_scratch(&n->core, row * size);
    n->hidden = st_scratch(&n->core, ST_MAX(3 * row, inner + row) * size);
    n->square = st_scratch(&n->core, inner * size);
    n->spikes = st_scratch(&n->core, ST_MAX(row, inner) * 2);
    n->unit = st_scratch(&n->core, ST_MAX_TOKENS * size);
    n->count = st_scratch(&n->core, row * 4);
    return failed || n->core.is_short ? -1 : 0;
}

void st_spikegpt_free(st_spikegpt *n)
{
    st_core_free(&n->core);
    for (int m = 0; m < 3; m++) st_dense_input_free(&n->input[m]);
    st_events_free(&n->events);
    st_events_free(&n->head_events);
    free(n->sublayer);
}
