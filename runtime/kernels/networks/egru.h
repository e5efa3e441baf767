/* An EGRU network: layers of gated units that fire, a projection or none, a head. */
#ifndef ST_EGRU_H
#define ST_EGRU_H

#include "core.h"

/* Most sequences or tokens of one pass over the weights. */
#define ST_EGRU_TOKENS ST_MAX_LANES

typedef struct {
    st_rows input, recurrent;
    const float *threshold;
    ptrdiff_t cell, output; /* bytes from the start of a state: all cells, then all outputs */
    st_counters *counters;
} st_egru_layer;

typedef struct {
    st_core core;
    int format;  /* of all weights */
    int is_int8; /* outputs are int16; float32 otherwise */
    float zoneout;
    ptrdiff_t layers;
    st_egru_layer *layer;
    int has_projection;
    st_rows projection, head;
    st_counters *projection_counters;
    /* First layer's input product by token, filled when a token is first seen; NULL: none. */
    float *table;
    uint8_t *table_filled;
    /* scratch; rows of sums are 3 * widest floats, rows of outputs `widest` floats, apart */
    ptrdiff_t widest;
    float *input_sum, *recurrent_sum, *features;
    char *outputs[2];
    int16_t *codes;
    st_events input_events, recurrent_events; /* graded */
    st_events code_events; /* counts: the codes of an embedding or of a projection's output */
} st_egru;

static inline st_egru *st_egru_of(const st_pass *pass)
{
    return (st_egru *)pass->core;
}

/* A token's sums of the input product. */
static inline float *st_input_row(const st_egru *network, ptrdiff_t token)
{
    return network->input_sum + token * 3 * network->widest;
}

/* Allocates scratch once matrices and sizes are set; 0 on success. */
int st_egru_prepare(st_egru *network);
void st_egru_free(st_egru *network);
/* Advances at most ST_EGRU_TOKENS tokens and writes rows of `logits`. */
void st_egru_run(const st_pass *pass, const int64_t *token, int want, float *logits);

/* The first layer's input product: each token's row stays in the table, or in network->input_sum.
 */
void st_egru_input(const st_pass *pass, const int64_t *token, const float **x);
/* Products with network->codes, of m->rows a token in [-127, 127]. They count as read as a whole:
 * zeros are skipped, but are none of the network's events. */
void st_multiply_codes(const st_pass *pass, const st_rows *m, const float *scale, float *y,
                       ptrdiff_t y_stride);
void st_count_codes(const st_pass *pass, const st_rows *m, st_counters *counters);

#endif
