/* Dense products: packed weights times rows of a block of tokens, Y (T, O) = X (T, I) W (I, O).
 *
 * float32, bfloat16: one accumulator per output over the inputs in order, products rounded before
 * they are added. int8: the exact integer sum of codes, times the row's scale, times the output's
 * scale. int4: exact sums over each group of inputs, each times its scale, added in float32 in
 * ascending order of the groups, then times the row's scale. So neither the number of rows nor the
 * range of outputs nor the build changes a bit.
 *
 * A panel holds ST_PANEL outputs, those beyond the last filled up with zeros:
 * float32, bfloat16: inputs in order, ST_PANEL values each;
 * int8: quads of inputs in order; byte 4 j + k of a quad is the code of input k, output j, + 128;
 * int4: groups in order, each ST_PANEL scales in bfloat16, then for each eight of its inputs
 * ST_PANEL times four bytes: byte 4 j + k holds the codes + 8 of inputs k (low) and 4 + k (high).
 */
#ifndef ST_DENSE_H
#define ST_DENSE_H

#include "kernels.h"
#include "pool.h"

/* Bytes of one panel, a multiple of 64; group: inputs that share a scale, of int4. */
ptrdiff_t st_panel_bytes(int format, ptrdiff_t inputs, ptrdiff_t group);
ptrdiff_t st_panels(ptrdiff_t outputs);

/* Bytes of the weights of one product, the padding of panels aside. */
int64_t st_dense_bytes(const st_dense *m);

/* Fills all panels of `m` at `panel` from input-major weights, `stride` elements between rows.
 * int4: rows of (outputs + 1) / 2 bytes, a code + 8 a nibble, the lower output in the low one;
 * scale: (groups, outputs), representable in bfloat16. Other formats have no scale here. */
void st_pack(const st_dense *m, const void *weight, ptrdiff_t stride, const float *scale,
             uint8_t *panel);

/* Room for up to `tokens` rows of up to `inputs` values; 0 on success. */
int st_dense_input_init(st_dense_input *input, ptrdiff_t inputs, ptrdiff_t tokens);
void st_dense_input_free(st_dense_input *input);
/* Says which rows are read, `x_stride` floats apart; x must stay while float32 products read it. */
void st_dense_input_set(st_dense_input *input, const float *x, ptrdiff_t x_stride, ptrdiff_t tokens,
                        ptrdiff_t inputs);
/* Codes of the rows first .. last, which integer products need: symmetric int8, max|x| / 127, half
 * to even. Ranges of rows may be quantised by different threads. */
void st_dense_quantise(st_dense_input *input, const st_kernels *kernels, ptrdiff_t first,
                       ptrdiff_t last);

/* Outputs first .. last of every row, y[t * y_stride + o]. `first` is a multiple of ST_PANEL, and
 * so is `last` unless it is the number of outputs. */
void st_dense_multiply(const st_dense *m, const st_dense_input *input, const st_kernels *kernels,
                       ptrdiff_t first, ptrdiff_t last, float *y, ptrdiff_t y_stride);

/* Products that may run at the same time, each with its own input, shared out among the threads. */
typedef struct {
    const st_dense *matrix;
    const st_dense_input *input;
    float *y;
    ptrdiff_t y_stride;
} st_dense_product;

void st_dense_run(const st_dense_product *product, int count, const st_kernels *kernels,
                  st_pool *pool);

#endif
