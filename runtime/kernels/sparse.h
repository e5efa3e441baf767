/* Event-driven products of a block of tokens: of input-major weights only the rows of events are
 * read. Sums of integers are exact; floats have one accumulator per output, inputs in order.
 *
 * Squares: max(x, 0)^2 of each token in steps of its largest one's share, 32767 steps for int8 and
 * 4095 for int4 weights. Counts: signed integers times a unit of the token; one beyond the range of
 * a kernel becomes several events on the same row, so none is clipped. */
#ifndef ST_SPARSE_H
#define ST_SPARSE_H

#include "kernels.h"
#include "pool.h"
#include "sharing.h"

typedef struct {
    int format, kind;
    int shares; /* whether the tokens shared rows in the last run, so that sharing.shared holds them */
    ptrdiff_t tokens, capacity, size, room;
    st_sparse_list *list;
    /* Squares of a block that might share rows, `size` a token: lists have no more than their count
     * and unit until a run finds that it does not pay. */
    int16_t *code;
    st_sharing sharing;
    int32_t *sums; /* of parts of a list */
} st_sparse_input;

/* Largest value of a kernel's events: of squares, or of counts' absolute values. */
int32_t st_sparse_most(int format, int kind);

/* Room for `tokens` lists about vectors of `size` elements for weights of `format`. `room`: entries
 * of a list; squares need `size`, counts `size` + sum |count| / most. 0 on success. */
int st_sparse_input_init(st_sparse_input *input, int format, int kind, ptrdiff_t size,
                         ptrdiff_t room, ptrdiff_t tokens);
void st_sparse_input_free(st_sparse_input *input);
/* Lists of the tokens first .. last; before it, set input->tokens to how many a product reads.
 * Ranges of tokens may be listed by different threads. */
void st_sparse_squares(st_sparse_input *input, const st_kernels *kernels, const float *x,
                       ptrdiff_t x_stride, ptrdiff_t first, ptrdiff_t last);
void st_sparse_counts(st_sparse_input *input, const st_kernels *kernels, const int16_t *count,
                      ptrdiff_t count_stride, const float *unit, ptrdiff_t first, ptrdiff_t last);

/* Outputs first .. last of every token, y[t * y_stride + o]; `first` is a multiple of ST_SPAN, and
 * so is `last` unless it is the number of outputs. */
void st_sparse_multiply(const st_sparse *m, const st_sparse_input *input,
                        const st_kernels *kernels, ptrdiff_t first, ptrdiff_t last, float *y,
                        ptrdiff_t y_stride);
/* The whole product, its outputs shared out among the threads; tokens share rows where that pays. */
void st_sparse_run(const st_sparse *m, st_sparse_input *input, const st_kernels *kernels,
                   float *y, ptrdiff_t y_stride, st_pool *pool);

#endif
