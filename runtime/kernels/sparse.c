#include "sparse.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of weights that the tokens of a block pass over in turn, as in events.c. */
#define ST_STRIP_BYTES (768 << 10)
#define ST_LEAST_STRIP 256
/* Weight bytes below which a second thread costs more than it saves. */
#define ST_SHARE_BYTES 100000
/* Blocks of outputs that a thread takes of a product that shares rows. */
#define ST_BLOCKS_A_THREAD 2

/* Most parts of a list that threads sum, the fewest events of one, most outputs that are summed so:
 * longer rows are cut instead. */
#define ST_PARTS 8
#define ST_PARTS_A_THREAD 2
#define ST_PART_EVENTS 64
#define ST_GROUP_EVENTS 16 /* that kernels add at a time */
#define ST_PART_OUTPUTS 8192

#define ST_MIN(a, b) ((a) < (b) ? (a) : (b))
#define ST_MAX(a, b) ((a) > (b) ? (a) : (b))

/* --- lists -------------------------------------------------------------------------------- */

int32_t st_sparse_most(int format, int kind)
{
    if (kind == ST_COUNTS) return format == ST_INT4 ? 8 : 127;
    return format == ST_INT4 ? 4095 : 32767;
}

int st_sparse_input_init(st_sparse_input *input, int format, int kind, ptrdiff_t size,
                         ptrdiff_t room, ptrdiff_t tokens)
{
    memset(input, 0, sizeof *input);
    input->format = format;
    input->kind = kind;
    input->size = size;
    input->room = room;
    input->list = calloc((size_t)tokens + 1, sizeof *input->list);
    if (!input->list) return -1;
    input->capacity = tokens;
    int integer = !st_is_float(format), codes = integer && kind == ST_SQUARES;
    if (codes) input->code = malloc(((size_t)(tokens * size) + 1) * sizeof *input->code);
    void *sums = NULL;
    int failed = posix_memalign(&sums, 64, ST_PARTS * ST_PART_OUTPUTS * sizeof *input->sums);
    input->sums = failed ? NULL : sums;
    if (failed || (codes && !input->code) ||
        (integer && st_sharing_init(&input->sharing, kind, size, tokens))) {
        st_sparse_input_free(input);
        return -1;
    }
    for (ptrdiff_t t = 0; t < tokens; t++) {
        st_sparse_list *list = &input->list[t];
        /* Sixteen entries more: lists are filled vector by vector. */
        list->index = malloc(((size_t)room + 16) * sizeof *list->index);
        list->value = malloc(((size_t)room + 16) * sizeof(float));
        if (list->index && list->value) continue;
        st_sparse_input_free(input);
        return -1;
    }
    return 0;
}

void st_sparse_input_free(st_sparse_input *input)
{
    for (ptrdiff_t t = 0; t < input->capacity; t++) {
        free(input->list[t].index);
        free(input->list[t].value);
    }
    free(input->list);
    free(input->code);
    free(input->sums);
    st_sharing_free(&input->sharing);
    memset(input, 0, sizeof *input);
}

/* Whether a block has codes in place of lists. */
static int has_codes(const st_sparse_input *input, const st_kernels *kernels)
{
    return input->code && st_sharing_possible(input->tokens, kernels);
}

void st_sparse_squares(st_sparse_input *input, const st_kernels *kernels, const float *x,
                       ptrdiff_t x_stride, ptrdiff_t first, ptrdiff_t last)
{
    int32_t most = st_sparse_most(input->format, input->kind);
    int codes = has_codes(input, kernels);
    for (ptrdiff_t t = first; t < last; t++) {
        st_sparse_list *list = &input->list[t];
        const float *from = x + t * x_stride;
        list->unit = 1.0f;
        if (codes)
            list->count = kernels->square_codes(from, input->size, most,
                                                input->code + t * input->size, &list->unit);
        else if (st_is_float(input->format))
            list->count = kernels->list_squares_float32(from, input->size, list->index,
                                                        list->value);
        else
            list->count = kernels->list_squares(from, input->size, most, list->index, list->value,
                                                &list->unit);
    }
}

/* Weights that are floats take the real values of the counts, each one event. */
static ptrdiff_t list_products(const int16_t *count, ptrdiff_t n, float unit, int32_t *index,
                               float *value)
{
    ptrdiff_t found = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        if (!count[i]) continue;
        index[found] = (int32_t)i;
        value[found++] = (float)count[i] * unit;
    }
    return found;
}

void st_sparse_counts(st_sparse_input *input, const st_kernels *kernels, const int16_t *count,
                      ptrdiff_t count_stride, const float *unit, ptrdiff_t first, ptrdiff_t last)
{
    int32_t most = st_sparse_most(input->format, input->kind);
    for (ptrdiff_t t = first; t < last; t++) {
        st_sparse_list *list = &input->list[t];
        const int16_t *from = count + t * count_stride;
        list->unit = unit[t];
        if (st_is_float(input->format))
            list->count = list_products(from, input->size, unit[t], list->index, list->value);
        else
            list->count = kernels->list_counts(from, input->size, most, list->index, list->value);
    }
}

/* --- products ----------------------------------------------------------------------------- */

static void multiply_list(const st_sparse *m, const st_sparse_input *input,
                          const st_sparse_list *list, const st_kernels *kernels, ptrdiff_t first,
                          ptrdiff_t last, float *y)
{
    if (st_is_float(m->format)) {
        (m->format == ST_FLOAT32 ? kernels->sparse_float32 : kernels->sparse_bfloat16)(
            m, list->index, list->value, list->count, first, last, y);
        return;
    }
    if (m->format == ST_INT8_GROUPS) {
        kernels->counts_int8_groups(m, list->index, list->value, list->count, list->unit, first,
                                    last, y);
        return;
    }
    int is_int8 = m->format == ST_INT8, counts = input->kind == ST_COUNTS;
    (is_int8 ? counts ? kernels->counts_int8 : kernels->sparse_int8
             : counts ? kernels->counts_int4 : kernels->sparse_int4)(
        m, list->index, list->value, list->count, list->unit, first, last, y);
}

/* Bytes of a row's outputs: halves for int4. */
static ptrdiff_t half_bytes(const st_sparse *m, ptrdiff_t outputs)
{
    return outputs * (m->format == ST_INT4 ? 1 : 2 * st_weight_bytes(m->format));
}

/* Outputs of which the rows that any token may read fit the caches. */
static ptrdiff_t strip_outputs(const st_sparse *m, const st_sparse_input *input)
{
    if (input->tokens <= 1 || m->rows == 0) return m->cols;
    ptrdiff_t outputs = ST_STRIP_BYTES * 2 / m->rows / half_bytes(m, 1) / ST_SPAN * ST_SPAN;
    return ST_MAX(outputs, ST_LEAST_STRIP);
}

void st_sparse_multiply(const st_sparse *m, const st_sparse_input *input,
                        const st_kernels *kernels, ptrdiff_t first, ptrdiff_t last, float *y,
                        ptrdiff_t y_stride)
{
    ptrdiff_t strip = strip_outputs(m, input);
    for (ptrdiff_t at = first; at < last; at += strip)
        for (ptrdiff_t t = 0; t < input->tokens; t++)
            multiply_list(m, input, &input->list[t], kernels, at, ST_MIN(at + strip, last),
                          y + t * y_stride);
}

typedef struct {
    const st_sparse *matrix;
    const st_sparse_input *input;
    const st_kernels *kernels;
    int shares;
    float *y;
    ptrdiff_t y_stride, width;
} st_sparse_job;

static void sparse_block(void *argument, int block)
{
    const st_sparse_job *job = argument;
    ptrdiff_t first = block * job->width, last = ST_MIN(first + job->width, job->matrix->cols);
    if (first >= last) return;
    if (job->shares)
        job->kernels->sparse_shared(job->matrix, &job->input->sharing.shared, first, last, job->y,
                                    job->y_stride);
    else
        st_sparse_multiply(job->matrix, job->input, job->kernels, first, last, job->y,
                           job->y_stride);
}

typedef struct {
    st_sparse_input *input;
    const st_kernels *kernels;
} st_list_job;

static void list_codes(void *argument, int token)
{
    const st_list_job *job = argument;
    const st_sparse_input *input = job->input;
    st_sparse_list *list = &input->list[token];
    job->kernels->list_int16(input->code + token * input->size, input->size, list->index,
                             list->value);
}

/* Whether tokens share rows of `m`: then their bytes are there, else their lists are. */
static int share_or_list(const st_sparse *m, st_sparse_input *input, const st_kernels *kernels,
                         st_pool *pool)
{
    int codes = has_codes(input, kernels);
    if (st_sharing_pays(m, input->kind, input->list, input->tokens, kernels) &&
        !st_sharing_set(&input->sharing, codes ? input->code : NULL, input->list, input->tokens,
                        m->rows, pool))
        return 1;
    st_list_job job = {input, kernels};
    if (codes) st_pool_run(pool, list_codes, &job, (int)input->tokens);
    return 0;
}

/* Parts of the list of a single token, whole rows each: 0 where outputs are better shared out, or
 * the sums may not fit. */
static ptrdiff_t list_parts(const st_sparse *m, const st_sparse_input *input, int threads)
{
    if (input->tokens != 1 || m->cols > ST_PART_OUTPUTS) return 0;
    if (m->format != ST_INT8 && m->format != ST_INT4) return 0;
    const st_sparse_list *list = input->list;
    const int16_t *value = list->value;
    int64_t sum = 0;
    for (ptrdiff_t e = 0; e < list->count; e++) sum += value[e] < 0 ? -value[e] : value[e];
    int small = m->format == ST_INT4 && input->kind == ST_COUNTS;
    if (sum > (small ? ST_SAFE_COUNT_SUM : ST_SAFE_EVENT_SUM)) return 0;
    ptrdiff_t parts = ST_MIN(threads * ST_PARTS_A_THREAD, ST_PARTS);
    parts = ST_MIN(parts, list->count / ST_PART_EVENTS);
    return parts < 2 ? 0 : parts;
}

static void list_part(void *argument, int part)
{
    const st_sparse_job *job = argument;
    const st_sparse_list *list = job->input->list;
    ptrdiff_t first = part * job->width, last = ST_MIN(first + job->width, list->count);
    job->kernels->sum_events(job->matrix, job->input->kind == ST_COUNTS, list->index + first,
                             (const int16_t *)list->value + first, last - first,
                             job->input->sums + part * ST_PART_OUTPUTS);
}

/* Integer sums are exact, so that their parts add up to the same. */
static void run_parts(st_sparse_job *job, ptrdiff_t parts, st_pool *pool)
{
    const st_sparse *m = job->matrix;
    const st_sparse_list *list = job->input->list;
    job->width = ((list->count + parts - 1) / parts + ST_GROUP_EVENTS - 1) / ST_GROUP_EVENTS *
                 ST_GROUP_EVENTS;
    int made = (int)((list->count + job->width - 1) / job->width);
    st_pool_run(pool, list_part, job, made);
    job->kernels->add_parts(job->input->sums, made, ST_PART_OUTPUTS, list->unit, m->scale, m->cols,
                            job->y);
}

void st_sparse_run(const st_sparse *m, st_sparse_input *input, const st_kernels *kernels,
                   float *y, ptrdiff_t y_stride, st_pool *pool)
{
    ptrdiff_t events = 0;
    int shares = input->shares = share_or_list(m, input, kernels, pool);
    for (ptrdiff_t t = 0; t < input->tokens; t++) events += input->list[t].count;
    int alone = half_bytes(m, m->cols) * events / 2 < ST_SHARE_BYTES;
    ptrdiff_t blocks = alone ? 1 : st_pool_threads(pool) * (shares ? ST_BLOCKS_A_THREAD : 1);
    ptrdiff_t step = shares ? ST_PANEL : ST_SPAN;
    ptrdiff_t width = ((m->cols + blocks - 1) / blocks + step - 1) / step * step;
    st_sparse_job job = {m, input, kernels, shares, y, y_stride, width};
    ptrdiff_t parts = blocks == 1 ? 0 : list_parts(m, input, st_pool_threads(pool));
    if (blocks == 1)
        sparse_block(&job, 0);
    else if (parts)
        run_parts(&job, parts, pool);
    else
        st_pool_run(pool, sparse_block, &job, (int)blocks);
}
