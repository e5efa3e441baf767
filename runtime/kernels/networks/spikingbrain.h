/* A SpikingBrain network: gated linear and window attention with SwiGLU feed-forward parts.
 *
 * A state begins with the number of tokens read. Window layers keep keys and values of the last
 * `tiles` * ST_TILE_KEYS positions, position p in tile p / ST_TILE_KEYS mod tiles. That must be
 * enough for a window and ST_ENTRY_TOKENS more. Keys lie as (tile, head, channel, key), values as
 * (tile, head, key, channel). */
#ifndef ST_SPIKINGBRAIN_H
#define ST_SPIKINGBRAIN_H

#include "core.h"

/* Most sequences or tokens of one pass over the weights. */
#define ST_BLOCK_TOKENS 256
/* Most tokens of one sequence that enter a window before the first of them attends. The size of a
 * stored state depends on it. */
#define ST_ENTRY_TOKENS 128
/* Tokens that share a pass over the tiles of a window. */
#define ST_QUERY_TOKENS 16

/* Formats of a window's keys and values. */
enum { ST_CACHE_FLOAT32, ST_CACHE_BFLOAT16, ST_CACHE_INT8 };
/* Where decays come from: a product in two steps, in one, or 1 - k. */
enum { ST_GATE_LOW_RANK, ST_GATE_MERGED, ST_GATE_TIED };

/* A matrix read as a whole, or by the rows of spikes (`by_rows`), and what is added to it; or
 * several `matrices` whose rows lie side by side. */
typedef struct {
    int by_rows, matrices;
    st_dense dense;
    st_rows rows;
    const float *bias;
} st_linear;

/* Where spikes are made, or where values pass to products: the forms that the products read. */
typedef struct {
    int spiking;
    float k, dead_zone;
    int values, codes, events;
} st_site;

typedef struct {
    st_linear gate, up, down;
} st_expert;

typedef struct {
    int linear, window, gate;
    const float *attn_norm, *mlp_norm, *q_norm, *k_norm, *g_norm, *w_norm;
    st_site attn_site, o_site, mlp_site, down_site;
    st_linear q, k, v, o, decay_in, decay;
    st_linear joined; /* q, k, v and a merged gate side by side, or no outputs: each by itself */
    ptrdiff_t joined_outputs;
    /* bytes from the start of a state */
    ptrdiff_t state, keys, values, key_scales, value_scales, tiles;
    int64_t visible;
    const float *sink_keys, *sink_values; /* tiles as in a window */
    ptrdiff_t sinks;
    ptrdiff_t experts, shared, inner;
    st_linear router;
    st_expert *expert; /* routed ones, then shared ones; without a router the one of the layer */
    st_counters *attn_counters, *mlp_counters;
} st_layer;

/* What a site hands to its products. */
typedef struct {
    st_dense_input dense;
    st_events events;
    float *values;
} st_reading;

typedef struct {
    st_core core;
    float epsilon, normalizer;
    int sigmoid, cache, attention_spikes;
    float attention_k;
    ptrdiff_t heads, kv_heads, size, inner, rank, layers, max_experts;
    st_layer *layer;
    const float *last_norm;
    st_site head_site;
    st_linear head;
    const double *rates; /* of rotation, for each pair of channels */
    int event_format;
    float max_k;
    /* scratch */
    float *x, *normed, *joined, *q, *k, *v, *decay, *low, *positive_q, *positive_k, *mixed,
        *attended, *branch, *hidden, *up, *sine, *cosine, *expert_weight, *scores;
    int32_t *chosen;
    float *space; /* space_size floats a piece of a split: see window.c */
    ptrdiff_t space_size;
    st_reading outer, inside;
} st_spikingbrain;

static inline st_spikingbrain *st_spikingbrain_of(const st_pass *pass)
{
    return (st_spikingbrain *)pass->core;
}

/* Values of all queries, and of all keys, of a token. */
static inline ptrdiff_t st_queries(const st_spikingbrain *n)
{
    return n->heads * n->size;
}

static inline ptrdiff_t st_keys(const st_spikingbrain *n)
{
    return n->kv_heads * n->size;
}

/* The position of token t of a pass. */
static inline int64_t st_position(const st_pass *pass, ptrdiff_t t)
{
    return *(const int64_t *)st_state_of(pass, t) + (pass->scan ? t : 0);
}

/* Allocates scratch once sizes and formats are set; 0 on success. */
int st_spikingbrain_prepare(st_spikingbrain *network);
void st_spikingbrain_free(st_spikingbrain *network);
/* Advances at most ST_BLOCK_TOKENS tokens and writes rows of `logits`. */
void st_spikingbrain_run(const st_pass *pass, const int64_t *token, int want, float *logits);

/* The attention of a layer: network->normed to network->branch. */
void st_attend(const st_pass *pass, const st_layer *layer);
/* The mixers of that attention, of q, k, v and decay: to network->mixed, or a window beside linear
 * attention to network->attended. */
void st_attend_linear(const st_pass *pass, const st_layer *layer);
void st_attend_window(const st_pass *pass, const st_layer *layer);
/* The feed-forward part of a layer: network->normed to network->branch. */
void st_feed_forward(const st_pass *pass, const st_layer *layer);
/* RMS norm of `heads` heads, in place. */
void st_norm_heads(const st_spikingbrain *network, const float *weight, ptrdiff_t heads, float *x);

/* --- sites (site.c) ----------------------------------------------------------------------------
 */

int st_reading_init(st_reading *reading, const st_spikingbrain *network, ptrdiff_t size);
void st_reading_free(st_reading *reading);
/* Prepares all tokens' rows of `size` values, `stride` apart, for the products of a site. */
void st_read(const st_pass *pass, st_reading *reading, const st_site *site, const float *from,
             ptrdiff_t stride, ptrdiff_t size, st_counters *counters);
/* The same of values that no matrix but one of floats reads. */
void st_read_values(const st_pass *pass, st_reading *reading, const float *from, ptrdiff_t size,
                    st_counters *counters);
/* Products of the tokens first .. last with what they read, bias included. */
void st_multiply(const st_pass *pass, const st_reading *reading, const st_linear *linear,
                 ptrdiff_t first, ptrdiff_t last, float *y, ptrdiff_t stride,
                 st_counters *counters);

#endif
