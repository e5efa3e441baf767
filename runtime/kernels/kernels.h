/* The table of kernels that one instruction-set build fills in. Names and shapes of arguments are
 * documented at the Cython wrappers; `first` and `last` bound the outputs that a call computes. */
#ifndef ST_KERNELS_H
#define ST_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Sequences or tokens that share one pass over the rows of a matrix. */
#define ST_MAX_LANES 32

/* Sums of 16-bit events times int8 weights fit int32 while the events add up to no more than this:
 * 16777215 * 128 = 2147483520 < 2^31. Longer lists are summed in parts, the parts in int64. */
#define ST_SAFE_EVENT_SUM 16777215

/* An input-major matrix: row i holds the weights of input i to all outputs.
 * float32: `scale` is NULL. int8: value of a code is code * scale[output]. */
typedef struct {
    const void *weight;
    ptrdiff_t stride; /* elements from one row to the next */
    ptrdiff_t rows, cols;
    const float *scale;
    const float *bias;
} st_matrix;

/* Codes of several lanes as pairs of int16, first row in the low half: pair g of lane l is
 * pair[g * lanes + l] and belongs to rows 2 g and 2 g + 1. */
typedef struct {
    ptrdiff_t lanes, groups;
    int32_t *pair;
} st_codes;

typedef struct {
    const char *name;
    void (*exp)(const float *x, float *out, ptrdiff_t n);
    void (*sigmoid)(const float *x, float *out, ptrdiff_t n);
    void (*tanh)(const float *x, float *out, ptrdiff_t n);
    ptrdiff_t (*list_float32)(const float *y, ptrdiff_t n, int32_t *index, float *value);
    ptrdiff_t (*list_int16)(const int16_t *y, ptrdiff_t n, int32_t *index, int16_t *value);
    void (*gather_float32)(const st_matrix *m, const int32_t *index, const float *value,
                           ptrdiff_t n, ptrdiff_t first, ptrdiff_t last, float *out);
    void (*gather_int8)(const st_matrix *m, const int32_t *index, const int16_t *value,
                        ptrdiff_t n, ptrdiff_t first, ptrdiff_t last, float *out);
    void (*dense_int8)(const st_matrix *m, const st_codes *codes, const float *code_scale,
                       ptrdiff_t first, ptrdiff_t last, float *const *out);
    float (*quantise)(const float *x, ptrdiff_t n, int16_t *codes);
    void (*egru_float32)(const float *x, const float *y, const float *threshold, float zoneout,
                         ptrdiff_t size, ptrdiff_t first, ptrdiff_t last, float *cell,
                         float *output);
    void (*egru_int16)(const float *x, const float *y, const float *threshold, float zoneout,
                       ptrdiff_t size, ptrdiff_t first, ptrdiff_t last, float *cell,
                       int16_t *output);
} st_kernels;

/* The build called `name`, or NULL when this library does not hold it. */
const st_kernels *st_find_kernels(const char *name);
/* Whether this CPU and its operating system can run the build called `name`. */
int st_can_run(const char *name);
/* Names of the builds in this library, best first, NULL at the end. */
extern const char *const st_build_names[];

#endif
