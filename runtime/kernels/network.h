/* An EGRU network: whole tokens for up to ST_MAX_LANES sequences, or a run of tokens of one. */
#ifndef ST_NETWORK_H
#define ST_NETWORK_H

#include "events.h"
#include "kernels.h"
#include "pool.h"

typedef struct {
    st_matrix input, recurrent;
    const float *threshold;
} st_layer;

/* Counters of one layer, of the projection or of the head; see runtime/activity.py. */
typedef struct {
    int64_t neurons, events, silent_rows, bytes_touched, bytes_dense, macs_dense, macs_effective;
} st_counters;

typedef struct {
    const st_kernels *kernels;
    st_pool *pool;
    int format;  /* of all weights */
    int is_int8; /* weights and what reads them; float32 events otherwise */
    float zoneout;
    ptrdiff_t layers;
    st_layer *layer;
    int has_projection;
    st_matrix projection, head;
    /* Row of token v: element i at embedding[v * token_stride + i * element_stride]. */
    const void *embedding;
    ptrdiff_t token_stride, element_stride;
    const float *embedding_scale;
    /* First layer's input product by token, filled when a token is first seen; NULL: none. */
    float *table;
    uint8_t *table_filled;
    st_counters *counters; /* layers, then projection, then head */
    /* scratch */
    ptrdiff_t widest;
    float *x, *recurrent_sum, *features;
    void *output, *embedding_rows;
    int16_t *codes;
    st_events input_events, recurrent_events;
} st_network;

/* What one lane did in a call. */
typedef struct {
    int64_t events, neurons, bytes_touched;
} st_lane_activity;

/* Allocates scratch once matrices and sizes are set; 0 on success. */
int st_network_prepare(st_network *network);
void st_network_release(st_network *network);

/* Advances `lanes` <= ST_MAX_LANES tokens and writes `logits` rows of head.cols.
 * scan = 0: lane i belongs to state[i]. scan = 1: the lanes are consecutive tokens of state[0].
 * want: 0 no logits, 1 those of the last lane alone (into row 0), 2 all.
 * A state is all cells (float), then all outputs (float or int16). activity: one per state. */
void st_network_run(st_network *network, char *const *state, const int64_t *token, ptrdiff_t lanes,
                    int scan, int want, float *logits, st_lane_activity *activity);

#endif
