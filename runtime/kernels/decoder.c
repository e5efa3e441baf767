#include "decoder.h"

#include <stdlib.h>
#include <string.h>

#include "functions.h"

#define ST_PARTS_A_THREAD 2

#define ST_MAX(a, b) ((a) > (b) ? (a) : (b))

uint8_t *st_state_of(const st_block *block, ptrdiff_t t)
{
    return block->state[block->scan ? 0 : t];
}

int64_t st_position(const st_block *block, ptrdiff_t t)
{
    return *(const int64_t *)st_state_of(block, t) + (block->scan ? t : 0);
}

/* --- what goes in --------------------------------------------------------------------------- */

static void read_row(const st_decoder *n, int64_t token, float *row)
{
    ptrdiff_t at = (ptrdiff_t)token * n->embedding_stride;
    if (n->embedding_format == ST_INT8) {
        const int8_t *codes = (const int8_t *)n->embedding + at;
        float scale = n->embedding_scale[token];
        for (ptrdiff_t i = 0; i < n->width; i++) row[i] = (float)codes[i] * scale;
    } else if (n->embedding_format == ST_BFLOAT16) {
        n->kernels->widen_bfloat16((const uint16_t *)n->embedding + at, n->width, row);
    } else {
        memcpy(row, (const float *)n->embedding + at, (size_t)n->width * sizeof *row);
    }
}

/* Angles of each token's position: float64, their sine and cosine rounded. */
static void turn(const st_block *block)
{
    st_decoder *n = block->network;
    ptrdiff_t half = n->size / 2;
    for (ptrdiff_t t = 0; t < block->tokens; t++)
        for (ptrdiff_t i = 0; i < half; i++)
            st_sincos((double)st_position(block, t) * n->rates[i], n->sine + t * half + i,
                      n->cosine + t * half + i);
}

/* --- layers --------------------------------------------------------------------------------- */

static void normalise(const st_block *block, const void *subject, int part, ptrdiff_t first,
                      ptrdiff_t last)
{
    (void)part;
    const st_decoder *n = block->network;
    for (ptrdiff_t t = first; t < last; t++)
        n->kernels->rms_norm(n->x + t * n->width, subject, n->epsilon, n->width,
                             n->normed + t * n->width);
}

static void norm(const st_block *block, const float *weight)
{
    st_share(block, weight, normalise, block->tokens, 1, block->tokens * block->network->width);
}

static void run_layer(const st_block *block, st_layer *layer)
{
    st_decoder *n = block->network;
    norm(block, layer->attn_norm);
    st_attend(block, layer);
    n->kernels->add_vector(n->branch, block->tokens * n->width, n->x);
    norm(block, layer->mlp_norm);
    st_feed(block, layer);
    n->kernels->add_vector(n->branch, block->tokens * n->width, n->x);
}

/* Logits of the last tokens of a block, from the one numbered `skipped` on. */
static void run_head(const st_block *whole, ptrdiff_t skipped, float *logits)
{
    st_decoder *n = whole->network;
    st_block block = *whole;
    block.tokens -= skipped;
    memmove(n->x, n->x + skipped * n->width, (size_t)(block.tokens * n->width) * sizeof *n->x);
    norm(&block, n->last_norm);
    st_read(&block, &n->outer, &n->head_place, n->normed, n->width, n->width, n->head_work);
    st_multiply(&block, &n->outer, &n->head, 0, block.tokens, logits, n->vocabulary, n->head_work);
}

void st_decoder_run(st_decoder *n, uint8_t *const *state, const int64_t *token, ptrdiff_t tokens,
                    int scan, int want, float *logits, st_sequence_work *sequence)
{
    const st_block block = {n, state, tokens, scan, sequence};
    for (ptrdiff_t t = 0; t < tokens; t++) read_row(n, token[t], n->x + t * n->width);
    turn(&block);
    for (ptrdiff_t l = 0; l < n->layers; l++) run_layer(&block, &n->layer[l]);
    if (want) run_head(&block, want == 2 ? 0 : tokens - 1, logits);
    for (ptrdiff_t t = 0; t < (scan ? 1 : tokens); t++)
        *(int64_t *)state[t] += scan ? tokens : 1;
}

/* --- memory --------------------------------------------------------------------------------- */

static void *scratch(ptrdiff_t count)
{
    void *space = NULL;
    return posix_memalign(&space, 64, (size_t)count * sizeof(float) + 64) ? NULL : space;
}

static int prepare_spaces(st_decoder *n)
{
    ptrdiff_t size = 2 * ST_TILE_KEYS * n->size + 2 * ST_QUERY_TOKENS * n->heads;
    n->parts = ST_PARTS_A_THREAD * st_pool_threads(n->pool);
    n->space = calloc((size_t)n->parts, sizeof *n->space);
    if (!n->space) return -1;
    int failed = 0;
    for (int part = 0; part < n->parts; part++) failed |= !(n->space[part] = scratch(size));
    return failed;
}

int st_decoder_prepare(st_decoder *n)
{
    const ptrdiff_t T = ST_BLOCK_TOKENS, queries = n->heads * n->size;
    const ptrdiff_t shared = n->shared_heads * n->size, outer = ST_MAX(n->width, queries);
    const struct {
        float **to;
        ptrdiff_t size;
    } rows[] = {{&n->x, n->width},
                {&n->normed, n->width},
                {&n->joined, queries + 3 * shared},
                {&n->q, queries},
                {&n->k, shared},
                {&n->v, shared},
                {&n->decay, shared},
                {&n->low, n->rank},
                {&n->positive_q, queries},
                {&n->positive_k, shared},
                {&n->mixed, queries},
                {&n->seen, outer},
                {&n->branch, n->width},
                {&n->hidden, n->inner},
                {&n->up, ST_MAX(n->inner, n->most_experts)},
                {&n->sine, n->size / 2},
                {&n->cosine, n->size / 2},
                {&n->share, 1},
                {&n->scores, n->most_experts}};
    int failed = prepare_spaces(n);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        failed |= !(*rows[i].to = scratch(T * rows[i].size));
    failed |= !(n->chosen = scratch(T));
    failed |= !(n->active = scratch(ST_MAX(outer, n->inner)));
    failed |= st_reading_init(&n->outer, n, ST_MAX(outer, n->rank));
    failed |= st_reading_init(&n->inside, n, n->inner);
    return failed ? -1 : 0;
}

void st_decoder_release(st_decoder *n)
{
    void *const space[] = {n->x,      n->normed, n->joined,     n->q,          n->k,     n->v,
                           n->decay,  n->low,    n->positive_q, n->positive_k, n->mixed, n->seen,
                           n->branch, n->hidden, n->up,         n->sine,       n->cosine, n->share,
                           n->scores, n->chosen, n->active};
    for (size_t i = 0; i < sizeof space / sizeof *space; i++) free(space[i]);
    for (int part = 0; n->space && part < n->parts; part++) free(n->space[part]);
    free(n->space);
    st_reading_free(&n->outer);
    st_reading_free(&n->inside);
    for (ptrdiff_t l = 0; n->layer && l < n->layers; l++) free(n->layer[l].expert);
    free(n->layer);
}
