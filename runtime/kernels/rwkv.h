/* An RWKV-4 network with spiking neurons: whole tokens for up to ST_MAX_TOKENS sequences, or a run of
 * tokens of one. Blocks are cut into halves: each reads a LayerNorm of the residual, shifted by a
 * token, and adds what it makes of that to the residual. */
#ifndef ST_RWKV_H
#define ST_RWKV_H

#include "dense.h"
#include "kernels.h"
#include "pool.h"
#include "sparse.h"
#include "work.h"

/* Most sequences or tokens of one pass over the weights. */
#define ST_MAX_TOKENS 128

/* Where neurons sit: on the output of each half, before each projection, nowhere. */
enum { ST_ON_RESIDUAL, ST_BEFORE_PROJECTIONS, ST_NOWHERE };
/* Time mix: r, k, v, WKV, output. Channel mix: k, r, squared ReLU, value, gate. */
enum { ST_TIME_MIX, ST_CHANNEL_MIX };

typedef struct {
    const float *weight, *bias;
} st_norm;

/* One half of a block. `shift` and the others are places in a state, in floats. */
typedef struct {
    int kind;
    st_norm norm;
    const float *mix[3];                 /* one for each matrix, or one for the fused matrix */
    st_dense matrix[3];                  /* r, k, v or k, r */
    st_sparse fused;                     /* the same side by side, before projections */
    st_dense output;                     /* time mix */
    st_sparse value;                     /* channel mix; before projections also the output */
    const float *decay, *bonus;          /* time mix */
    const float *threshold, *scale;      /* neurons on the residual */
    float input_scale, value_scale;      /* of adaptive thresholds before projections */
    ptrdiff_t shift, recurrence, membrane;
    st_work *work, *value_work; /* the latter of a channel mix */
} st_half;

typedef struct {
    const st_kernels *kernels;
    st_pool *pool;
    int position;
    float tau, epsilon;
    ptrdiff_t width, inner, vocabulary, halves;
    st_half *half;
    st_norm first_norm, last_norm;
    /* Rows of tokens: bits (little end first), int8 codes with a scale a row, bfloat16 or
     * float32. */
    const uint8_t *embedding_bits;
    const int8_t *embedding_codes;
    const uint16_t *embedding_halves;
    const float *embedding_scale, *embedding;
    ptrdiff_t embedding_stride;
    st_dense head;
    st_sparse spiked_head;
    float head_scale;
    st_work *head_work;
    int body_format, head_format;
    ptrdiff_t dial; /* its place in a state, in floats; -1 for a dial of 1 */
    /* scratch */
    float *x, *residual, *normed, *mixed[3], *hidden, *branch, *square, *unit;
    int32_t *count;
    int16_t *spikes;
    st_record record;
    int64_t *fired, *inputs, *ones;
    uint8_t *active;
    st_dense_input input[3];
    st_sparse_input events, head_events;
} st_rwkv;

/* What a pass works on. state[i] belongs to token i, or state[0] to all of a scan. */
typedef struct {
    st_rwkv *network;
    float *const *state;
    ptrdiff_t tokens;
    int scan;
    st_sequence_work *sequence; /* one a state */
} st_pass;

/* Allocates scratch once sizes and formats are set; 0 on success. */
int st_rwkv_prepare(st_rwkv *network);
void st_rwkv_release(st_rwkv *network);

/* Advances `tokens` <= ST_MAX_TOKENS tokens and writes `logits` rows.
 * scan = 0: token i belongs to state[i]. scan = 1: the tokens are consecutive in state[0].
 * want: 0 no logits, 1 those after the last token alone (into row 0), 2 all. */
void st_rwkv_run(st_rwkv *network, float *const *state, const int64_t *token, ptrdiff_t tokens,
                 int scan, int want, float *logits, st_sequence_work *sequence);

/* One half over all tokens of a pass: network->residual and count hold the residual. */
void st_half_run(const st_pass *pass, st_half *half);

/* Bytes of the weights of one product as the network reads them. */
int64_t st_dense_bytes(const st_dense *m);
int64_t st_sparse_row_bytes(const st_sparse *m);
/* Counts a product of all tokens of a pass: a dense one, or after its run one of `events`. */
void st_count_dense(const st_pass *pass, st_work *work, const st_dense *m);
void st_count_sparse(const st_pass *pass, st_work *work, const st_sparse *m,
                     const st_sparse_input *events);
/* Counts units of which fired[t] fired at token t. Those before the head are none of a sequence's
 * own: how often it runs depends on how a prompt is cut. */
void st_count_units(const st_pass *pass, st_work *work, ptrdiff_t units, const int64_t *fired);

typedef void (*st_range)(const st_pass *pass, const void *subject, ptrdiff_t first,
                         ptrdiff_t last);
/* function(pass, subject, first, last) over all tokens, or over all channels in steps of 64, shared
 * out among the threads when there is enough to do. */
void st_over_tokens(const st_pass *pass, const void *subject, st_range function);
void st_over_channels(const st_pass *pass, const void *subject, st_range function);

/* Lists network->spikes of `size` elements a token, made from `from` with an adaptive threshold. */
void st_list_counts(const st_pass *pass, const float *from, ptrdiff_t stride, ptrdiff_t size,
                    float scale, st_sparse_input *events, st_work *work);

#endif
