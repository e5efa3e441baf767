/* The time mix of SpikeGPT: the WKV recurrence over r, k, v, then the output matrix. */
#include "spikegpt.h"

/* Channels whose state is asked for at a time. */
#define ST_FETCH 64

/* Asks for what the next token's recurrence and this one's neurons need of `count` channels. */
static void fetch_channels(const st_pass *pass, const st_sublayer *sublayer, ptrdiff_t token,
                           ptrdiff_t first, ptrdiff_t count)
{
    const st_spikegpt *n = st_spikegpt_of(pass);
    for (int part = 0; part < 3; part++)
        st_fetch_state(pass, token + 1, sublayer->recurrence + part * n->core.width + first, count);
    if (n->position == ST_ON_RESIDUAL)
        st_fetch_state(pass, token, sublayer->membrane + first, count);
}

static void scan_wkv(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                     ptrdiff_t last)
{
    (void)piece;
    const st_sublayer *sublayer = subject;
    const st_spikegpt *n = st_spikegpt_of(pass);
    const ptrdiff_t width = n->core.width;
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        for (ptrdiff_t at = first; at < last; at += ST_FETCH) {
            const float *r = n->hidden + t * 3 * width + at;
            float *p = st_floats_of(pass, t) + sublayer->recurrence + at;
            ptrdiff_t count = ST_MIN(ST_FETCH, last - at);
            fetch_channels(pass, sublayer, t, at, count);
            n->core.kernels->wkv(r, r + width, r + 2 * width, sublayer->decay + at,
                                 sublayer->bonus + at, count, p, p + width, p + 2 * width,
                                 n->mixed[0] + t * width + at);
        }
    }
}

void st_time_mix(const st_pass *pass, st_sublayer *sublayer)
{
    st_spikegpt *n = st_spikegpt_of(pass);
    st_over_channels(pass, sublayer, scan_wkv);
    if (n->position == ST_BEFORE_PROJECTIONS)
        st_spiking_product(pass, n->mixed[0], &sublayer->value, sublayer->value_scale, &n->events,
                           n->branch, n->core.width, sublayer->counters);
    else
        st_dense_product_of(pass, n->mixed[0], &sublayer->output, n->branch, sublayer->counters);
}
