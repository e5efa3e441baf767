/* Feed-forward part of one layer: SwiGLU, alone or as shared and routed experts. */
#include <string.h>

#include "decoder.h"

#define ST_STEP_CHANNELS 64

typedef struct {
    const float *gate, *up;
    float *out;
} st_inner_job;

static void inner(const st_block *block, const void *subject, int part, ptrdiff_t first,
                  ptrdiff_t last)
{
    (void)part;
    const st_inner_job *job = subject;
    block->network->kernels->silu_product(job->gate + first, job->up + first, last - first,
                                          job->out + first);
}

/* hidden = silu(gate x) up x of the tokens first .. last. */
static void widen(const st_block *block, const st_layer *layer, const st_expert *expert,
                  ptrdiff_t first, ptrdiff_t last)
{
    st_decoder *n = block->network;
    ptrdiff_t at = first * layer->inner, values = (last - first) * layer->inner;
    st_multiply(block, &n->outer, &expert->gate, first, last, n->hidden + at, layer->inner,
                layer->mlp_work);
    st_multiply(block, &n->outer, &expert->up, first, last, n->up + at, layer->inner,
                layer->mlp_work);
    st_inner_job job = {n->hidden + at, n->up + at, n->hidden + at};
    st_share(block, &job, inner, values, ST_STEP_CHANNELS, values);
}

/* What the down products read of network->hidden. */
static void read_inner(const st_block *block, const st_layer *layer)
{
    st_decoder *n = block->network;
    st_read(block, &n->inside, &layer->down_place, n->hidden, layer->inner, layer->inner,
            layer->mlp_work);
}

/* The likeliest expert of each token and its probability; the first of equals. */
static void route(const st_block *block, const st_layer *layer)
{
    st_decoder *n = block->network;
    static const st_place plain = {.values = 1};
    st_read(block, &n->outer, &plain, n->normed, n->width, n->width, layer->mlp_work);
    st_multiply(block, &n->outer, &layer->router, 0, block->tokens, n->scores, layer->experts,
                layer->mlp_work);
    for (ptrdiff_t t = 0; t < block->tokens; t++) {
        float *score = n->scores + t * layer->experts, total = 0.0f;
        int32_t best = 0;
        for (int32_t e = 1; e < layer->experts; e++) best = score[e] > score[best] ? e : best;
        float most = score[best];
        for (ptrdiff_t e = 0; e < layer->experts; e++) score[e] = score[e] - most;
        n->kernels->exp(score, n->up, layer->experts);
        for (ptrdiff_t e = 0; e < layer->experts; e++) total = total + n->up[e];
        n->chosen[t] = best;
        n->share[t] = 1.0f / total;
    }
}

/* branch = probability times what the chosen expert makes of each token. */
static void run_routed(const st_block *block, const st_layer *layer)
{
    st_decoder *n = block->network;
    for (ptrdiff_t t = 0; t < block->tokens; t++)
        widen(block, layer, &layer->expert[n->chosen[t]], t, t + 1);
    read_inner(block, layer);
    for (ptrdiff_t t = 0; t < block->tokens; t++) {
        float *out = n->branch + t * n->width;
        st_multiply(block, &n->inside, &layer->expert[n->chosen[t]].down, t, t + 1, out, n->width,
                    layer->mlp_work);
        for (ptrdiff_t i = 0; i < n->width; i++) out[i] = out[i] * n->share[t];
    }
}

static void run_shared(const st_block *block, const st_layer *layer, const st_expert *expert)
{
    st_decoder *n = block->network;
    ptrdiff_t T = block->tokens;
    widen(block, layer, expert, 0, T);
    read_inner(block, layer);
    st_multiply(block, &n->inside, &expert->down, 0, T, n->seen, n->width, layer->mlp_work);
    n->kernels->add_vector(n->seen, T * n->width, n->branch);
}

void st_feed(const st_block *block, st_layer *layer)
{
    st_decoder *n = block->network;
    ptrdiff_t T = block->tokens;
    if (layer->experts) route(block, layer);
    st_read(block, &n->outer, &layer->mlp_place, n->normed, n->width, n->width, layer->mlp_work);
    if (!layer->experts) {
        widen(block, layer, layer->expert, 0, T);
        read_inner(block, layer);
        st_multiply(block, &n->inside, &layer->expert->down, 0, T, n->branch, n->width,
                    layer->mlp_work);
        return;
    }
    run_routed(block, layer);
    for (ptrdiff_t s = 0; s < layer->shared; s++)
        run_shared(block, layer, &layer->expert[layer->experts + s]);
}
