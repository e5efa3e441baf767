/* The table of kernels that one instruction-set build fills in. Names and shapes of arguments are
 * documented at the Cython wrappers; `first` and `last` bound the outputs that a call computes. */
#ifndef ST_KERNELS_H
#define ST_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Sequences or tokens that share one pass over the rows of a matrix. */
#define ST_MAX_LANES 32

/* Sums of 16-bit events times int8 weights fit int32 while the events add up to no more than this:
 * 16777215 * 128 = 2147483520 < 2^31. Longer lists are summed in parts, the parts in int64. */
#define ST_SAFE_EVENT_SUM 16777215
/* Sums of counts, int4 weights' multipliers and high halves fit 28 bits while the counts' absolute
 * values add up to no more than this: 596523 * 15 * 15 = 134217675 < 2^27. */
#define ST_SAFE_COUNT_SUM 596523

/* Formats of weights. bfloat16: the upper halves of float32 values, whose products are theirs. */
enum { ST_FLOAT32, ST_INT8, ST_INT4, ST_BFLOAT16, ST_INT8_GROUPS };

/* Whether inputs of weights of this format are float32, and their sums too. */
static inline int st_is_float(int format)
{
    return format == ST_FLOAT32 || format == ST_BFLOAT16;
}

/* The float32 that a bfloat16 stands for. */
static inline float st_widen(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Bytes of one weight of float32, bfloat16 or int8. */
static inline ptrdiff_t st_weight_bytes(int format)
{
    return format == ST_FLOAT32 ? 4 : format == ST_BFLOAT16 ? 2 : 1;
}

/* An input-major matrix of float32, bfloat16 or int8: row i holds the weights of input i to all
 * outputs. Floats: `scale` is NULL. int8: value of a code is code * scale[output]. */
typedef struct {
    int format;
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

/* Events of one lane by fours, with zeros at the end: their rows, their low and their high bytes. */
typedef struct {
    ptrdiff_t count;
    const int32_t *index;
    const uint32_t *low, *high;
} st_fours;

/* Lanes whose events add up to no more than the safe sum each, and the rows that any of them reads. */
typedef struct {
    ptrdiff_t lanes, rows;
    const int32_t *row;
    st_fours list[ST_MAX_LANES];
} st_shared_lists;

/* Outputs of one panel of packed weights. */
#define ST_PANEL 64
/* Inputs whose codes' sum is kept beside them; int4 groups are one or two of these. */
#define ST_GROUP 32

/* Weights packed for dense products, panel after panel of ST_PANEL outputs (dense.h). */
typedef struct {
    int format;
    ptrdiff_t inputs, outputs;
    ptrdiff_t group; /* int4: inputs that share a scale, 32 or 64 */
    const uint8_t *panel;
    ptrdiff_t panel_stride; /* bytes from one panel to the next */
    const float *scale;     /* int8: one for each output */
} st_dense;

/* Vectors that dense products read: `tokens` rows of `inputs` float32, and unless the weights are
 * floats their codes in [-127, 127], zero up to `stride`, with a scale for each row and the codes'
 * sum over every ST_GROUP inputs. */
typedef struct {
    ptrdiff_t tokens, capacity, inputs;
    ptrdiff_t stride; /* codes from one row to the next, a multiple of 64 */
    const float *x;
    ptrdiff_t x_stride;
    int8_t *codes;
    float *scale;
    int32_t *sum;   /* (tokens, stride / ST_GROUP) */
    int32_t *total; /* (tokens,): of all of a row's codes */
} st_dense_input;

/* Input-major weights of which only the rows of events are read (sparse.h).
 * int4: two codes + 8 a byte, the lower output in the low nibble; ST_SPAN outputs of a row share a
 * multiplier 1 .. 15. */
/* int8 in groups: `group` inputs share a row of scales; codes beyond int8 have the rest in
 * extra[extra_row[i] .. extra_row[i + 1]) at outputs extra_column, which ascend. */
#define ST_SPAN 128
typedef struct {
    int format;
    ptrdiff_t rows, cols;
    const void *weight;
    ptrdiff_t stride; /* elements from one row to the next; int4: bytes */
    const uint8_t *multiplier;
    ptrdiff_t multiplier_stride;
    const float *scale; /* int8, int4: one for each output; in groups: (groups, outputs) */
    ptrdiff_t group;
    const int32_t *extra_row, *extra_column; /* NULL without corrections */
    const int16_t *extra;
} st_sparse;

/* Events of a block of tokens as bytes, for the rows that any of them reads: `planes` rows of bytes
 * a token, low and high ones of squares, or one of counts. Five rows more may be read. */
typedef struct {
    int planes;
    ptrdiff_t tokens, rows;
    ptrdiff_t stride; /* bytes from one row of bytes to the next, a multiple of 4, zeros at the end */
    const int32_t *row;
    const uint8_t *bytes;
    const int32_t *sum; /* of each token's counts */
    const float *unit;
} st_shared;

/* Keys of one tile of an attention window. */
#define ST_TILE_KEYS 64

typedef struct {
    const char *name;
    void (*exp)(const float *x, float *out, ptrdiff_t n);
    void (*sigmoid)(const float *x, float *out, ptrdiff_t n);
    void (*tanh)(const float *x, float *out, ptrdiff_t n);
    ptrdiff_t (*list_float32)(const float *y, ptrdiff_t n, int32_t *index, float *value);
    ptrdiff_t (*list_int16)(const int16_t *y, ptrdiff_t n, int32_t *index, int16_t *value);
    void (*gather_float32)(const st_matrix *m, const int32_t *index, const float *value,
                           ptrdiff_t n, ptrdiff_t first, ptrdiff_t last, float *out);
    void (*gather_bfloat16)(const st_matrix *m, const int32_t *index, const float *value,
                            ptrdiff_t n, ptrdiff_t first, ptrdiff_t last, float *out);
    void (*gather_int8)(const st_matrix *m, const int32_t *index, const int16_t *value,
                        ptrdiff_t n, ptrdiff_t first, ptrdiff_t last, float *out);
    /* NULL in builds where it would not pay. */
    void (*gather_int8_shared)(const st_matrix *m, const st_shared_lists *lists, ptrdiff_t first,
                               ptrdiff_t last, float *const *out);
    void (*dense_int8)(const st_matrix *m, const st_codes *codes, const float *code_scale,
                       ptrdiff_t first, ptrdiff_t last, float *const *out);
    float (*quantise)(const float *x, ptrdiff_t n, int16_t *codes);
    float (*quantise_row)(const float *x, ptrdiff_t n, int8_t *codes, int32_t *sum);
    void (*multiply_float32)(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                             ptrdiff_t last, float *y, ptrdiff_t y_stride);
    void (*multiply_bfloat16)(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                              ptrdiff_t last, float *y, ptrdiff_t y_stride);
    void (*multiply_int8)(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                          ptrdiff_t last, float *y, ptrdiff_t y_stride);
    void (*multiply_int4)(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                          ptrdiff_t last, float *y, ptrdiff_t y_stride);
    ptrdiff_t (*list_squares_float32)(const float *x, ptrdiff_t n, int32_t *index, float *value);
    ptrdiff_t (*list_squares)(const float *x, ptrdiff_t n, int32_t most, int32_t *index,
                              int16_t *value, float *unit);
    ptrdiff_t (*square_codes)(const float *x, ptrdiff_t n, int32_t most, int16_t *code,
                              float *unit);
    ptrdiff_t (*list_counts)(const int16_t *count, ptrdiff_t n, int32_t most, int32_t *index,
                             int16_t *value);
    void (*sparse_float32)(const st_sparse *m, const int32_t *index, const float *value,
                           ptrdiff_t n, ptrdiff_t first, ptrdiff_t last, float *y);
    void (*sparse_bfloat16)(const st_sparse *m, const int32_t *index, const float *value,
                            ptrdiff_t n, ptrdiff_t first, ptrdiff_t last, float *y);
    void (*sparse_int8)(const st_sparse *m, const int32_t *index, const int16_t *value,
                        ptrdiff_t n, float unit, ptrdiff_t first, ptrdiff_t last, float *y);
    void (*sparse_int4)(const st_sparse *m, const int32_t *index, const int16_t *value,
                        ptrdiff_t n, float unit, ptrdiff_t first, ptrdiff_t last, float *y);
    void (*counts_int8)(const st_sparse *m, const int32_t *index, const int16_t *value,
                        ptrdiff_t n, float unit, ptrdiff_t first, ptrdiff_t last, float *y);
    void (*counts_int8_groups)(const st_sparse *m, const int32_t *index, const int16_t *value,
                               ptrdiff_t n, float unit, ptrdiff_t first, ptrdiff_t last, float *y);
    void (*counts_int4)(const st_sparse *m, const int32_t *index, const int16_t *value,
                        ptrdiff_t n, float unit, ptrdiff_t first, ptrdiff_t last, float *y);
    /* Exact sums of events whose absolute values add up to a safe sum, for all outputs, rounded up
     * to spans; and y = (the sum of `parts` such sums, `stride` apart) * unit * scale. */
    void (*sum_events)(const st_sparse *m, int counts, const int32_t *index, const int16_t *value,
                       ptrdiff_t n, int32_t *sums);
    void (*add_parts)(int32_t *sums, int parts, ptrdiff_t stride, float unit, const float *scale,
                      ptrdiff_t n, float *y);
    /* NULL in builds where it would not pay. */
    void (*sparse_shared)(const st_sparse *m, const st_shared *shared, ptrdiff_t first,
                          ptrdiff_t last, float *y, ptrdiff_t y_stride);
    void (*egru_float32)(const float *x, const float *y, const float *threshold, float zoneout,
                         ptrdiff_t size, ptrdiff_t first, ptrdiff_t last, float *cell,
                         float *output);
    void (*egru_int16)(const float *x, const float *y, const float *threshold, float zoneout,
                       ptrdiff_t size, ptrdiff_t first, ptrdiff_t last, float *cell,
                       int16_t *output);
    void (*layer_norm)(const float *x, const float *weight, const float *bias, float epsilon,
                       ptrdiff_t n, float *out);
    void (*token_shift)(const float *now, const float *before, const float *mix, ptrdiff_t n,
                        float *out);
    void (*wkv)(const float *r, const float *k, const float *v, const float *decay,
                const float *bonus, ptrdiff_t n, float *p, float *q, float *o, float *out);
    ptrdiff_t (*lif)(const float *x, const float *scale, const float *threshold, float tau,
                     ptrdiff_t n, float *membrane, int32_t *count);
    void (*gate)(const float *r, const float *x, ptrdiff_t n, float *out);
    void (*square_relu)(const float *x, ptrdiff_t n, float *out);
    void (*add_counts)(const float *x, const int32_t *count, ptrdiff_t n, float *out);
    void (*add_vector)(const float *x, ptrdiff_t n, float *out);
    float (*count_spikes)(const float *x, float scale, float dial, ptrdiff_t n, int16_t *counts);
    void (*rms_norm)(const float *x, const float *weight, float epsilon, ptrdiff_t n, float *out);
    void (*rotate)(const float *cosine, const float *sine, ptrdiff_t half, float *x);
    void (*silu_product)(const float *gate, const float *up, ptrdiff_t n, float *out);
    void (*decay)(const float *x, float normalizer, ptrdiff_t n, float *out);
    void (*relu)(const float *x, ptrdiff_t n, float *out);
    float (*spike_values)(const float *x, float k, float dead_zone, ptrdiff_t n, float *out);
    ptrdiff_t (*spike_list)(const float *x, float k, float dead_zone, ptrdiff_t n, int32_t most,
                            int32_t *index, int16_t *value, float *threshold, int64_t *fired);
    void (*gla)(const float *decay, const float *k, const float *v, const float *q,
                ptrdiff_t heads, ptrdiff_t size, float *state, float *out);
    void (*window_tile)(const float *keys, const float *values, const float *q, ptrdiff_t heads,
                        ptrdiff_t size, ptrdiff_t first, ptrdiff_t last, float *most,
                        float *total, float *sum);
    void (*widen_bfloat16)(const uint16_t *x, ptrdiff_t n, float *out);
    void (*widen_keys)(const int8_t *codes, const float *scale, ptrdiff_t size, float *out);
    void (*widen_values)(const int8_t *codes, const float *scale, ptrdiff_t size, float *out);
    ptrdiff_t (*first_greatest)(const float *x, ptrdiff_t n);
    void (*group_maxima)(const float *x, ptrdiff_t groups, float *maxima);
    void (*weigh)(const float *x, ptrdiff_t n, double most, double temperature, double *weight);
    double (*sum_weights)(const double *weight, ptrdiff_t n);
    int (*softmax)(const float *x, ptrdiff_t n, float *out);
    double (*nats)(const float *x, ptrdiff_t n, ptrdiff_t at);
} st_kernels;

/* The build called `name`, or NULL when this library does not hold it. */
const st_kernels *st_find_kernels(const char *name);
/* Whether this CPU and its operating system can run the build called `name`. */
int st_can_run(const char *name);
/* Names of the builds in this library, best first, NULL at the end. */
extern const char *const st_build_names[];

#endif
