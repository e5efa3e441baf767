/* Event lists of up to ST_MAX_LANES input vectors, ready for any matrix that reads them. */
#ifndef ST_EVENTS_H
#define ST_EVENTS_H

#include "kernels.h"

/* The non-zero elements of one vector. */
typedef struct {
    int32_t *index;
    void *value; /* float, or int16_t for int8 weights */
    ptrdiff_t count;
    uint32_t *low, *high; /* of int16 values, bytes by fours; see st_fours */
} st_list;

typedef struct {
    int is_int8, is_dense;
    ptrdiff_t lanes, capacity;
    st_list list[ST_MAX_LANES]; /* events, unless dense */
    st_codes codes;             /* signed codes with their lanes' scales, if dense */
    float code_scale[ST_MAX_LANES];
    uint8_t *active; /* scratch: rows with an event in any lane */
    int32_t *row;    /* those rows */
    /* Lanes that share rows in registers, and which they are; others take turns on strips. */
    st_shared_lists shared;
    ptrdiff_t sharing[ST_MAX_LANES], turns[ST_MAX_LANES], turn_lanes;
    /* counts: rows that each lane reads; rows read by one pass over all lanes */
    ptrdiff_t lane_events[ST_MAX_LANES];
    ptrdiff_t rows_read;
} st_events;

/* Memory for `lanes` inputs of up to `size` elements; 0 on success. */
int st_events_init(st_events *events, int is_int8, ptrdiff_t size, ptrdiff_t lanes);
void st_events_free(st_events *events);
/* Lists the non-zero elements of float32 vectors (of matrices of floats), or of int16 vectors with elements 0 .. 32767. */
void st_events_list(st_events *events, const st_kernels *kernels, const void *const *vector,
                    ptrdiff_t lanes, ptrdiff_t size);
/* Takes codes in [-127, 127], held as int16, for a dense product; set code_scale after it. */
void st_events_dense(st_events *events, const void *const *codes, ptrdiff_t lanes, ptrdiff_t size);
/* out[lane][first .. last) of the product with `m`. A row comes from memory once for all lanes. */
void st_events_multiply(const st_events *events, const st_kernels *kernels, const st_matrix *m,
                        ptrdiff_t first, ptrdiff_t last, float *const *out);

#endif
