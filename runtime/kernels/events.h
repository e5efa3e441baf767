/* Event lists of up to ST_MAX_LANES input vectors, ready for any matrix that reads them. */
#ifndef ST_EVENTS_H
#define ST_EVENTS_H

#include "kernels.h"

typedef struct {
    ptrdiff_t lanes, size;
    int is_int8;
    int batched; /* whether `batch` or the single list holds the events */
    /* single list */
    int32_t *index;
    float *value_float;
    int16_t *value_int;
    ptrdiff_t count;
    /* batch; a lane whose sum could overflow int32 is left out of it and marked `wide` */
    st_batch batch;
    const void *vector[ST_MAX_LANES];
    uint8_t wide[ST_MAX_LANES];
    int any_wide;
    float lane_scale[ST_MAX_LANES];
    /* counts: events of each lane; rows read by one pass over all lanes */
    ptrdiff_t lane_events[ST_MAX_LANES];
    ptrdiff_t rows_read;
} st_events;

/* Memory for inputs of up to `size` elements; 0 on success. */
int st_events_init(st_events *events, int is_int8, ptrdiff_t size, ptrdiff_t lanes);
void st_events_free(st_events *events);
/* Lists the non-zero elements of `lanes` vectors (float32, or int16 for int8 weights).
 * `is_signed`: elements may be negative and |element| <= 127; else they are 0 .. 32767. */
void st_events_list(st_events *events, const st_kernels *kernels, const void *const *vector,
                    ptrdiff_t lanes, ptrdiff_t size, int is_signed);
/* out[lane][first .. last) of the product with `m`; lanes marked wide are left wrong. */
void st_events_multiply(const st_events *events, const st_kernels *kernels, const st_matrix *m,
                        ptrdiff_t first, ptrdiff_t last, float *const *out);
/* Puts the wide lanes right, one by one: rare, hence not shared out. */
void st_events_multiply_wide(st_events *events, const st_kernels *kernels, const st_matrix *m,
                             float *const *out);

#endif
