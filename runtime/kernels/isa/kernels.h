/* The struct of kernels that one instruction-set build fills in, and what they take. `first` and
 * `last` bound the outputs that a call computes. */
#ifndef ST_KERNELS_H
#define ST_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "formats.h"

#define ST_MIN(a, b) ((a) < (b) ? (a) : (b))
#define ST_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Tokens whose lists may share rows with their sums in registers. */
#define ST_MAX_LANES 32

/* Sums of 16-bit events times int8 weights fit int32 while the events add up to no more than this:
 * 16777215 * 128 = 2147483520 < 2^31. Longer lists are summed in parts, the parts in int64. */
#define ST_SAFE_EVENT_SUM 16777215
/* Sums of counts, int4 weights' multipliers and high nibbles fit 28 bits while the counts' absolute
 * values add up to no more than this: 596523 * 15 * 15 = 134217675 < 2^27. */
#define ST_SAFE_COUNT_SUM 596523

/* The float32 that a bfloat16 stands for. */
static inline float st_widen(uint16_t bf16)
{
    uint32_t bits = (uint32_t)bf16 << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Outputs of a row of int4 weights that share a multiplier. */
#define ST_SPAN 128

/* Input-major weights: row i holds the weights of input i to all outputs.
 * int8: the value of a code is code * scale[output].
 * int4: two codes + 8 a byte, the lower output in the low nibble; ST_SPAN outputs of a row share a
 * multiplier 1 .. 15.
 * int8 in groups: `group` inputs share a row of scales; codes beyond int8 have the rest in
 * extra[extra_row[i] .. extra_row[i + 1]) at outputs extra_column, which ascend. */
typedef struct {
    int format;
    ptrdiff_t rows, cols;
    const void *weight;
    ptrdiff_t stride; /* elements from one row to the next; int4: bytes */
    const uint8_t *multiplier;
    ptrdiff_t multiplier_stride;
    const float *scale; /* int8, int4: one for each output; in groups: (groups, outputs) */
    const float *bias;  /* added last, or NULL */
    ptrdiff_t group;
    const int32_t *extra_row, *extra_column; /* NULL without corrections */
    const int16_t *extra;
} st_rows;

/* The events of one token: values are float where the weights are, else int16_t. */
typedef struct {
    int32_t *index;
    void *value;
    ptrdiff_t count;
    float unit;
    int64_t inputs, ones; /* with events; of those, inputs with a count of 1 or -1 */
    uint32_t *low, *high; /* bytes of graded events by fours, with zeros at the end */
    int has_bytes;        /* whether low and high hold this list */
} st_list;

/* Lists whose events add up to no more than the safe sum each, and the rows that any of them reads.
 * List i is of token lane[i]. */
typedef struct {
    ptrdiff_t lanes, rows;
    const int32_t *row;
    const st_list *list[ST_MAX_LANES];
    ptrdiff_t lane[ST_MAX_LANES];
} st_shared_lists;

/* Events of a block of tokens as bytes, for the rows that any of them reads: `planes` rows of bytes
 * a token, low and high ones of squares, or one of counts. Five rows more may be read. */
typedef struct {
    int planes;
    ptrdiff_t tokens, rows;
    ptrdiff_t
        stride; /* bytes from one row of bytes to the next, a multiple of 4, zeros at the end */
    const int32_t *row;
    const uint8_t *bytes;
    const int32_t *sum; /* of each token's counts */
    const float *unit;
} st_shared_bytes;

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

/* Keys of one tile of an attention window. */
#define ST_TILE_KEYS 64

typedef struct {
    const char *name;
#define ST_KERNEL(result, name, arguments) result(*name) arguments;
#include "kernels.def"
#undef ST_KERNEL
} st_kernels;

/* The build called `name`, or NULL when this library does not hold it. */
const st_kernels *st_find_kernels(const char *name);
/* Whether this CPU and its operating system can run the build called `name`. */
int st_can_run(const char *name);
/* Names of the builds in this library, best first, NULL at the end. */
extern const char *const st_build_names[];

#endif
