#include "spikingbrain.h"

#include <stdlib.h>
#include <string.h>

#include "functions.h"

/* Angles of each token's position: float64, their sine and cosine rounded. */
static void rotary_angles(const st_pass *pass)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    const ptrdiff_t half = n->size / 2;
    for (ptrdiff_t t = 0; t < pass->tokens; t++)
        for (ptrdiff_t i = 0; i < half; i++)
            st_sincos((double)st_position(pass, t) * n->rates[i], n->sine + t * half + i,
                      n->cosine + t * half + i);
}

/* --- layers --------------------------------------------------------------------------------- */

static void normalise(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                      ptrdiff_t last)
{
    (void)piece;
    const st_spikingbrain *n = st_spikingbrain_of(pass);
    for (ptrdiff_t t = first; t < last; t++)
        n->core.kernels->rms_norm(n->x + t * n->core.width, subject, n->epsilon, n->core.width,
                                  n->normed + t * n->core.width);
}

static void norm(const st_pass *pass, const float *weight)
{
    st_split(pass, weight, normalise, pass->tokens, 1, pass->tokens * pass->core->width);
}

static void run_layer(const st_pass *pass, const st_layer *layer)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    norm(pass, layer->attn_norm);
    st_attend(pass, layer);
    n->core.kernels->add_vector(n->branch, pass->tokens * n->core.width, n->x);
    norm(pass, layer->mlp_norm);
    st_feed_forward(pass, layer);
    n->core.kernels->add_vector(n->branch, pass->tokens * n->core.width, n->x);
}

/* Logits of the tokens from the one numbered `skipped` on. */
static void run_head(const st_pass *whole, ptrdiff_t skipped, float *logits)
{
    st_spikingbrain *n = st_spikingbrain_of(whole);
    const st_pass pass = st_pass_from(whole, skipped);
    const ptrdiff_t width = n->core.width;
    memmove(n->x, n->x + skipped * width, (size_t)(pass.tokens * width) * sizeof *n->x);
    norm(&pass, n->last_norm);
    st_read(&pass, &n->outer, &n->head_site, n->normed, width, width, n->core.head_counters);
    st_multiply(&pass, &n->outer, &n->head, 0, pass.tokens, logits, n->core.vocabulary,
                n->core.head_counters);
}

void st_spikingbrain_run(const st_pass *pass, const int64_t *token, int want, float *logits)
{
    st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t tokens = pass->tokens;
    for (ptrdiff_t t = 0; t < tokens; t++) st_embed(&n->core, token[t], n->x + t * n->core.width);
    rotary_angles(pass);
    for (ptrdiff_t l = 0; l < n->layers; l++) run_layer(pass, &n->layer[l]);
    if (want != ST_NO_LOGITS) run_head(pass, want == ST_ALL_LOGITS ? 0 : tokens - 1, logits);
    for (ptrdiff_t t = 0; t < (pass->scan ? 1 : tokens); t++)
        *(int64_t *)pass->state[t] += pass->scan ? tokens : 1;
}

/* --- memory --------------------------------------------------------------------------------- */

int st_spikingbrain_prepare(st_spikingbrain *n)
{
    const ptrdiff_t T = ST_BLOCK_TOKENS, queries = st_queries(n), keys = st_keys(n);
    const ptrdiff_t width = n->core.width, outer = ST_MAX(width, queries);
    const struct {
        float **to;
        ptrdiff_t size;
    } rows[] = {{&n->x, width},
                {&n->normed, width},
                {&n->joined, queries + 3 * keys},
                {&n->q, queries},
                {&n->k, keys},
                {&n->v, keys},
                {&n->decay, keys},
                {&n->low, n->rank},
                {&n->positive_q, queries},
                {&n->positive_k, keys},
                {&n->mixed, queries},
                {&n->attended, outer},
                {&n->branch, width},
                {&n->hidden, n->inner},
                {&n->up, ST_MAX(n->inner, n->max_experts)},
                {&n->sine, n->size / 2},
                {&n->cosine, n->size / 2},
                {&n->expert_weight, 1},
                {&n->scores, n->max_experts}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        *rows[i].to = st_scratch(&n->core, T * rows[i].size * (ptrdiff_t)sizeof(float));
    n->chosen = st_scratch(&n->core, T * (ptrdiff_t)sizeof *n->chosen);
    n->space_size = (2 * ST_TILE_KEYS * n->size + 2 * ST_QUERY_TOKENS * n->heads + 15) / 16 * 16;
    n->space = st_scratch(&n->core, n->core.pieces * n->space_size * (ptrdiff_t)sizeof(float));
    int failed = n->core.is_short;
    failed |= st_reading_init(&n->outer, n, ST_MAX(outer, n->rank));
    failed |= st_reading_init(&n->inside, n, n->inner);
    return failed ? -1 : 0;
}

void st_spikingbrain_free(st_spikingbrain *n)
{
    st_core_free(&n->core);
    st_reading_free(&n->outer);
    st_reading_free(&n->inside);
    for (ptrdiff_t l = 0; n->layer && l < n->layers; l++) free(n->layer[l].expert);
    free(n->layer);
}
