/* A SpikeGPT network, or an RWKV-4 without neurons: blocks of a time mix and a channel mix. Each of
 * these sublayers reads a LayerNorm of the residual, mixed with that of the token before, and adds
 * its output to the residual. */
#ifndef ST_SPIKEGPT_H
#define ST_SPIKEGPT_H

#include "core.h"

/* Most sequences or tokens of one pass over the weights. */
#define ST_MAX_TOKENS 128

/* Where neurons sit: on the output of each sublayer, before each projection, nowhere. */
enum { ST_ON_RESIDUAL, ST_BEFORE_PROJECTIONS, ST_NOWHERE };
/* Time mix: r, k, v, WKV, output. Channel mix: k, r, squared ReLU, value, gate. */
enum { ST_TIME_MIX, ST_CHANNEL_MIX };

typedef struct {
    const float *weight, *bias;
} st_norm;

/* `shift`, `recurrence` and `membrane` are offsets in a state, in floats. */
typedef struct {
    int kind;
    st_norm norm;
    const float *mix[3];            /* one for each matrix, or one for the fused matrix */
    st_dense matrix[3];             /* r, k, v or k, r */
    st_rows fused;                  /* the same side by side, before projections */
    st_dense output;                /* time mix */
    st_rows value;                  /* channel mix; before projections also the output */
    const float *decay, *bonus;     /* time mix */
    const float *threshold, *scale; /* neurons on the residual */
    float input_scale, value_scale; /* of adaptive thresholds before projections */
    ptrdiff_t shift, recurrence, membrane;
    st_counters *counters, *value_counters; /* the latter of a channel mix */
} st_sublayer;

typedef struct {
    st_core core;
    int position;
    float tau, epsilon;
    ptrdiff_t inner, sublayers;
    st_sublayer *sublayer;
    st_norm first_norm, last_norm;
    st_dense head;
    st_rows spiking_head;
    float head_scale;
    int body_format, head_format;
    /* scratch */
    float *x, *residual, *normed, *mixed[3], *hidden, *branch, *square, *unit;
    int32_t *count;
    int16_t *spikes;
    st_dense_input input[3];
    st_events events, head_events;
} st_spikegpt;

static inline st_spikegpt *st_spikegpt_of(const st_pass *pass)
{
    return (st_spikegpt *)pass->core;
}

static inline float *st_floats_of(const st_pass *pass, ptrdiff_t token)
{
    return (float *)st_state_of(pass, token);
}

/* Allocates scratch once sizes and formats are set; 0 on success. */
int st_spikegpt_prepare(st_spikegpt *network);
void st_spikegpt_free(st_spikegpt *network);
/* Advances at most ST_MAX_TOKENS tokens and writes rows of `logits`. */
void st_spikegpt_run(const st_pass *pass, const int64_t *token, int want, float *logits);

/* One sublayer over all tokens of a pass: network->residual and count hold the residual. */
void st_sublayer_run(const st_pass *pass, st_sublayer *sublayer);
/* network->hidden to network->branch: r, k, v of each token side by side, or k, r. */
void st_time_mix(const st_pass *pass, st_sublayer *sublayer);
void st_channel_mix(const st_pass *pass, st_sublayer *sublayer);
/* Values of a token in network->hidden. */
ptrdiff_t st_hidden_width(const st_spikegpt *network, const st_sublayer *sublayer);

/* y = the product of the spike counts of `from`, of m->rows values a token, with an adaptive
 * threshold of `scale` times their mean size. */
void st_spiking_product(const st_pass *pass, const float *from, const st_rows *m, float scale,
                        st_events *events, float *y, ptrdiff_t y_stride, st_counters *counters);
/* y = the product of rows of core->width floats. */
void st_dense_product_of(const st_pass *pass, const float *from, const st_dense *m, float *y,
                         st_counters *counters);
/* Asks for `count` floats of a sequence's state, `at` on, that are soon needed: a batch's states
 * come from memory, where a run of tokens has its one state in the caches. */
void st_fetch_state(const st_pass *pass, ptrdiff_t token, ptrdiff_t at, ptrdiff_t count);

#endif
