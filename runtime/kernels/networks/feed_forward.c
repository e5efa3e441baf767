/* Feed-forward part of one layer: SwiGLU, alone or as shared and routed experts. */
#include <string.h>

#include "spikingbrain.h"

#define ST_STEP_CHANNELS 64

typedef struct {
    const float *gate, *up;
    float *out;
} st_inner_job;

static void inner(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                  ptrdiff_t last)
{
    (void)piece;
    const st_inner_job *job = subject;
    pass->core->kernels->silu_product(job->gate + first, job->up + first, last - first,
                                      job->out + first);
}

/* hidden = silu(gate x) up x of the tokens first .. last. */
static void widen(const st_pass *pass, const st_layer *layer, const st_expert *expert,
                  ptrdiff_t first, ptrdiff_t last)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t at = first * layer->inner, values = (last - first) * layer->inner;
    st_multiply(pass, &n->outer, &expert->gate, first, last, n->hidden + at, layer->inner,
                layer->mlp_counters);
    st_multiply(pass, &n->outer, &expert->up, first, last, n->up + at, layer->inner,
                layer->mlp_counters);
    st_inner_job job = {n->hidden + at, n->up + at, n->hidden + at};
    st_split(pass, &job, inner, values, ST_STEP_CHANNELS, values);
}

/* What the down products read of network->hidden. */
static void read_inner(const st_pass *pass, const st_layer *layer)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    st_read(pass, &n->inside, &layer->down_site, n->hidden, layer->inner, layer->inner,
            layer->mlp_counters);
}

/* The likeliest expert of each token and its probability; the first of equals. */
static void route(const st_pass *pass, const st_layer *layer)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    st_read_values(pass, &n->outer, n->normed, n->core.width, layer->mlp_counters);
    st_multiply(pass, &n->outer, &layer->router, 0, pass->tokens, n->scores, layer->experts,
                layer->mlp_counters);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        float *score = n->scores + t * layer->experts, total = 0.0f;
        int32_t best = 0;
        for (int32_t e = 1; e < layer->experts; e++) best = score[e] > score[best] ? e : best;
        float most = score[best];
        for (ptrdiff_t e = 0; e < layer->experts; e++) score[e] = score[e] - most;
        n->core.kernels->exp_all(score, n->up, layer->experts);
        for (ptrdiff_t e = 0; e < layer->experts; e++) total = total + n->up[e];
        n->chosen[t] = best;
        n->expert_weight[t] = 1.0f / total;
    }
}

/* branch = probability times what the chosen expert makes of each token. */
static void run_routed(const st_pass *pass, const st_layer *layer)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    for (ptrdiff_t t = 0; t < pass->tokens; t++)
        widen(pass, layer, &layer->expert[n->chosen[t]], t, t + 1);
    read_inner(pass, layer);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        float *out = n->branch + t * n->core.width;
        st_multiply(pass, &n->inside, &layer->expert[n->chosen[t]].down, t, t + 1, out,
                    n->core.width, layer->mlp_counters);
        for (ptrdiff_t i = 0; i < n->core.width; i++) out[i] = out[i] * n->expert_weight[t];
    }
}

static void run_shared(const st_pass *pass, const st_layer *layer, const st_expert *expert)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t T = pass->tokens;
    widen(pass, layer, expert, 0, T);
    read_inner(pass, layer);
    st_multiply(pass, &n->inside, &expert->down, 0, T, n->attended, n->core.width,
                layer->mlp_counters);
    n->core.kernels->add_vector(n->attended, T * n->core.width, n->branch);
}

void st_feed_forward(const st_pass *pass, const st_layer *layer)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t T = pass->tokens;
    if (layer->experts) route(pass, layer);
    st_read(pass, &n->outer, &layer->mlp_site, n->normed, n->core.width, n->core.width,
            layer->mlp_counters);
    if (!layer->experts) {
        widen(pass, layer, layer->expert, 0, T);
        read_inner(pass, layer);
        st_multiply(pass, &n->inside, &layer->expert->down, 0, T, n->branch, n->core.width,
                    layer->mlp_counters);
        return;
    }
    run_routed(pass, layer);
    for (ptrdiff_t s = 0; s < layer->shared; s++)
        run_shared(pass, layer, &layer->expert[layer->experts + s]);
}
