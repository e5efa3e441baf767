/* A sublayer of SpikeGPT: what goes into its mix, and what comes out of that to the residual. Rows
 * are tokens; recurrences go token by token, split over channels. */
#include <string.h>

#include "spikegpt.h"

ptrdiff_t st_hidden_width(const st_spikegpt *n, const st_sublayer *sublayer)
{
    ptrdiff_t width = n->core.width;
    return sublayer->kind == ST_TIME_MIX ? 3 * width : n->inner + width;
}

static int matrices(const st_sublayer *sublayer)
{
    return sublayer->kind == ST_TIME_MIX ? 3 : 2;
}

/* --- what goes in -------------------------------------------------------------------------- */

static void normalise(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                      ptrdiff_t last)
{
    (void)piece;
    const st_sublayer *sublayer = subject;
    const st_spikegpt *n = st_spikegpt_of(pass);
    const ptrdiff_t width = n->core.width;
    for (ptrdiff_t t = first; t < last; t++) {
        const float *x = n->residual + t * width;
        st_fetch_state(pass, t, sublayer->shift, width);
        if (n->position == ST_ON_RESIDUAL) {
            float *sum = n->x + t * width;
            n->core.kernels->add_counts(x, n->count + t * width, width, sum);
            x = sum;
        }
        n->core.kernels->layer_norm(x, sublayer->norm.weight, sublayer->norm.bias, n->epsilon,
                                    width, n->normed + t * width);
    }
}

/* Mixes each row with the one before it: of the run, or of the token's own state. */
static void shift(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                  ptrdiff_t last)
{
    (void)piece;
    const st_sublayer *sublayer = subject;
    st_spikegpt *n = st_spikegpt_of(pass);
    const ptrdiff_t width = n->core.width;
    int count = n->position == ST_BEFORE_PROJECTIONS ? 1 : matrices(sublayer);
    for (ptrdiff_t t = first; t < last; t++) {
        const float *now = n->normed + t * width;
        const float *before = now - width;
        if (!pass->scan || t == 0) before = st_floats_of(pass, t) + sublayer->shift;
        for (int m = 0; m < count; m++)
            n->core.kernels->token_shift(now, before, sublayer->mix[m], width,
                                         n->mixed[m] + t * width);
    }
    if (n->position == ST_BEFORE_PROJECTIONS || st_is_float(n->body_format)) return;
    for (int m = 0; m < count; m++) st_dense_quantise(&n->input[m], n->core.kernels, first, last);
}

static void keep_shift(const st_pass *pass, const st_sublayer *sublayer, ptrdiff_t token)
{
    const st_spikegpt *n = st_spikegpt_of(pass);
    memcpy(st_floats_of(pass, token) + sublayer->shift, n->normed + token * n->core.width,
           (size_t)n->core.width * sizeof(float));
}

/* What a token of a batch needs is its own. */
static void enter_alone(const st_pass *pass, const void *sublayer, int piece, ptrdiff_t first,
                        ptrdiff_t last)
{
    for (ptrdiff_t t = first; t < last; t++) {
        normalise(pass, sublayer, piece, t, t + 1);
        shift(pass, sublayer, piece, t, t + 1);
        keep_shift(pass, sublayer, t);
    }
}

/* A token of a run needs the norm of the one before it. */
static void enter(const st_pass *pass, const st_sublayer *sublayer)
{
    if (!pass->scan) {
        st_over_tokens(pass, sublayer, enter_alone);
        return;
    }
    st_over_tokens(pass, sublayer, normalise);
    st_over_tokens(pass, sublayer, shift);
    keep_shift(pass, sublayer, pass->tokens - 1);
}

/* network->hidden: r, k, v or k, r of each token side by side. */
static void project_in(const st_pass *pass, st_sublayer *sublayer)
{
    st_spikegpt *n = st_spikegpt_of(pass);
    const ptrdiff_t width = n->core.width, stride = st_hidden_width(n, sublayer);
    if (n->position == ST_BEFORE_PROJECTIONS) {
        enter(pass, sublayer);
        st_spiking_product(pass, n->mixed[0], &sublayer->fused, sublayer->input_scale, &n->events,
                           n->hidden, stride, sublayer->counters);
        return;
    }
    st_dense_product product[3];
    float *y = n->hidden;
    for (int m = 0; m < matrices(sublayer); m++) {
        st_dense_input_set(&n->input[m], n->mixed[m], width, pass->tokens, width);
        product[m] = (st_dense_product){&sublayer->matrix[m], &n->input[m], y, stride};
        y += sublayer->matrix[m].outputs;
    }
    enter(pass, sublayer);
    st_run_dense(pass, sublayer->counters, product, matrices(sublayer));
}

/* --- what comes out ------------------------------------------------------------------------ */

static void gate(const st_pass *pass, const st_sublayer *sublayer, ptrdiff_t t, ptrdiff_t first,
                 ptrdiff_t last)
{
    const st_spikegpt *n = st_spikegpt_of(pass);
    const float *r = n->hidden + t * st_hidden_width(n, sublayer) + n->inner + first;
    float *x = n->branch + t * n->core.width + first;
    if (n->position == ST_ON_RESIDUAL)
        st_fetch_state(pass, t + 1, sublayer->membrane + first, last - first);
    n->core.kernels->gate(r, x, last - first, x);
}

static void fire(const st_pass *pass, const st_sublayer *sublayer, ptrdiff_t t, ptrdiff_t first,
                 ptrdiff_t last)
{
    const st_spikegpt *n = st_spikegpt_of(pass);
    const ptrdiff_t at = t * n->core.width + first;
    int64_t spikes = n->core.kernels->lif(
        n->branch + at, sublayer->scale + first, sublayer->threshold + first, n->tau, last - first,
        st_floats_of(pass, t) + sublayer->membrane + first, n->count + at);
    __atomic_fetch_add(&n->core.fired[t], spikes, __ATOMIC_RELAXED);
}

/* From the branch to the residual. */
static void leave(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                  ptrdiff_t last)
{
    (void)piece;
    const st_sublayer *sublayer = subject;
    const st_spikegpt *n = st_spikegpt_of(pass);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        const ptrdiff_t at = t * n->core.width + first;
        if (sublayer->kind == ST_CHANNEL_MIX) gate(pass, sublayer, t, first, last);
        if (n->position == ST_ON_RESIDUAL)
            fire(pass, sublayer, t, first, last);
        else
            n->core.kernels->add_vector(n->branch + at, last - first, n->residual + at);
    }
}

void st_sublayer_run(const st_pass *pass, st_sublayer *sublayer)
{
    st_spikegpt *n = st_spikegpt_of(pass);
    int64_t *fired = n->core.fired;
    project_in(pass, sublayer);
    (sublayer->kind == ST_TIME_MIX ? st_time_mix : st_channel_mix)(pass, sublayer);
    memset(fired, 0, (size_t)pass->tokens * sizeof *fired);
    st_over_channels(pass, sublayer, leave);
    if (n->position != ST_ON_RESIDUAL) return;
    st_count_neurons(pass, sublayer->counters, n->core.width, fired);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) sublayer->counters->acs_effective += fired[t];
}
