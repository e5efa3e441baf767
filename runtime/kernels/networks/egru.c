#include "egru.h"

#include <stdlib.h>
#include <string.h>

/* Values of elementwise work that the update of one unit is worth, three functions of floats among
 * them: 512 units are worth a second thread. */
#define ST_UNIT_VALUES 16
#define ST_STEP_UNITS 64

static ptrdiff_t output_size(const st_egru *n)
{
    return n->is_int8 ? 2 : 4;
}

/* --- neurons ----------------------------------------------------------------------------- */

/* What the update of a layer reads and writes; x by token, one row of recurrent sums a token. */
typedef struct {
    const st_egru_layer *layer;
    const float *const *x;
    ptrdiff_t blocks; /* of ST_STEP_UNITS units a token */
} st_update;

/* Blocks of units, token after token. */
static void update(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                   ptrdiff_t last)
{
    (void)piece;
    const st_update *job = subject;
    const st_egru *n = st_egru_of(pass);
    const st_egru_layer *layer = job->layer;
    const ptrdiff_t size = layer->recurrent.rows;
    for (ptrdiff_t at = first; at < last;) {
        ptrdiff_t t = at / job->blocks, end = ST_MIN(last, (t + 1) * job->blocks);
        ptrdiff_t begin = (at - t * job->blocks) * ST_STEP_UNITS;
        ptrdiff_t stop = ST_MIN((end - t * job->blocks) * ST_STEP_UNITS, size);
        const float *y = n->recurrent_sum + t * 3 * n->widest;
        char *state = st_state_of(pass, t), *output = state + layer->output;
        float *cell = (float *)(state + layer->cell);
        if (n->is_int8)
            n->core.kernels->egru_int16(job->x[t], y, layer->threshold, n->zoneout, size, begin,
                                        stop, cell, (int16_t *)output);
        else
            n->core.kernels->egru_float32(job->x[t], y, layer->threshold, n->zoneout, size, begin,
                                          stop, cell, (float *)output);
        at = end;
    }
}

/* Pieces are whole tokens, or of fewer tokens than threads one for each thread: smaller ones cost
 * more than they even out. */
static void run_update(const st_pass *pass, const st_egru_layer *layer, const float *const *x)
{
    ptrdiff_t size = layer->recurrent.rows, blocks = (size + ST_STEP_UNITS - 1) / ST_STEP_UNITS;
    ptrdiff_t threads = st_pool_threads(pass->core->pool);
    ptrdiff_t step = pass->tokens < threads ? (blocks + threads - 1) / threads : blocks;
    const st_update job = {layer, x, blocks};
    st_split(pass, &job, update, pass->tokens * blocks, step, pass->tokens * size * ST_UNIT_VALUES);
}

static void count_outputs(const st_pass *pass, const st_egru_layer *layer, char *const *output)
{
    const st_egru *n = st_egru_of(pass);
    const ptrdiff_t size = layer->recurrent.rows;
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        int64_t fired = 0;
        if (n->is_int8)
            for (ptrdiff_t i = 0; i < size; i++) fired += ((const int16_t *)output[t])[i] != 0;
        else
            for (ptrdiff_t i = 0; i < size; i++) fired += ((const float *)output[t])[i] != 0.0f;
        n->core.fired[t] = fired;
    }
    st_count_neurons(pass, layer->counters, size, n->core.fired);
}

/* --- products ------------------------------------------------------------------------------ */

static void list_outputs(const st_pass *pass, st_events *events, char *const *output,
                         ptrdiff_t size)
{
    st_events_begin(events, pass->tokens, size);
    for (ptrdiff_t t = 0; t < pass->tokens; t++)
        st_list_graded(events, pass->core->kernels, t, output[t]);
}

/* --- layers ------------------------------------------------------------------------------ */

/* y K + b of the layer before, listed already, and y R + d of this layer's outputs. */
static st_event_product input_product(st_egru *n, const st_egru_layer *layer)
{
    return (st_event_product){&layer->input, &n->input_events, n->input_sum, 3 * n->widest};
}

static st_event_product recurrent_product(st_egru *n, const st_egru_layer *layer)
{
    return (st_event_product){&layer->recurrent, &n->recurrent_events, n->recurrent_sum,
                              3 * n->widest};
}

/* Sequences side by side: every product serves all of them at once. */
static void step_layer(const st_pass *pass, const st_egru_layer *layer, char **previous,
                       const float *const *x)
{
    st_egru *n = st_egru_of(pass);
    char *output[ST_EGRU_TOKENS];
    st_event_product product[2];
    int count = 0;
    for (ptrdiff_t t = 0; t < pass->tokens; t++) output[t] = pass->state[t] + layer->output;
    if (layer != n->layer) {
        list_outputs(pass, &n->input_events, previous, layer->input.rows);
        product[count++] = input_product(n, layer);
    }
    list_outputs(pass, &n->recurrent_events, output, layer->recurrent.rows);
    product[count++] = recurrent_product(n, layer);
    st_run_events(pass, layer->counters, product, count);
    run_update(pass, layer, x);
    count_outputs(pass, layer, output);
    memcpy(previous, output, (size_t)pass->tokens * sizeof *previous);
}

/* Tokens of one sequence: the input product serves all, the recurrence goes token by token. */
static void scan_layer(const st_pass *pass, const st_egru_layer *layer, char **previous,
                       char *outputs, const float *const *x)
{
    st_egru *n = st_egru_of(pass);
    const size_t bytes = (size_t)(layer->recurrent.rows * output_size(n));
    char *output = pass->state[0] + layer->output;
    st_pass one = *pass;
    one.tokens = 1;
    if (layer != n->layer) {
        const st_event_product input = input_product(n, layer);
        list_outputs(pass, &n->input_events, previous, layer->input.rows);
        st_run_events(pass, layer->counters, &input, 1);
    }
    const st_event_product product = recurrent_product(n, layer);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        list_outputs(&one, &n->recurrent_events, &output, layer->recurrent.rows);
        st_run_events(&one, layer->counters, &product, 1);
        run_update(&one, layer, x + t);
        previous[t] = outputs + t * 4 * n->widest;
        memcpy(previous[t], output, bytes);
    }
    count_outputs(pass, layer, previous);
}

/* --- after the last layer ------------------------------------------------------------------ */

/* The projection of listed outputs, then the head of its output: quantised for int8 weights. */
static void project(const st_pass *pass, float *logits)
{
    st_egru *n = st_egru_of(pass);
    const st_rows *m = &n->projection, *head = &n->head;
    st_counters *counters = n->core.head_counters;
    const st_event_product product = {m, &n->input_events, n->features, m->cols};
    st_run_events(pass, n->projection_counters, &product, 1);
    if (n->is_int8) {
        float scale[ST_EGRU_TOKENS];
        for (ptrdiff_t t = 0; t < pass->tokens; t++)
            scale[t] = n->core.kernels->quantise(n->features + t * m->cols, m->cols,
                                                 n->codes + t * m->cols);
        st_multiply_codes(pass, head, scale, logits, head->cols);
        st_count_codes(pass, head, counters);
        return;
    }
    st_events_begin(&n->input_events, pass->tokens, m->cols);
    for (ptrdiff_t t = 0; t < pass->tokens; t++)
        st_list_graded(&n->input_events, n->core.kernels, t, n->features + t * m->cols);
    const st_event_product last = {head, &n->input_events, logits, head->cols};
    st_run_events(pass, counters, &last, 1);
}

/* Logits of the tokens from the one numbered `skipped` on, whose last layer's outputs are given. */
static void run_head(const st_pass *whole, ptrdiff_t skipped, char *const *output, float *logits)
{
    st_egru *n = st_egru_of(whole);
    const st_pass pass = st_pass_from(whole, skipped);
    list_outputs(&pass, &n->input_events, output + skipped, n->layer[n->layers - 1].recurrent.rows);
    if (n->has_projection) {
        project(&pass, logits);
        return;
    }
    const st_event_product product = {&n->head, &n->input_events, logits, n->head.cols};
    st_run_events(&pass, n->core.head_counters, &product, 1);
}

void st_egru_run(const st_pass *pass, const int64_t *token, int want, float *logits)
{
    st_egru *n = st_egru_of(pass);
    const float *x[ST_EGRU_TOKENS];
    char *previous[ST_EGRU_TOKENS];
    st_egru_input(pass, token, x);
    for (ptrdiff_t l = 0; l < n->layers; l++) {
        for (ptrdiff_t t = 0; l && t < pass->tokens; t++) x[t] = st_input_row(n, t);
        if (pass->scan)
            scan_layer(pass, &n->layer[l], previous, n->outputs[l % 2], x);
        else
            step_layer(pass, &n->layer[l], previous, x);
    }
    if (want != ST_NO_LOGITS)
        run_head(pass, want == ST_ALL_LOGITS ? 0 : pass->tokens - 1, previous, logits);
}

/* --- memory ------------------------------------------------------------------------------ */

/* The most inputs of a matrix, or outputs of the projection. */
static ptrdiff_t widest(const st_egru *n)
{
    ptrdiff_t most = n->layer[0].input.rows;
    for (ptrdiff_t l = 0; l < n->layers; l++) most = ST_MAX(most, n->layer[l].recurrent.rows);
    return n->has_projection ? ST_MAX(most, n->projection.cols) : most;
}

int st_egru_prepare(st_egru *n)
{
    const ptrdiff_t row = ST_EGRU_TOKENS * (n->widest = widest(n)), size = n->widest;
    n->input_sum = st_scratch(&n->core, 3 * row * 4);
    n->recurrent_sum = st_scratch(&n->core, 3 * row * 4);
    n->features = st_scratch(&n->core, row * 4);
    n->outputs[0] = st_scratch(&n->core, row * 4);
    n->outputs[1] = st_scratch(&n->core, row * 4);
    n->codes = st_scratch(&n->core, row * 2);
    int failed = n->core.is_short;
    failed |= st_events_init(&n->input_events, n->format, ST_GRADED, size, size, ST_EGRU_TOKENS);
    failed |=
        st_events_init(&n->recurrent_events, n->format, ST_GRADED, size, size, ST_EGRU_TOKENS);
    if (n->is_int8)
        failed |= st_events_init(&n->code_events, n->format, ST_COUNTS, size, size, ST_EGRU_TOKENS);
    return failed ? -1 : 0;
}

void st_egru_free(st_egru *n)
{
    st_core_free(&n->core);
    st_events_free(&n->input_events);
    st_events_free(&n->recurrent_events);
    st_events_free(&n->code_events);
    free(n->layer);
}
