/* Attention of one layer of SpikingBrain: projections, its mixers, the output matrix. */
#include <string.h>

#include "spikingbrain.h"

/* --- projections --------------------------------------------------------------------------- */

void st_norm_heads(const st_spikingbrain *n, const float *weight, ptrdiff_t heads, float *x)
{
    float out[n->size];
    for (ptrdiff_t h = 0; h < heads; h++, x += n->size) {
        n->core.kernels->rms_norm(x, weight, n->epsilon, n->size, out);
        memcpy(x, out, (size_t)n->size * sizeof *x);
    }
}

static void norm_queries(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                         ptrdiff_t last)
{
    (void)piece;
    const st_layer *layer = subject;
    const st_spikingbrain *n = st_spikingbrain_of(pass);
    for (ptrdiff_t t = first; t < last; t++) {
        st_norm_heads(n, layer->q_norm, n->heads, n->q + t * st_queries(n));
        st_norm_heads(n, layer->k_norm, n->kv_heads, n->k + t * st_keys(n));
    }
}

/* Outputs of joined matrices to the rows of each. */
static void separate(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                     ptrdiff_t last)
{
    (void)piece;
    const st_layer *layer = subject;
    st_spikingbrain *n = st_spikingbrain_of(pass);
    const size_t wide = (size_t)st_queries(n), narrow = (size_t)st_keys(n);
    for (ptrdiff_t t = first; t < last; t++) {
        const float *from = n->joined + t * layer->joined_outputs;
        memcpy(n->q + t * st_queries(n), from, wide * sizeof *from);
        memcpy(n->k + t * st_keys(n), from + wide, narrow * sizeof *from);
        memcpy(n->v + t * st_keys(n), from + wide + narrow, narrow * sizeof *from);
        if (layer->linear && layer->gate == ST_GATE_MERGED)
            memcpy(n->decay + t * st_keys(n), from + wide + 2 * narrow, narrow * sizeof *from);
    }
}

static void project_joined(const st_pass *pass, const st_layer *layer)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t T = pass->tokens, outputs = layer->joined_outputs;
    st_multiply(pass, &n->outer, &layer->joined, 0, T, n->joined, outputs, layer->attn_counters);
    st_split(pass, layer, separate, T, 1, T * outputs);
}

static void project_each(const st_pass *pass, const st_layer *layer)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t T = pass->tokens;
    st_multiply(pass, &n->outer, &layer->q, 0, T, n->q, st_queries(n), layer->attn_counters);
    st_multiply(pass, &n->outer, &layer->k, 0, T, n->k, st_keys(n), layer->attn_counters);
    st_multiply(pass, &n->outer, &layer->v, 0, T, n->v, st_keys(n), layer->attn_counters);
    if (layer->linear && layer->gate == ST_GATE_MERGED)
        st_multiply(pass, &n->outer, &layer->decay, 0, T, n->decay, st_keys(n),
                    layer->attn_counters);
}

static void project(const st_pass *pass, const st_layer *layer)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t T = pass->tokens;
    st_read(pass, &n->outer, &layer->attn_site, n->normed, n->core.width, n->core.width,
            layer->attn_counters);
    (layer->joined_outputs ? project_joined : project_each)(pass, layer);
    if (layer->linear && layer->gate == ST_GATE_LOW_RANK) {
        st_multiply(pass, &n->outer, &layer->decay_in, 0, T, n->low, n->rank, layer->attn_counters);
        st_read_values(pass, &n->outer, n->low, n->rank, layer->attn_counters);
        st_multiply(pass, &n->outer, &layer->decay, 0, T, n->decay, st_keys(n),
                    layer->attn_counters);
    }
    if (layer->q_norm) st_split(pass, layer, norm_queries, T, 1, T * st_queries(n));
}

/* --- the whole ----------------------------------------------------------------------------- */

/* (linear + norm(window)) / 2 where a layer has both. */
static void combine(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                    ptrdiff_t last)
{
    (void)piece;
    const st_layer *layer = subject;
    const st_spikingbrain *n = st_spikingbrain_of(pass);
    for (ptrdiff_t t = first; t < last; t++) {
        float *out = n->mixed + t * st_queries(n), *seen = n->attended + t * st_queries(n);
        st_norm_heads(n, layer->w_norm, n->heads, seen);
        for (ptrdiff_t i = 0; i < st_queries(n); i++) {
            float both = out[i] + seen[i];
            out[i] = both * 0.5f;
        }
    }
}

void st_attend(const st_pass *pass, const st_layer *layer)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t T = pass->tokens, values = T * st_queries(n);
    project(pass, layer);
    if (layer->linear) st_attend_linear(pass, layer);
    if (layer->window) st_attend_window(pass, layer);
    if (layer->linear && layer->window) st_split(pass, layer, combine, T, 1, values);
    st_read(pass, &n->outer, &layer->o_site, n->mixed, st_queries(n), st_queries(n),
            layer->attn_counters);
    st_multiply(pass, &n->outer, &layer->o, 0, T, n->branch, n->core.width, layer->attn_counters);
}
