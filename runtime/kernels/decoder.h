/* A decoder of gated linear and window attention with SwiGLU feed-forward parts: whole tokens for up
 * to ST_BLOCK_TOKENS sequences, or a run of tokens of one.
 *
 * A state begins with the number of tokens read. Window layers keep keys and values of the last
 * `tiles` * ST_TILE_KEYS positions, position p in tile p / ST_TILE_KEYS mod tiles, which must be enough
 * for a window and ST_ENTRY_TOKENS more: keys as (tile, head, channel, key), values as (tile, head,
 * key, channel). */
#ifndef ST_DECODER_H
#define ST_DECODER_H

#include "dense.h"
#include "kernels.h"
#include "pool.h"
#include "sparse.h"
#include "work.h"

/* Most sequences or tokens of one pass over the weights. */
#define ST_BLOCK_TOKENS 256
/* Most tokens of one sequence that enter a window before the first of them looks. The size of a
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
    st_sparse sparse;
    const float *bias;
} st_linear;

/* What products of one place read: the forms that its matrices ask for. */
typedef struct {
    int spiking;
    float k, dead_zone;
    int values, codes, events;
} st_place;

typedef struct {
    st_linear gate, up, down;
} st_expert;

typedef struct {
    int linear, window, gate, low_rank;
    const float *attn_norm, *mlp_norm, *q_norm, *k_norm, *g_norm, *w_norm;
    st_place attn_place, o_place, mlp_place, down_place;
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
    st_work *attn_work, *mlp_work;
} st_layer;

/* What a place hands to its products. */
typedef struct {
    st_dense_input dense;
    st_sparse_input events;
    float *values;
    int64_t *fired, *ones; /* of each token: inputs with events, and those with one of 1 or -1 */
} st_reading;

typedef struct {
    const st_kernels *kernels;
    st_pool *pool;
    float epsilon, normalizer;
    int sigmoid, cache, attention_spikes;
    float attention_k;
    ptrdiff_t width, heads, shared_heads, size, inner, rank, vocabulary, layers, most_experts;
    st_layer *layer;
    const float *last_norm;
    /* Rows of tokens: float32, bfloat16 or int8 codes with a scale a row. */
    int embedding_format;
    const void *embedding;
    const float *embedding_scale;
    ptrdiff_t embedding_stride;
    st_place head_place;
    st_linear head;
    st_work *head_work;
    const double *rates; /* of rotation, for each pair of channels */
    int event_format;
    float most_k;
    ptrdiff_t dial; /* bytes from the start of a state; 0 for a dial of 1 */
    st_record record;
    /* scratch */
    float *x, *normed, *joined, *q, *k, *v, *decay, *low, *positive_q, *positive_k, *mixed, *seen,
        *branch, *hidden, *up, *sine, *cosine, *share, *scores;
    int32_t *chosen;
    uint8_t *active;
    int parts; /* most pieces of shared work */
    void **space; /* one a piece: see attention */
    st_reading outer, inside;
} st_decoder;

/* What a pass works on. state[i] belongs to token i, or state[0] to all of a scan. */
typedef struct {
    st_decoder *network;
    uint8_t *const *state;
    ptrdiff_t tokens;
    int scan;
    st_sequence_work *sequence; /* one a state */
} st_block;

/* Allocates scratch once sizes and formats are set; 0 on success. */
int st_decoder_prepare(st_decoder *network);
void st_decoder_release(st_decoder *network);

/* Advances `tokens` <= ST_BLOCK_TOKENS tokens and writes `logits` rows.
 * scan = 0: token i belongs to state[i]. scan = 1: the tokens are consecutive in state[0].
 * want: 0 no logits, 1 those after the last token alone (into row 0), 2 all. */
void st_decoder_run(st_decoder *network, uint8_t *const *state, const int64_t *token,
                    ptrdiff_t tokens, int scan, int want, float *logits,
                    st_sequence_work *sequence);

/* The attention of a layer: network->normed to network->mixed. */
void st_attend(const st_block *block, st_layer *layer);
/* The feed-forward part of a layer: network->normed to network->branch. */
void st_feed(const st_block *block, st_layer *layer);

/* The position of token t of a block. */
int64_t st_position(const st_block *block, ptrdiff_t t);
uint8_t *st_state_of(const st_block *block, ptrdiff_t t);

typedef void (*st_task)(const st_block *block, const void *subject, int part, ptrdiff_t first,
                        ptrdiff_t last);
/* task(block, subject, part, first, last) over [0, size) in pieces of multiples of `step`, shared
 * out among the threads if there are about `values` to compute. part < network->parts. */
void st_share(const st_block *block, const void *subject, st_task task, ptrdiff_t size,
              ptrdiff_t step, ptrdiff_t values);

int st_reading_init(st_reading *reading, const st_decoder *network, ptrdiff_t size);
void st_reading_free(st_reading *reading);
/* Prepares all tokens' rows of `size` values, `stride` apart, for the products of a place. */
void st_read(const st_block *block, st_reading *reading, const st_place *place, const float *from,
             ptrdiff_t stride, ptrdiff_t size, st_work *work);
/* Products of the tokens first .. last with what they read, bias included. */
void st_multiply(const st_block *block, const st_reading *reading, const st_linear *linear,
                 ptrdiff_t first, ptrdiff_t last, float *y, ptrdiff_t stride, st_work *work);

#endif
