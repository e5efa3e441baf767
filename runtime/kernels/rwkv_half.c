/* One half of a block. Rows are tokens; recurrences go token by token, shared out over channels. */
#include <string.h>

#include "rwkv.h"

static ptrdiff_t hidden_width(const st_rwkv *n, const st_half *half)
{
    return half->kind == ST_TIME_MIX ? 3 * n->width : n->inner + n->width;
}

static int matrices(const st_half *half)
{
    return half->kind == ST_TIME_MIX ? 3 : 2;
}

static float *state_of(const st_pass *pass, ptrdiff_t token)
{
    return pass->state[pass->scan ? 0 : token];
}

/* --- what goes in -------------------------------------------------------------------------- */

static void normalise(const st_pass *pass, const void *subject, ptrdiff_t first,
                      ptrdiff_t last)
{
    const st_half *half = subject;
    const st_rwkv *n = pass->network;
    for (ptrdiff_t t = first; t < last; t++) {
        const float *x = n->residual + t * n->width;
        if (n->position == ST_ON_RESIDUAL) {
            float *sum = n->x + t * n->width;
            n->kernels->add_counts(x, n->count + t * n->width, n->width, sum);
            x = sum;
        }
        n->kernels->layer_norm(x, half->norm.weight, half->norm.bias, n->epsilon, n->width,
                               n->normed + t * n->width);
    }
}

/* Mixes each row with the one before it: of the run, or of the token's own state. */
static void shift(const st_pass *pass, const void *subject, ptrdiff_t first,
                  ptrdiff_t last)
{
    const st_half *half = subject;
    st_rwkv *n = pass->network;
    int count = n->position == ST_BEFORE_PROJECTIONS ? 1 : matrices(half);
    for (ptrdiff_t t = first; t < last; t++) {
        const float *now = n->normed + t * n->width;
        const float *before = pass->scan && t > 0 ? now - n->width : state_of(pass, t) + half->shift;
        for (int m = 0; m < count; m++)
            n->kernels->token_shift(now, before, half->mix[m], n->width,
                                    n->mixed[m] + t * n->width);
    }
    if (n->position == ST_BEFORE_PROJECTIONS || st_is_float(n->body_format)) return;
    for (int m = 0; m < count; m++) st_dense_quantise(&n->input[m], n->kernels, first, last);
}

static void keep_shift(const st_pass *pass, const st_half *half)
{
    const st_rwkv *n = pass->network;
    size_t bytes = (size_t)n->width * sizeof(float);
    for (ptrdiff_t t = pass->scan ? pass->tokens - 1 : 0; t < pass->tokens; t++)
        memcpy(state_of(pass, t) + half->shift, n->normed + t * n->width, bytes);
}

/* network->hidden: r, k, v or k, r of each token side by side. */
static void project_in(const st_pass *pass, st_half *half)
{
    st_rwkv *n = pass->network;
    ptrdiff_t stride = hidden_width(n, half);
    st_over_tokens(pass, half, normalise);
    if (n->position == ST_BEFORE_PROJECTIONS) {
        st_over_tokens(pass, half, shift);
        keep_shift(pass, half);
        st_list_counts(pass, n->mixed[0], n->width, n->width, half->input_scale, &n->events,
                       half->work);
        st_count_sparse(pass, half->work, &half->fused, &n->events);
        st_sparse_run(&half->fused, &n->events, n->kernels, n->hidden, stride, n->pool);
        return;
    }
    st_dense_product product[3];
    float *y = n->hidden;
    for (int m = 0; m < matrices(half); m++) {
        st_dense_input_set(&n->input[m], n->mixed[m], n->width, pass->tokens, n->width);
        product[m] = (st_dense_product){&half->matrix[m], &n->input[m], y, stride};
        st_count_dense(pass, half->work, &half->matrix[m]);
        y += half->matrix[m].outputs;
    }
    st_over_tokens(pass, half, shift);
    keep_shift(pass, half);
    st_dense_run(product, matrices(half), n->kernels, n->pool);
}

/* --- time mix ------------------------------------------------------------------------------ */

static void scan_wkv(const st_pass *pass, const void *subject, ptrdiff_t first,
                     ptrdiff_t last)
{
    const st_half *half = subject;
    const st_rwkv *n = pass->network;
    ptrdiff_t width = n->width;
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        const float *r = n->hidden + t * 3 * width + first;
        float *p = state_of(pass, t) + half->recurrence + first;
        n->kernels->wkv(r, r + width, r + 2 * width, half->decay + first, half->bonus + first,
                        last - first, p, p + width, p + 2 * width, n->mixed[0] + t * width + first);
    }
}

static void quantise_first(const st_pass *pass, const void *subject, ptrdiff_t first,
                           ptrdiff_t last)
{
    (void)subject;
    st_dense_quantise(&pass->network->input[0], pass->network->kernels, first, last);
}

static void time_mix(const st_pass *pass, st_half *half)
{
    st_rwkv *n = pass->network;
    st_over_channels(pass, half, scan_wkv);
    if (n->position == ST_BEFORE_PROJECTIONS) {
        st_list_counts(pass, n->mixed[0], n->width, n->width, half->value_scale, &n->events,
                       half->work);
        st_count_sparse(pass, half->work, &half->value, &n->events);
        st_sparse_run(&half->value, &n->events, n->kernels, n->branch, n->width, n->pool);
        return;
    }
    st_dense_input_set(&n->input[0], n->mixed[0], n->width, pass->tokens, n->width);
    if (!st_is_float(n->body_format)) st_over_tokens(pass, half, quantise_first);
    const st_dense_product product = {&half->output, &n->input[0], n->branch, n->width};
    st_count_dense(pass, half->work, &half->output);
    st_dense_run(&product, 1, n->kernels, n->pool);
}

/* --- channel mix --------------------------------------------------------------------------- */

static void list_squares(const st_pass *pass, const void *subject, ptrdiff_t first,
                         ptrdiff_t last)
{
    const st_half *half = subject;
    st_rwkv *n = pass->network;
    st_sparse_squares(&n->events, n->kernels, n->hidden, hidden_width(n, half), first, last);
}

static void square(const st_pass *pass, const void *subject, ptrdiff_t first,
                   ptrdiff_t last)
{
    const st_half *half = subject;
    const st_rwkv *n = pass->network;
    for (ptrdiff_t t = first; t < last; t++)
        n->kernels->square_relu(n->hidden + t * hidden_width(n, half), n->inner,
                                n->square + t * n->inner);
}

static void gate(const st_pass *pass, const void *subject, ptrdiff_t first,
                 ptrdiff_t last)
{
    const st_half *half = subject;
    const st_rwkv *n = pass->network;
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        const float *r = n->hidden + t * hidden_width(n, half) + n->inner + first;
        float *x = n->branch + t * n->width + first;
        n->kernels->gate(r, x, last - first, x);
    }
}

static void channel_mix(const st_pass *pass, st_half *half)
{
    st_rwkv *n = pass->network;
    if (n->position == ST_BEFORE_PROJECTIONS) {
        st_over_tokens(pass, half, square);
        st_list_counts(pass, n->square, n->inner, n->inner, half->value_scale, &n->events,
                       half->value_work);
    } else {
        n->events.size = n->inner;
        n->events.tokens = pass->tokens;
        st_over_tokens(pass, half, list_squares);
        for (ptrdiff_t t = 0; t < pass->tokens; t++) n->fired[t] = n->events.list[t].count;
        st_count_units(pass, half->value_work, n->inner, n->fired);
    }
    st_count_sparse(pass, half->value_work, &half->value, &n->events);
    st_sparse_run(&half->value, &n->events, n->kernels, n->branch, n->width, n->pool);
    st_over_channels(pass, half, gate);
}

/* --- what comes out ------------------------------------------------------------------------ */

static void fire(const st_pass *pass, const void *subject, ptrdiff_t first,
                 ptrdiff_t last)
{
    const st_half *half = subject;
    const st_rwkv *n = pass->network;
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        int64_t spikes = n->kernels->lif(
            n->branch + t * n->width + first, half->scale + first, half->threshold + first, n->tau,
            last - first, state_of(pass, t) + half->membrane + first,
            n->count + t * n->width + first);
        __atomic_fetch_add(&n->fired[t], spikes, __ATOMIC_RELAXED);
    }
}

static void add(const st_pass *pass, const void *subject, ptrdiff_t first,
                ptrdiff_t last)
{
    (void)subject;
    const st_rwkv *n = pass->network;
    for (ptrdiff_t t = 0; t < pass->tokens; t++)
        n->kernels->add_vector(n->branch + t * n->width + first, last - first,
                               n->residual + t * n->width + first);
}

void st_half_run(const st_pass *pass, st_half *half)
{
    st_rwkv *n = pass->network;
    project_in(pass, half);
    if (half->kind == ST_TIME_MIX)
        time_mix(pass, half);
    else
        channel_mix(pass, half);
    if (n->position != ST_ON_RESIDUAL) {
        st_over_channels(pass, half, add);
        return;
    }
    memset(n->fired, 0, (size_t)pass->tokens * sizeof *n->fired);
    st_over_channels(pass, half, fire);
    st_count_units(pass, half->work, n->width, n->fired);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) half->work->acs_effective += n->fired[t];
}
