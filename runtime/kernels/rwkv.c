#include "rwkv.h"

#include <stdlib.h>
#include <string.h>

/* Sum of |counts| that adaptive thresholds allow, with room for rounding: the family's Spec bounds
 * size / scale by 32767. */
#define ST_MOST_COUNTS 33100

#define ST_MIN(a, b) ((a) < (b) ? (a) : (b))
#define ST_MAX(a, b) ((a) > (b) ? (a) : (b))

/* --- embedding ------------------------------------------------------------------------------ */

static void read_row(const st_rwkv *n, int64_t token, float *row)
{
    if (n->embedding_bits) {
        const uint8_t *bits = n->embedding_bits + token * n->embedding_stride;
        for (ptrdiff_t i = 0; i < n->width; i++) row[i] = (float)(bits[i / 8] >> i % 8 & 1);
    } else if (n->embedding_codes) {
        const int8_t *codes = n->embedding_codes + token * n->embedding_stride;
        float scale = n->embedding_scale[token];
        for (ptrdiff_t i = 0; i < n->width; i++) row[i] = (float)codes[i] * scale;
    } else if (n->embedding_halves) {
        n->kernels->widen_bfloat16(n->embedding_halves + token * n->embedding_stride, n->width,
                                   row);
    } else {
        memcpy(row, n->embedding + token * n->embedding_stride, (size_t)n->width * sizeof *row);
    }
}

static void embed(const st_pass *pass, const void *subject, ptrdiff_t first, ptrdiff_t last)
{
    const int64_t *token = subject;
    const st_rwkv *n = pass->network;
    for (ptrdiff_t t = first; t < last; t++) {
        float *row = n->x + t * n->width;
        read_row(n, token[t], row);
        n->kernels->layer_norm(row, n->first_norm.weight, n->first_norm.bias, n->epsilon, n->width,
                               n->residual + t * n->width);
        memset(n->count + t * n->width, 0, (size_t)n->width * sizeof *n->count);
    }
}

/* --- head ----------------------------------------------------------------------------------- */

static void last_norm(const st_pass *pass, const void *subject, ptrdiff_t first, ptrdiff_t last)
{
    const st_rwkv *n = pass->network;
    ptrdiff_t skipped = *(const ptrdiff_t *)subject;
    for (ptrdiff_t t = first; t < last; t++) {
        float *row = n->x + (t + skipped) * n->width;
        n->kernels->add_counts(n->residual + (t + skipped) * n->width,
                               n->count + (t + skipped) * n->width, n->width, row);
        n->kernels->layer_norm(row, n->last_norm.weight, n->last_norm.bias, n->epsilon, n->width,
                               n->normed + t * n->width);
    }
}

static void quantise_head(const st_pass *pass, const void *subject, ptrdiff_t first,
                          ptrdiff_t last)
{
    (void)subject;
    st_dense_quantise(&pass->network->input[0], pass->network->kernels, first, last);
}

/* Logits of the last tokens of a pass, from the one numbered `skipped` on. */
static void run_head(const st_pass *whole, ptrdiff_t skipped, float *logits)
{
    st_rwkv *n = whole->network;
    st_pass pass = *whole;
    pass.tokens -= skipped;
    st_over_tokens(&pass, &skipped, last_norm);
    if (n->position == ST_BEFORE_PROJECTIONS) {
        st_list_counts(&pass, n->normed, n->width, n->width, n->head_scale, &n->head_events,
                       n->head_work);
        st_sparse_run(&n->spiked_head, &n->head_events, n->kernels, logits, n->vocabulary,
                      n->pool);
        st_count_sparse(&pass, n->head_work, &n->spiked_head, &n->head_events);
        return;
    }
    st_dense_input_set(&n->input[0], n->normed, n->width, pass.tokens, n->width);
    if (!st_is_float(n->head_format)) st_over_tokens(&pass, NULL, quantise_head);
    const st_dense_product product = {&n->head, &n->input[0], logits, n->vocabulary};
    st_count_dense(&pass, n->head_work, &n->head);
    st_dense_run(&product, 1, n->kernels, n->pool);
}

void st_rwkv_run(st_rwkv *n, float *const *state, const int64_t *token, ptrdiff_t tokens, int scan,
                 int want, float *logits, st_sequence_work *sequence)
{
    const st_pass pass = {n, state, tokens, scan, sequence};
    st_over_tokens(&pass, token, embed);
    for (ptrdiff_t h = 0; h < n->halves; h++) st_half_run(&pass, &n->half[h]);
    if (want) run_head(&pass, want == 2 ? 0 : tokens - 1, logits);
}

/* --- memory --------------------------------------------------------------------------------- */

static void *scratch(ptrdiff_t bytes)
{
    void *space = NULL;
    return posix_memalign(&space, 64, (size_t)bytes + 64) ? NULL : space;
}

static int prepare_events(st_rwkv *n)
{
    int counts = n->position == ST_BEFORE_PROJECTIONS, kind = counts ? ST_COUNTS : ST_SQUARES;
    ptrdiff_t size = ST_MAX(n->inner, n->width);
    ptrdiff_t more = counts ? ST_MOST_COUNTS / st_sparse_most(n->body_format, kind) + 1 : 0;
    if (st_sparse_input_init(&n->events, n->body_format, kind, size, size + more, ST_MAX_TOKENS))
        return -1;
    if (!counts) return 0;
    more = ST_MOST_COUNTS / st_sparse_most(n->head_format, kind) + 1;
    return st_sparse_input_init(&n->head_events, n->head_format, kind, n->width, n->width + more,
                                ST_MAX_TOKENS);
}

int st_rwkv_prepare(st_rwkv *n)
{
    const ptrdiff_t row = ST_MAX_TOKENS * n->width, inner = ST_MAX_TOKENS * n->inner;
    const ptrdiff_t size = (ptrdiff_t)sizeof(float);
    int failed = prepare_events(n);
    for (int m = 0; m < 3; m++) {
        failed |= !(n->mixed[m] = scratch(row * size));
        failed |= st_dense_input_init(&n->input[m], n->width, ST_MAX_TOKENS);
    }
    failed |= !(n->x = scratch(row * size));
    failed |= !(n->residual = scratch(row * size));
    failed |= !(n->normed = scratch(row * size));
    failed |= !(n->branch = scratch(row * size));
    failed |= !(n->hidden = scratch(ST_MAX(3 * row, inner + row) * size));
    failed |= !(n->square = scratch(inner * size));
    failed |= !(n->spikes = scratch(ST_MAX(row, inner) * 2));
    failed |= !(n->unit = scratch(ST_MAX_TOKENS * size));
    failed |= !(n->count = scratch(row * 4));
    failed |= !(n->fired = scratch(ST_MAX_TOKENS * 8));
    failed |= !(n->inputs = scratch(ST_MAX_TOKENS * 8));
    failed |= !(n->ones = scratch(ST_MAX_TOKENS * 8));
    failed |= !(n->active = scratch(ST_MAX(n->width, n->inner)));
    return failed ? -1 : 0;
}

void st_rwkv_release(st_rwkv *n)
{
    void *const space[] = {n->x,      n->residual, n->normed, n->branch, n->hidden, n->square,
                           n->spikes, n->unit,     n->count,  n->fired,  n->inputs, n->ones,
                           n->active, n->mixed[0], n->mixed[1], n->mixed[2]};
    for (size_t i = 0; i < sizeof space / sizeof *space; i++) free(space[i]);
    for (int m = 0; m < 3; m++) st_dense_input_free(&n->input[m]);
    st_sparse_input_free(&n->events);
    st_sparse_input_free(&n->head_events);
}
