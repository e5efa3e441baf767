/* Gated linear attention: a state of (channels, channels) for each key/value head. */
#include <math.h>
#include <string.h>

#include "spikingbrain.h"

/* Non-negative q / sqrt(d) and k, and the decays. */
static void make_positive(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                          ptrdiff_t last)
{
    (void)piece;
    const st_layer *layer = subject;
    st_spikingbrain *n = st_spikingbrain_of(pass);
    const float root = sqrtf((float)n->size);
    for (ptrdiff_t t = first; t < last; t++) {
        const float *k = n->k + t * st_keys(n);
        float *positive_q = n->positive_q + t * st_queries(n), *decay = n->decay + t * st_keys(n);
        float *positive_k = n->positive_k + t * st_keys(n);
        if (n->sigmoid) {
            n->core.kernels->sigmoid_all(n->q + t * st_queries(n), positive_q, st_queries(n));
            n->core.kernels->sigmoid_all(k, positive_k, st_keys(n));
        } else {
            n->core.kernels->relu(n->q + t * st_queries(n), st_queries(n), positive_q);
            n->core.kernels->relu(k, st_keys(n), positive_k);
        }
        for (ptrdiff_t i = 0; i < st_queries(n); i++) positive_q[i] = positive_q[i] / root;
        if (layer->gate == ST_GATE_TIED) {
            for (ptrdiff_t i = 0; i < st_keys(n); i++) decay[i] = 1.0f - positive_k[i];
        } else {
            for (ptrdiff_t h = 0; h < n->kv_heads; h++) {
                float kept[n->size];
                n->core.kernels->decay(decay + h * n->size, n->normalizer, n->size, kept);
                memcpy(decay + h * n->size, kept, sizeof kept);
            }
        }
    }
}

static void scan_token(const st_pass *pass, const st_layer *layer, ptrdiff_t t, ptrdiff_t head)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t group = n->heads / n->kv_heads, at = t * st_keys(n) + head * n->size;
    float *state = (float *)(st_state_of(pass, t) + layer->state) + head * n->size * n->size;
    ptrdiff_t queried = t * st_queries(n) + head * group * n->size;
    n->core.kernels->gla(n->decay + at, n->positive_k + at, n->v + at, n->positive_q + queried,
                         group, n->size, state, n->mixed + queried);
    st_norm_heads(n, layer->g_norm, group, n->mixed + queried);
}

/* Heads of a run of tokens, or pairs of a token and a head. */
static void scan_heads(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                       ptrdiff_t last)
{
    (void)piece;
    ptrdiff_t heads = st_spikingbrain_of(pass)->kv_heads;
    for (ptrdiff_t u = first; u < last; u++) {
        if (!pass->scan) scan_token(pass, subject, u / heads, u % heads);
        for (ptrdiff_t t = 0; pass->scan && t < pass->tokens; t++) scan_token(pass, subject, t, u);
    }
}

void st_attend_linear(const st_pass *pass, const st_layer *layer)
{
    const st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t tokens = pass->tokens, heads = n->kv_heads, values = tokens * st_queries(n);
    st_split(pass, layer, make_positive, tokens, 1, values);
    st_split(pass, layer, scan_heads, pass->scan ? heads : heads * tokens, 1, values * n->size);
}
