#include "network.h"

#include <stdlib.h>
#include <string.h>

/* Weight bytes below which a second thread costs more than it saves (docs/performance.md). */
#define ST_SHARE_BYTES 100000
/* Units times lanes below which a neuron update is not shared out. */
#define ST_SHARE_UNITS 512
/* Outputs of one block of a shared product: pieces of rows long enough to stream. */
#define ST_BLOCK_OUTPUTS 8192

#define ST_MIN(a, b) ((a) < (b) ? (a) : (b))

/* Products of event lists with matrices, cut into blocks of outputs. */
typedef struct {
    const st_network *network;
    int count;
    const st_matrix *matrix[2];
    st_events *events[2];
    float *const *out[2];
    ptrdiff_t width[2];
    int blocks[2];
} st_product;

typedef struct {
    const st_network *network;
    const st_layer *layer;
    ptrdiff_t size, lanes, width;
    int parts;
    const float *const *x, *const *y;
    char *const *cell, *const *output;
} st_update;

static ptrdiff_t element_size(const st_network *network)
{
    return st_weight_bytes(network->format);
}

static ptrdiff_t output_size(const st_network *network)
{
    return network->is_int8 ? 2 : 4;
}

static ptrdiff_t layer_size(const st_network *network, ptrdiff_t layer)
{
    return network->layer[layer].recurrent.rows;
}

/* --- products ---------------------------------------------------------------------------- */

static void product_block(void *job, int block)
{
    const st_product *product = job;
    int which = block >= product->blocks[0];
    const st_matrix *m = product->matrix[which];
    ptrdiff_t first = (block - (which ? product->blocks[0] : 0)) * product->width[which];
    ptrdiff_t last = ST_MIN(first + product->width[which], m->cols);
    if (first < last)
        st_events_multiply(product->events[which], product->network->kernels, m, first, last,
                           product->out[which]);
}

static void add_product(st_product *product, const st_matrix *matrix, st_events *events,
                        float *const *out)
{
    int which = product->count++;
    product->matrix[which] = matrix;
    product->events[which] = events;
    product->out[which] = out;
    product->blocks[which] = 0;
}

static void run_product(st_network *network, st_product *product)
{
    ptrdiff_t bytes = 0;
    for (int i = 0; i < product->count; i++)
        bytes += product->events[i]->rows_read * product->matrix[i]->cols * element_size(network);
    ptrdiff_t threads = bytes < ST_SHARE_BYTES ? 1 : st_pool_threads(network->pool);
    product->network = network;
    int blocks = 0;
    for (int i = 0; i < product->count; i++) {
        ptrdiff_t cols = product->matrix[i]->cols;
        ptrdiff_t parts = threads == 1 ? 1 : (cols + ST_BLOCK_OUTPUTS - 1) / ST_BLOCK_OUTPUTS;
        parts = (parts + threads - 1) / threads * threads;
        product->width[i] = ((cols + parts - 1) / parts + 63) / 64 * 64;
        product->blocks[i] = (int)((cols + product->width[i] - 1) / product->width[i]);
        blocks += product->blocks[i];
    }
    if (threads == 1)
        for (int block = 0; block < blocks; block++) product_block(product, block);
    else
        st_pool_run(network->pool, product_block, product, blocks);
}

/* --- neurons ----------------------------------------------------------------------------- */

static void update_block(void *job, int block)
{
    const st_update *update = job;
    const st_network *network = update->network;
    ptrdiff_t lane = block / update->parts, size = update->size;
    ptrdiff_t first = block % update->parts * update->width;
    ptrdiff_t last = ST_MIN(first + update->width, size);
    const float *x = update->x[lane], *y = update->y[lane];
    const float *threshold = update->layer->threshold;
    float *cell = (float *)update->cell[lane];
    if (first >= last) return;
    if (network->is_int8)
        network->kernels->egru_int16(x, y, threshold, network->zoneout, size, first, last, cell,
                                     (int16_t *)update->output[lane]);
    else
        network->kernels->egru_float32(x, y, threshold, network->zoneout, size, first, last, cell,
                                       (float *)update->output[lane]);
}

static void run_update(st_network *network, ptrdiff_t layer, ptrdiff_t lanes,
                       const float *const *x, const float *const *y, char *const *cell,
                       char *const *output)
{
    ptrdiff_t size = layer_size(network, layer);
    int threads = size * lanes < ST_SHARE_UNITS ? 1 : st_pool_threads(network->pool);
    int parts = lanes >= threads ? 1 : threads;
    ptrdiff_t width = ((size + parts - 1) / parts + 63) / 64 * 64;
    st_update update = {network, &network->layer[layer], size, lanes, width, parts,
                        x,       y,                      cell, output};
    int blocks = (int)lanes * parts;
    if (threads == 1)
        for (int block = 0; block < blocks; block++) update_block(&update, block);
    else
        st_pool_run(network->pool, update_block, &update, blocks);
}

/* --- counters ---------------------------------------------------------------------------- */

static void count_product(const st_network *network, st_counters *counters, const st_matrix *m,
                          const st_events *events)
{
    int64_t row_bytes = m->cols * element_size(network), active = 0;
    for (ptrdiff_t lane = 0; lane < events->lanes; lane++) active += events->lane_events[lane];
    counters->silent_rows += m->rows * events->lanes - active;
    counters->bytes_touched += events->rows_read * row_bytes;
    counters->bytes_dense += m->rows * row_bytes * events->lanes;
    counters->macs_dense += (int64_t)m->rows * m->cols * events->lanes;
    counters->macs_effective += active * m->cols;
}

/* A lane's own bytes: what it alone would have touched. */
static void count_lanes(const st_network *network, st_lane_activity *activity, int scan,
                        const st_matrix *m, const st_events *events)
{
    for (ptrdiff_t lane = 0; lane < events->lanes; lane++)
        activity[scan ? 0 : lane].bytes_touched +=
            events->lane_events[lane] * m->cols * element_size(network);
}

static void count_table(const st_network *network, st_lane_activity *activity, int scan,
                        ptrdiff_t lanes)
{
    const st_matrix *m = &network->layer[0].input;
    st_counters *counters = &network->counters[0];
    int64_t row_bytes = m->cols * (int64_t)sizeof(float);
    counters->bytes_touched += row_bytes * lanes;
    counters->bytes_dense += m->rows * m->cols * element_size(network) * lanes;
    counters->macs_dense += (int64_t)m->rows * m->cols * lanes;
    for (ptrdiff_t lane = 0; lane < lanes; lane++)
        activity[scan ? 0 : lane].bytes_touched += row_bytes;
}

static void count_outputs(const st_network *network, st_lane_activity *activity, int scan,
                          ptrdiff_t layer, ptrdiff_t lanes, char *const *output)
{
    ptrdiff_t size = layer_size(network, layer);
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        int64_t events = 0;
        if (network->is_int8)
            for (ptrdiff_t i = 0; i < size; i++) events += ((const int16_t *)output[lane])[i] != 0;
        else
            for (ptrdiff_t i = 0; i < size; i++) events += ((const float *)output[lane])[i] != 0.0f;
        network->counters[layer].events += events;
        network->counters[layer].neurons += size;
        activity[scan ? 0 : lane].events += events;
        activity[scan ? 0 : lane].neurons += size;
    }
}

/* --- first layer's input ------------------------------------------------------------------- */

static void read_embedding(const st_network *network, int64_t token, void *row)
{
    ptrdiff_t size = network->layer[0].input.rows, step = network->element_stride;
    if (network->is_int8) {
        const int8_t *from = (const int8_t *)network->embedding + token * network->token_stride;
        for (ptrdiff_t i = 0; i < size; i++) ((int16_t *)row)[i] = from[i * step];
    } else if (network->format == ST_BFLOAT16) {
        const uint16_t *from = (const uint16_t *)network->embedding + token * network->token_stride;
        for (ptrdiff_t i = 0; i < size; i++) ((float *)row)[i] = st_widen(from[i * step]);
    } else {
        const float *from = (const float *)network->embedding + token * network->token_stride;
        for (ptrdiff_t i = 0; i < size; i++) ((float *)row)[i] = from[i * step];
    }
}

/* x K + b of the tokens in `token` into the rows `out`. */
static void embed(st_network *network, const int64_t *token, ptrdiff_t lanes, float *const *out)
{
    const st_matrix *m = &network->layer[0].input;
    const void *row[ST_MAX_LANES] = {NULL};
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        char *space = (char *)network->embedding_rows + lane * m->rows * output_size(network);
        read_embedding(network, token[lane], space);
        row[lane] = space;
    }
    st_events *events = &network->input_events;
    if (network->is_int8) {
        st_events_dense(events, row, lanes, m->rows);
        for (ptrdiff_t lane = 0; lane < lanes; lane++)
            events->code_scale[lane] = network->embedding_scale[token[lane]];
    } else {
        st_events_list(events, network->kernels, row, lanes, m->rows);
    }
    st_product product = {.count = 0};
    add_product(&product, m, events, out);
    run_product(network, &product);
}

static void fill_table(st_network *network, const int64_t *token, ptrdiff_t lanes)
{
    int64_t missing[ST_MAX_LANES];
    float *out[ST_MAX_LANES];
    ptrdiff_t count = 0;
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        if (network->table_filled[token[lane]]) continue;
        network->table_filled[token[lane]] = 1;
        out[count] = network->table + token[lane] * network->layer[0].input.cols;
        missing[count++] = token[lane];
    }
    if (count) embed(network, missing, count, out);
}

/* Leaves each lane's row in x[lane]: in the table, or computed into `space`. */
static void first_input(st_network *network, const int64_t *token, ptrdiff_t lanes, int scan,
                        float *const *space, const float **x, st_lane_activity *activity)
{
    const st_matrix *m = &network->layer[0].input;
    if (!network->table) {
        embed(network, token, lanes, space);
        count_product(network, &network->counters[0], m, &network->input_events);
        count_lanes(network, activity, scan, m, &network->input_events);
        memcpy(x, space, (size_t)lanes * sizeof *x);
        return;
    }
    fill_table(network, token, lanes);
    for (ptrdiff_t lane = 0; lane < lanes; lane++)
        x[lane] = network->table + token[lane] * m->cols;
    count_table(network, activity, scan, lanes);
}

/* --- layers ------------------------------------------------------------------------------ */

/* Rows of 3H sums by lane: x K + b (in the table or in `space`) and y R + d. */
typedef struct {
    const float *x[ST_MAX_LANES];
    float *space[ST_MAX_LANES], *recurrent[ST_MAX_LANES];
} st_rows;

/* Cells and outputs of one layer in the states. */
static void find_state(const st_network *network, char *const *state, ptrdiff_t states,
                       ptrdiff_t layer, char **cell, char **output)
{
    ptrdiff_t before = 0, units = 0;
    for (ptrdiff_t l = 0; l < network->layers; l++) {
        if (l < layer) before += layer_size(network, l);
        units += layer_size(network, l);
    }
    for (ptrdiff_t i = 0; i < states; i++) {
        cell[i] = state[i] + 4 * before;
        output[i] = state[i] + 4 * units + output_size(network) * before;
    }
}

static void list_outputs(st_network *network, st_events *events, char *const *output,
                         ptrdiff_t lanes, ptrdiff_t size)
{
    st_events_list(events, network->kernels, (const void *const *)output, lanes, size);
}

/* Sequences side by side: every product serves all lanes at once. */
static void step_layer(st_network *network, ptrdiff_t layer, ptrdiff_t lanes, char **previous,
                       char **cell, char **output, const st_rows *rows,
                       st_lane_activity *activity)
{
    const st_layer *l = &network->layer[layer];
    st_counters *counters = &network->counters[layer];
    st_product product = {.count = 0};
    if (layer > 0) {
        list_outputs(network, &network->input_events, previous, lanes, l->input.rows);
        add_product(&product, &l->input, &network->input_events, rows->space);
        count_product(network, counters, &l->input, &network->input_events);
        count_lanes(network, activity, 0, &l->input, &network->input_events);
    }
    list_outputs(network, &network->recurrent_events, output, lanes, l->recurrent.rows);
    add_product(&product, &l->recurrent, &network->recurrent_events, rows->recurrent);
    count_product(network, counters, &l->recurrent, &network->recurrent_events);
    count_lanes(network, activity, 0, &l->recurrent, &network->recurrent_events);
    run_product(network, &product);
    run_update(network, layer, lanes, rows->x, (const float *const *)rows->recurrent, cell, output);
    count_outputs(network, activity, 0, layer, lanes, output);
}

/* Tokens of one sequence: the input product serves all, the recurrence goes token by token. */
static void scan_layer(st_network *network, ptrdiff_t layer, ptrdiff_t lanes, char **previous,
                       char *cell, char *state_output, char **output, const st_rows *rows,
                       st_lane_activity *activity)
{
    const st_layer *l = &network->layer[layer];
    st_counters *counters = &network->counters[layer];
    ptrdiff_t size = l->recurrent.rows;
    st_product input = {.count = 0};
    if (layer > 0) {
        list_outputs(network, &network->input_events, previous, lanes, l->input.rows);
        add_product(&input, &l->input, &network->input_events, rows->space);
        count_product(network, counters, &l->input, &network->input_events);
        count_lanes(network, activity, 1, &l->input, &network->input_events);
        run_product(network, &input);
    }
    for (ptrdiff_t t = 0; t < lanes; t++) {
        st_product product = {.count = 0};
        list_outputs(network, &network->recurrent_events, &state_output, 1, size);
        add_product(&product, &l->recurrent, &network->recurrent_events, rows->recurrent);
        count_product(network, counters, &l->recurrent, &network->recurrent_events);
        count_lanes(network, activity, 1, &l->recurrent, &network->recurrent_events);
        run_product(network, &product);
        run_update(network, layer, 1, rows->x + t, (const float *const *)rows->recurrent, &cell,
                   &state_output);
        memcpy(output[t], state_output, (size_t)(size * output_size(network)));
    }
    count_outputs(network, activity, 1, layer, lanes, output);
}

/* --- after the last layer ------------------------------------------------------------------ */

/* The dense output of the projection, quantised per lane for int8 weights, as the head's input. */
static void project(st_network *network, ptrdiff_t lanes, int scan, st_lane_activity *activity)
{
    const st_matrix *m = &network->projection;
    st_events *events = &network->input_events;
    st_counters *counters = &network->counters[network->layers];
    float *out[ST_MAX_LANES];
    const void *vector[ST_MAX_LANES];
    float scale[ST_MAX_LANES] = {0};
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        out[lane] = network->features + lane * m->cols;
        vector[lane] = out[lane];
    }
    st_product product = {.count = 0};
    add_product(&product, m, events, out);
    count_product(network, counters, m, events);
    count_lanes(network, activity, scan, m, events);
    run_product(network, &product);
    if (!network->is_int8) {
        st_events_list(events, network->kernels, vector, lanes, m->cols);
        return;
    }
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        int16_t *codes = network->codes + lane * m->cols;
        scale[lane] = network->kernels->quantise(out[lane], m->cols, codes);
        vector[lane] = codes;
    }
    st_events_dense(events, vector, lanes, m->cols);
    memcpy(events->code_scale, scale, (size_t)lanes * sizeof *scale);
}

static void run_head(st_network *network, char **output, ptrdiff_t lanes, int scan, float *logits,
                     st_lane_activity *activity)
{
    const st_matrix *m = &network->head;
    st_events *events = &network->input_events;
    float *out[ST_MAX_LANES];
    for (ptrdiff_t lane = 0; lane < lanes; lane++) out[lane] = logits + lane * m->cols;
    list_outputs(network, events, output, lanes, layer_size(network, network->layers - 1));
    if (network->has_projection) project(network, lanes, scan, activity);
    st_product product = {.count = 0};
    add_product(&product, m, events, out);
    count_product(network, &network->counters[network->layers + 1], m, events);
    count_lanes(network, activity, scan, m, events);
    run_product(network, &product);
}

void st_network_run(st_network *network, char *const *state, const int64_t *token, ptrdiff_t lanes,
                    int scan, int want, float *logits, st_lane_activity *activity)
{
    st_rows rows;
    char *cell[ST_MAX_LANES], *output[ST_MAX_LANES], *previous[ST_MAX_LANES];
    char *state_output[ST_MAX_LANES];
    for (ptrdiff_t lane = 0; lane < lanes; lane++) {
        rows.space[lane] = network->x + lane * 3 * network->widest;
        rows.recurrent[lane] = network->recurrent_sum + lane * 3 * network->widest;
        /* Two sets of rows in turn: a scan reads the layer before while it writes its own. */
        previous[lane] = (char *)network->output + lane * 4 * network->widest;
        output[lane] = previous[lane] + ST_MAX_LANES * 4 * network->widest;
    }
    first_input(network, token, lanes, scan, rows.space, rows.x, activity);
    for (ptrdiff_t layer = 0; layer < network->layers; layer++) {
        find_state(network, state, scan ? 1 : lanes, layer, cell, state_output);
        if (layer > 0) memcpy(rows.x, rows.space, sizeof rows.x);
        if (scan) {
            scan_layer(network, layer, lanes, previous, cell[0], state_output[0], output,
                       &rows, activity);
            for (ptrdiff_t lane = 0; lane < lanes; lane++) {
                char *swap = previous[lane];
                previous[lane] = output[lane];
                output[lane] = swap;
            }
        } else {
            step_layer(network, layer, lanes, previous, cell, state_output, &rows, activity);
            memcpy(previous, state_output, (size_t)lanes * sizeof *previous);
        }
    }
    if (want == 2) run_head(network, previous, lanes, scan, logits, activity);
    if (want == 1) run_head(network, previous + lanes - 1, 1, scan, logits, activity);
}

/* --- memory ------------------------------------------------------------------------------ */

static void *scratch(ptrdiff_t bytes)
{
    void *space = NULL;
    return posix_memalign(&space, 64, (size_t)bytes + 64) ? NULL : space;
}

int st_network_prepare(st_network *network)
{
    ptrdiff_t widest = network->layer[0].input.rows;
    for (ptrdiff_t l = 0; l < network->layers; l++)
        if (layer_size(network, l) > widest) widest = layer_size(network, l);
    if (network->has_projection && network->projection.cols > widest)
        widest = network->projection.cols;
    network->widest = widest;
    network->x = scratch(ST_MAX_LANES * 3 * widest * 4);
    network->recurrent_sum = scratch(ST_MAX_LANES * 3 * widest * 4);
    network->features = scratch(ST_MAX_LANES * widest * 4);
    network->output = scratch(2 * ST_MAX_LANES * widest * 4);
    network->embedding_rows = scratch(ST_MAX_LANES * widest * 4);
    network->codes = scratch(ST_MAX_LANES * widest * 2);
    int failed = st_events_init(&network->input_events, network->is_int8, widest, ST_MAX_LANES);
    failed |= st_events_init(&network->recurrent_events, network->is_int8, widest, ST_MAX_LANES);
    if (failed || !network->x || !network->recurrent_sum || !network->features ||
        !network->output || !network->embedding_rows || !network->codes)
        return -1;
    return 0;
}

void st_network_release(st_network *network)
{
    free(network->x);
    free(network->recurrent_sum);
    free(network->features);
    free(network->output);
    free(network->embedding_rows);
    free(network->codes);
    st_events_free(&network->input_events);
    st_events_free(&network->recurrent_events);
}
