#include "dense.h"

#include <stdlib.h>
#include <string.h>

/* Weight bytes times tokens below which a second thread costs more than it saves. */
#define ST_SHARE_BYTES 100000
/* Blocks into which each thread's part of the products is cut: one that wakes late loses little. */
#define ST_BLOCKS_A_THREAD 2

#define ST_MIN(a, b) ((a) < (b) ? (a) : (b))

/* --- packing ------------------------------------------------------------------------------ */

static ptrdiff_t divide_up(ptrdiff_t a, ptrdiff_t b)
{
    return (a + b - 1) / b;
}

ptrdiff_t st_panels(ptrdiff_t outputs)
{
    return divide_up(outputs, ST_PANEL);
}

ptrdiff_t st_panel_bytes(int format, ptrdiff_t inputs, ptrdiff_t group)
{
    if (format == ST_FLOAT32) return inputs * ST_PANEL * 4;
    if (format == ST_BFLOAT16) return inputs * ST_PANEL * 2;
    if (format == ST_INT8) return divide_up(inputs, 4) * 4 * ST_PANEL;
    return divide_up(inputs, group) * (group / 2 + 2) * ST_PANEL;
}

void st_pack_float32(const st_dense *m, const float *weight, ptrdiff_t stride, uint8_t *panel)
{
    for (ptrdiff_t p = 0; p < st_panels(m->outputs); p++) {
        float *to = (float *)(panel + p * m->panel_stride);
        ptrdiff_t count = ST_MIN(ST_PANEL, m->outputs - p * ST_PANEL);
        memset(to, 0, (size_t)st_panel_bytes(ST_FLOAT32, m->inputs, 0));
        for (ptrdiff_t i = 0; i < m->inputs; i++)
            memcpy(to + i * ST_PANEL, weight + i * stride + p * ST_PANEL, (size_t)count * 4);
    }
}

void st_pack_bfloat16(const st_dense *m, const uint16_t *weight, ptrdiff_t stride, uint8_t *panel)
{
    for (ptrdiff_t p = 0; p < st_panels(m->outputs); p++) {
        uint16_t *to = (uint16_t *)(panel + p * m->panel_stride);
        ptrdiff_t count = ST_MIN(ST_PANEL, m->outputs - p * ST_PANEL);
        memset(to, 0, (size_t)st_panel_bytes(ST_BFLOAT16, m->inputs, 0));
        for (ptrdiff_t i = 0; i < m->inputs; i++)
            memcpy(to + i * ST_PANEL, weight + i * stride + p * ST_PANEL, (size_t)count * 2);
    }
}

void st_pack_int8(const st_dense *m, const int8_t *weight, ptrdiff_t stride, uint8_t *panel)
{
    for (ptrdiff_t p = 0; p < st_panels(m->outputs); p++) {
        uint8_t *to = panel + p * m->panel_stride;
        ptrdiff_t count = ST_MIN(ST_PANEL, m->outputs - p * ST_PANEL);
        memset(to, 128, (size_t)st_panel_bytes(ST_INT8, m->inputs, 0));
        for (ptrdiff_t i = 0; i < m->inputs; i++) {
            const int8_t *from = weight + i * stride + p * ST_PANEL;
            uint8_t *quad = to + i / 4 * 4 * ST_PANEL + i % 4;
            for (ptrdiff_t j = 0; j < count; j++) quad[4 * j] = (uint8_t)(from[j] + 128);
        }
    }
}

/* The upper half of a float32 that has nothing in the lower one. */
static uint16_t to_bfloat16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

void st_pack_int4(const st_dense *m, const uint8_t *weight, ptrdiff_t stride, const float *scale,
                  uint8_t *panel)
{
    ptrdiff_t group_bytes = (m->group / 2 + 2) * ST_PANEL;
    for (ptrdiff_t p = 0; p < st_panels(m->outputs); p++) {
        ptrdiff_t first = p * ST_PANEL, count = ST_MIN(ST_PANEL, m->outputs - first);
        memset(panel + p * m->panel_stride, 0x88,
               (size_t)st_panel_bytes(ST_INT4, m->inputs, m->group));
        for (ptrdiff_t g = 0; g * m->group < m->inputs; g++) {
            uint16_t *to = (uint16_t *)(panel + p * m->panel_stride + g * group_bytes);
            memset(to, 0, ST_PANEL * sizeof *to);
            for (ptrdiff_t j = 0; j < count; j++)
                to[j] = to_bfloat16(scale[g * m->outputs + first + j]);
        }
        for (ptrdiff_t i = 0; i < m->inputs; i++) {
            uint8_t *codes = panel + p * m->panel_stride + i / m->group * group_bytes;
            uint8_t *eight = codes + 2 * ST_PANEL + i % m->group / 8 * 4 * ST_PANEL + i % 4;
            for (ptrdiff_t j = 0; j < count; j++) {
                ptrdiff_t o = first + j;
                uint8_t code = weight[i * stride + o / 2] >> (o % 2 * 4) & 15;
                uint8_t *byte = eight + 4 * j;
                *byte = i % 8 < 4 ? (*byte & 0xf0) | code : (*byte & 0x0f) | (uint8_t)(code << 4);
            }
        }
    }
}

/* --- inputs ------------------------------------------------------------------------------- */

static void *aligned(size_t bytes)
{
    void *space = NULL;
    return posix_memalign(&space, 64, bytes + 64) ? NULL : space;
}

int st_dense_input_init(st_dense_input *input, ptrdiff_t inputs, ptrdiff_t tokens)
{
    memset(input, 0, sizeof *input);
    size_t stride = (size_t)divide_up(inputs, 64) * 64, rows = (size_t)tokens;
    input->capacity = tokens;
    input->codes = aligned(rows * stride);
    input->scale = aligned(rows * sizeof *input->scale);
    input->sum = aligned(rows * (stride / ST_GROUP) * sizeof *input->sum);
    input->total = aligned(rows * sizeof *input->total);
    if (input->codes && input->scale && input->sum && input->total) return 0;
    st_dense_input_free(input);
    return -1;
}

void st_dense_input_free(st_dense_input *input)
{
    free(input->codes);
    free(input->scale);
    free(input->sum);
    free(input->total);
    memset(input, 0, sizeof *input);
}

void st_dense_input_set(st_dense_input *input, const float *x, ptrdiff_t x_stride,
                        ptrdiff_t tokens, ptrdiff_t inputs)
{
    input->x = x;
    input->x_stride = x_stride;
    input->tokens = tokens;
    input->inputs = inputs;
    input->stride = divide_up(inputs, 64) * 64;
}

void st_dense_quantise(st_dense_input *input, const st_kernels *kernels, ptrdiff_t first,
                       ptrdiff_t last)
{
    for (ptrdiff_t t = first; t < last; t++) {
        int8_t *codes = input->codes + t * input->stride;
        memset(codes + input->inputs, 0, (size_t)(input->stride - input->inputs));
        int32_t *sum = input->sum + t * input->stride / ST_GROUP, total = 0;
        input->scale[t] = kernels->quantise_row(input->x + t * input->x_stride, input->inputs,
                                                codes, sum);
        for (ptrdiff_t g = 0; g < input->stride / ST_GROUP; g++) total += sum[g];
        input->total[t] = total;
    }
}

/* --- products ----------------------------------------------------------------------------- */

void st_dense_multiply(const st_dense *m, const st_dense_input *input, const st_kernels *kernels,
                       ptrdiff_t first, ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    if (m->format == ST_FLOAT32)
        kernels->multiply_float32(m, input, first, last, y, y_stride);
    else if (m->format == ST_BFLOAT16)
        kernels->multiply_bfloat16(m, input, first, last, y, y_stride);
    else if (m->format == ST_INT8)
        kernels->multiply_int8(m, input, first, last, y, y_stride);
    else
        kernels->multiply_int4(m, input, first, last, y, y_stride);
}

/* All panels of the products in a row, cut into blocks of about equal bytes. */
typedef struct {
    const st_dense_product *product;
    const st_kernels *kernels;
    int count, blocks;
    ptrdiff_t bytes;
} st_dense_job;

/* Also a panel without inputs has outputs to write. */
static ptrdiff_t matrix_bytes(const st_dense *m)
{
    return st_panels(m->outputs) * (64 + st_panel_bytes(m->format, m->inputs, m->group));
}

/* The panel of `m` in which byte `at` of its bytes lies, rounded down and kept in range. */
static ptrdiff_t panel_at(const st_dense *m, ptrdiff_t at)
{
    ptrdiff_t panels = st_panels(m->outputs), bytes = matrix_bytes(m);
    if (at <= 0) return 0;
    return at >= bytes ? panels : at / (bytes / panels);
}

static void dense_block(void *argument, int block)
{
    const st_dense_job *job = argument;
    ptrdiff_t begin = job->bytes * block / job->blocks;
    ptrdiff_t end = job->bytes * (block + 1) / job->blocks;
    for (int i = 0; i < job->count; i++) {
        const st_dense_product *product = &job->product[i];
        const st_dense *m = product->matrix;
        ptrdiff_t first = panel_at(m, begin) * ST_PANEL, last = panel_at(m, end) * ST_PANEL;
        begin -= matrix_bytes(m);
        end -= matrix_bytes(m);
        last = ST_MIN(last, m->outputs);
        if (first < last)
            st_dense_multiply(m, product->input, job->kernels, first, last, product->y,
                              product->y_stride);
    }
}

void st_dense_run(const st_dense_product *product, int count, const st_kernels *kernels,
                  st_pool *pool)
{
    st_dense_job job = {product, kernels, count, 1, 0};
    ptrdiff_t work = 0;
    for (int i = 0; i < count; i++) {
        job.bytes += matrix_bytes(product[i].matrix);
        work += matrix_bytes(product[i].matrix) * product[i].input->tokens;
    }
    int threads = work < ST_SHARE_BYTES ? 1 : st_pool_threads(pool);
    job.blocks = threads == 1 ? 1 : threads * ST_BLOCKS_A_THREAD;
    st_pool_run(pool, dense_block, &job, job.blocks);
}
