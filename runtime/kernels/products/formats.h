/* What the products have to know of a weight format: one line a format in formats.c. */
#ifndef ST_FORMATS_H
#define ST_FORMATS_H

#include <stddef.h>
#include <stdint.h>

/* A bfloat16 stands for the float32 whose upper half its bits are; the products are those of that
 * float32. */
enum { ST_FLOAT32, ST_BFLOAT16, ST_INT8, ST_INT8_GROUPS, ST_INT4, ST_FORMATS };

/* What the values of events are. Graded: outputs of neurons. Squares: max(x, 0)^2 of each token in
 * steps of the largest one's share. Counts: signed integers times a unit of the token. */
enum { ST_GRADED, ST_SQUARES, ST_COUNTS, ST_KINDS };

typedef struct {
    const char *name;
    int bits;                       /* of one weight */
    int is_float;                   /* whether inputs and sums are float32 */
    int32_t max_event[ST_KINDS];    /* largest absolute value of one event */
    ptrdiff_t span;                 /* outputs of a row that share a byte of multiplier; 0: none */
    ptrdiff_t panel_inputs;         /* inputs packed together for dense products; 0: a group */
    ptrdiff_t panel_scale;          /* bytes of a scale among packed weights */
    size_t multiply;                /* dense kernel, as an offset in st_kernels; 0: none */
    size_t multiply_rows[ST_KINDS]; /* kernels of events, likewise */
} st_format;

/* By ST_FLOAT32 .. ST_INT4. */
extern const st_format st_formats[ST_FORMATS];

static inline int st_is_float(int format)
{
    return st_formats[format].is_float;
}

/* Bytes of `outputs` weights of one row, its multipliers aside. */
static inline ptrdiff_t st_code_bytes(int format, ptrdiff_t outputs)
{
    return (outputs * st_formats[format].bits + 7) / 8;
}

/* Bytes that an event makes a product read. */
static inline ptrdiff_t st_row_bytes(int format, ptrdiff_t outputs)
{
    ptrdiff_t span = st_formats[format].span;
    return st_code_bytes(format, outputs) + (span ? (outputs + span - 1) / span : 0);
}

#endif
