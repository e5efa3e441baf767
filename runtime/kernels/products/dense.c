#include "dense.h"

#include <stdlib.h>
#include <string.h>

/* Weight bytes times tokens below which a second thread costs more than it saves. */
#define ST_SPLIT_BYTES 100000
/* Blocks into which each thread's part of the products is cut: one that wakes late loses little. */
#define ST_BLOCKS_A_THREAD 2

/* --- inputs ------------------------------------------------------------------------------- */

static void *aligned(size_t bytes)
{
    void *space = NULL;
    return posix_memalign(&space, 64, bytes + 64) ? NULL : space;
}

int st_dense_input_init(st_dense_input *input, ptrdiff_t inputs, ptrdiff_t tokens)
{
    memset(input, 0, sizeof *input);
    size_t stride = (size_t)((inputs + 63) / 64 * 64), rows = (size_t)tokens;
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

void st_dense_input_set(st_dense_input *input, const float *x, ptrdiff_t x_stride, ptrdiff_t tokens,
                        ptrdiff_t inputs)
{
    input->x = x;
    input->x_stride = x_stride;
    input->tokens = tokens;
    input->inputs = inputs;
    input->stride = (inputs + 63) / 64 * 64;
}

void st_dense_quantise(st_dense_input *input, const st_kernels *kernels, ptrdiff_t first,
                       ptrdiff_t last)
{
    for (ptrdiff_t t = first; t < last; t++) {
        int8_t *codes = input->codes + t * input->stride;
        memset(codes + input->inputs, 0, (size_t)(input->stride - input->inputs));
        int32_t *sum = input->sum + t * input->stride / ST_GROUP, total = 0;
        input->scale[t] =
            kernels->quantise_row(input->x + t * input->x_stride, input->inputs, codes, sum);
        for (ptrdiff_t g = 0; g < input->stride / ST_GROUP; g++) total += sum[g];
        input->total[t] = total;
    }
}

/* --- products ----------------------------------------------------------------------------- */

typedef void (*st_dense_kernel)(const st_dense *m, const st_dense_input *input, ptrdiff_t first,
                                ptrdiff_t last, float *y, ptrdiff_t y_stride);

void st_dense_multiply(const st_dense *m, const st_dense_input *input, const st_kernels *kernels,
                       ptrdiff_t first, ptrdiff_t last, float *y, ptrdiff_t y_stride)
{
    size_t at = st_formats[m->format].multiply;
    (*(const st_dense_kernel *)((const char *)kernels + at))(m, input, first, last, y, y_stride);
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
    int threads = work < ST_SPLIT_BYTES ? 1 : st_pool_threads(pool);
    job.blocks = threads == 1 ? 1 : threads * ST_BLOCKS_A_THREAD;
    st_pool_run(pool, dense_block, &job, job.blocks);
}
