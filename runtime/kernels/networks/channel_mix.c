/* The channel mix of SpikeGPT: squared ReLUs of k, then the value matrix; a sublayer's end applies
 * the gate r. */
#include "spikegpt.h"

static void list_squares(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                         ptrdiff_t last)
{
    (void)piece;
    st_spikegpt *n = st_spikegpt_of(pass);
    st_list_squares(&n->events, n->core.kernels, n->hidden, st_hidden_width(n, subject), first,
                    last);
}

static void square(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                   ptrdiff_t last)
{
    (void)piece;
    const st_spikegpt *n = st_spikegpt_of(pass);
    for (ptrdiff_t t = first; t < last; t++)
        n->core.kernels->square_relu(n->hidden + t * st_hidden_width(n, subject), n->inner,
                                     n->square + t * n->inner);
}

void st_channel_mix(const st_pass *pass, st_sublayer *sublayer)
{
    st_spikegpt *n = st_spikegpt_of(pass);
    if (n->position == ST_BEFORE_PROJECTIONS) {
        st_over_tokens(pass, sublayer, square);
        st_spiking_product(pass, n->square, &sublayer->value, sublayer->value_scale, &n->events,
                           n->branch, n->core.width, sublayer->value_counters);
        return;
    }
    st_events_begin(&n->events, pass->tokens, n->inner);
    st_over_tokens(pass, sublayer, list_squares);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) n->core.fired[t] = n->events.list[t].inputs;
    st_count_neurons(pass, sublayer->value_counters, n->inner, n->core.fired);
    const st_event_product product = {&sublayer->value, &n->events, n->branch, n->core.width};
    st_run_events(pass, sublayer->value_counters, &product, 1);
}
