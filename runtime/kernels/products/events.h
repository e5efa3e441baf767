/* Lists of the events of a block of tokens, and their products: of input-major weights only the
 * rows of events are read. Sums of integers are exact; floats have one accumulator per output,
 * inputs in order.
 *
 * A count beyond the range of a kernel becomes several events on the same row, so none is clipped.
 */
#ifndef ST_EVENTS_H
#define ST_EVENTS_H

#include "kernels.h"
#include "pool.h"

/* How the tokens of a block share rows: each in its turn, strip after strip of outputs; sums of the
 * lists in registers; or packed rows with the events as bytes. */
enum { ST_TURNS, ST_SHARED_LISTS, ST_SHARED_BYTES };

typedef struct {
    int format, kind;
    ptrdiff_t tokens, capacity, size;
    st_list *list;
    /* Squares of a block that might share rows, `size` a token: their lists have no more than a
     * count and a unit until a run finds that sharing does not pay. */
    int16_t *code;
    /* Rows that any token reads, ascending: how many (-1 until counted), which, and where each
     * input is among them. */
    ptrdiff_t rows_read;
    int32_t *row, *offset;
    int sharing; /* of the last run */
    st_shared_lists lists;
    st_shared_bytes shared;
    uint8_t *bytes;
    int32_t *byte_sum;
    float *unit;
    int32_t *sums; /* of parts of a list */
} st_events;

/* Room for `tokens` lists about vectors of `size` elements for weights of `format`. `room`: entries
 * of a list; counts need `size` + sum |count| / largest event, others `size`. 0 on success. */
int st_events_init(st_events *events, int format, int kind, ptrdiff_t size, ptrdiff_t room,
                   ptrdiff_t tokens);
void st_events_free(st_events *events);
/* Says how many tokens are to be listed, and how many inputs each has. */
void st_events_begin(st_events *events, ptrdiff_t tokens, ptrdiff_t size);

/* Lists of some tokens; different threads may list different tokens.
 * Graded: the non-zero elements of float32 or, for integer weights, int16 outputs of 0 .. 32767. */
void st_list_graded(st_events *events, const st_kernels *kernels, ptrdiff_t token,
                    const void *output);
void st_list_squares(st_events *events, const st_kernels *kernels, const float *x,
                     ptrdiff_t x_stride, ptrdiff_t first, ptrdiff_t last);
void st_list_counts(st_events *events, const st_kernels *kernels, const int16_t *count,
                    ptrdiff_t count_stride, const float *unit, ptrdiff_t first, ptrdiff_t last);
/* Counts of x with an adaptive threshold of mean |x| / k. */
void st_list_spikes(st_events *events, const st_kernels *kernels, ptrdiff_t token, const float *x,
                    float k, float dead_zone);

/* Rows that any of the tokens reads, which threads mark where there are many events. */
ptrdiff_t st_events_rows_read(st_events *events, st_pool *pool);
/* The tokens first .. last of `events`, for products of their own; the memory stays that of all. */
st_events st_events_of(const st_events *events, ptrdiff_t first, ptrdiff_t last);

/* y[t * y_stride + o] of every token. */
typedef struct {
    const st_rows *matrix;
    st_events *events;
    float *y;
    ptrdiff_t y_stride;
} st_event_product;

/* Products that may run at the same time, at most two, their outputs split over the threads. */
void st_event_products_run(const st_event_product *product, int count, const st_kernels *kernels,
                           st_pool *pool);

#endif
