/* One half of a block. Rows are tokens; recurrences go token by token, shared out over channels. */
#include <string.h>

#include "rwkv.h"

#define ST_MIN(a, b) ((a) < (b) ? (a) : (b))
/* Floats of a cache line, and of the states that are asked for at a time. */
#define ST_LINE 16
#define ST_FETCH 64

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

/* Asks for `count` floats of a sequence's state, `at` on, that are soon needed: a batch's states come
 * from memory, where a run of tokens has its one state in the caches. */
static void fetch_state(const st_pass *pass, ptrdiff_t token, ptrdiff_t at, ptrdiff_t count)
{
    if (pass->scan || token >= pass->tokens) return;
    const float *from = pass->state[token] + at;
    for (ptrdiff_t i = 0; i < count; i += ST_LINE) __builtin_prefetch(from + i, 1, 2);
}

/* --- what goes in -------------------------------------------------------------------------- */

static void normalise(const st_pass *pass, const void *subject, ptrdiff_t first,
                      ptrdiff_t last)
{
    const st_half *half = subject;
    const st_rwkv *n = pass->network;
    for (ptrdiff_t t = first; t < last; t++) {
        const float *x = n->residual + t * n->width;
        fetch_state(pass, t, half->shift, n->width);
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

static void keep_shift(const st_pass *pass, const void *subject, ptrdiff_t first, ptrdiff_t last)
{
    const st_half *half = subject;
    const st_rwkv *n = pass->network;
    size_t bytes = (size_t)n->width * sizeof(float);
    for (ptrdiff_t t = first; t < last; t++)
        memcpy(state_of(pass, t) + half->shift, n->normed + t * n->width, bytes);
}

/* What a token of a batch needs is its own. */
static void enter_alone(const st_pass *pass, const void *half, ptrdiff_t first, ptrdiff_t last)
{
    for (ptrdiff_t t = first; t < last; t++) {
        normalise(pass, half, t, t + 1);
        shift(pass, half, t, t + 1);
        keep_shift(pass, half, t, t + 1);
    }
}

/* A token of a run needs the norm of the one before it. */
static void enter(const st_pass *pass, const st_half *half)
{
    if (!pass->scan) {
        st_over_tokens(pass, half, enter_alone);
        return;
    }
    st_over_tokens(pass, half, normalise);
    st_over_tokens(pass, half, shift);
    keep_shift(pass, half, pass->tokens - 1, pass->tokens);
}

/* network->hidden: r, k, v or k, r of each token side by side. */
static void project_in(const st_pass *pass, st_half *half)
{
    st_rwkv *n = pass->network;
    ptrdiff_t stride = hidden_width(n, half);
    if (n->position == ST_BEFORE_PROJECTIONS) {
        enter(pass, half);
        st_list_counts(pass, n->mixed[0], n->width, n->width, half->input_scale, &n->events,
                       half->work);
        st_sparse_run(&half->fused, &n->events, n->kernels, n->hidden, stride, n->pool);
        st_count_sparse(pass, half->work, &half->fused, &n->events);
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
    enter(pass, half);
    st_dense_run(product, matrices(half), n->kernels, n->pool);
}

/* --- time mix ------------------------------------------------------------------------------ */

/* Asks for what the next token's recurrence and this one's neurons need of `count` channels. */
static void fetch_channels(const st_pass *pass, const st_half *half, ptrdiff_t token,
                           ptrdiff_t first, ptrdiff_t count)
{
    const st_rwkv *n = pass->network;
    for (int part = 0; part < 3; part++)
        fetch_state(pass, token + 1, half->recurrence + part * n->width + first, count);
    if (n->position == ST_ON_RESIDUAL) fetch_state(pass, token, half->membrane + first, count);
}

static void scan_wkv(const st_pass *pass, const void *subject, ptrdiff_t first,
                     ptrdiff_t last)
{
    const st_half *half = subject;
    const st_rwkv *n = pass->network;
    ptrdiff_t width = n->width;
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        for (ptrdiff_t at = first; at < last; at += ST_FETCH) {
            const float *r = n->hidden + t * 3 * width + at;
            float *p = state_of(pass, t) + half->recurrence + at;
            ptrdiff_t count = ST_MIN(ST_FETCH, last - at);
            fetch_channels(pass, half, t, at, count);
            n->kernels->wkv(r, r + width, r + 2 * width, half->decay + at, half->bonus + at, count,
                            p, p + width, p + 2 * width, n->mixed[0] + t * width + at);
        }
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
        st_sparse_run(&half->value, &n->events, n->kernels, n->branch, n->width, n->pool);
        st_count_sparse(pass, half->work, &half->value, &n->events);
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
    st_sparse_run(&half->value, &n->events, n->kernels, n->branch, n->width, n->pool);
    st_count_sparse(pass, half->value_work, &half->value, &n->events);
}

/* --- what comes out ------------------------------------------------------------------------ */

static void gate(const st_pass *pass, const st_half *half, ptrdiff_t t, ptrdiff_t first,
                 ptrdiff_t last)
{
    const st_rwkv *n = pass->network;
    const float *r = n->hidden + t * hidden_width(n, half) + n->inner + first;
    float *x = n->branch + t * n->width + first;
    if (n->position == ST_ON_RESIDUAL)
        fetch_state(pass, t + 1, half->membrane + first, last - first);
    n->kernels->gate(r, x, last - first, x);
}

static void fire(const st_pass *pass, const st_half *half, ptrdiff_t t, ptrdiff_t first,
                 ptrdiff_t last)
{
    const st_rwkv *n = pass->network;
    int64_t spikes = n->kernels->lif(
        n->branch + t * n->width + first, half->scale + first, half->threshold + first, n->tau,
        last - first, state_of(pass, t) + half->membrane + first, n->count + t * n->width + first);
    __atomic_fetch_add(&n->fired[t], spikes, __ATOMIC_RELAXED);
}

/* From the branch to the residual. */
static void leave(const st_pass *pass, const void *subject, ptrdiff_t first, ptrdiff_t last)
{
    const st_half *half = subject;
    const st_rwkv *n = pass->network;
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        if (half->kind == ST_CHANNEL_MIX) gate(pass, half, t, first, last);
        if (n->position == ST_ON_RESIDUAL)
            fire(pass, half, t, first, last);
        else
            n->kernels->add_vector(n->branch + t * n->width + first, last - first,
                                   n->residual + t * n->width + first);
    }
}

void st_half_run(const st_pass *pass, st_half *half)
{
    st_rwkv *n = pass->network;
    project_in(pass, half);
    if (half->kind == ST_TIME_MIX)
        time_mix(pass, half);
    else
        channel_mix(pass, half);
    memset(n->fired, 0, (size_t)pass->tokens * sizeof *n->fired);
    st_over_channels(pass, half, leave);
    if (n->position != ST_ON_RESIDUAL) return;
    st_count_units(pass, half->work, n->width, n->fired);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) half->work->acs_effective += n->fired[t];
}
