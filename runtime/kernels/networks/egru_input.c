/* The input product of EGRU's first layer, which depends on the token only; and products with
 * codes, which embeddings and a projection's outputs are. */
#include <string.h>

#include "egru.h"

void st_multiply_codes(const st_pass *pass, const st_rows *m, const float *scale, float *y,
                       ptrdiff_t y_stride)
{
    st_egru *n = st_egru_of(pass);
    st_events_begin(&n->code_events, pass->tokens, m->rows);
    st_list_counts(&n->code_events, n->core.kernels, n->codes, m->rows, scale, 0, pass->tokens);
    const st_event_product product = {m, &n->code_events, y, y_stride};
    st_event_products_run(&product, 1, n->core.kernels, n->core.pool);
}

void st_count_codes(const st_pass *pass, const st_rows *m, st_counters *counters)
{
    st_count_whole(pass, counters, m->rows * st_row_bytes(m->format, m->cols),
                   (int64_t)m->rows * m->cols, 0, pass->tokens);
}

/* x K + b of the tokens in `token`, without a count. */
static void multiply_embeddings(const st_pass *pass, const int64_t *token)
{
    st_egru *n = st_egru_of(pass);
    const st_rows *m = &n->layer[0].input;
    const st_embedding *e = &n->core.embedding;
    const ptrdiff_t stride = 3 * n->widest;
    if (n->is_int8) {
        float scale[ST_EGRU_TOKENS];
        for (ptrdiff_t t = 0; t < pass->tokens; t++) {
            const int8_t *from = (const int8_t *)e->rows + token[t] * e->stride;
            for (ptrdiff_t i = 0; i < m->rows; i++) n->codes[t * m->rows + i] = from[i * e->step];
            scale[t] = e->scale[token[t]];
        }
        st_multiply_codes(pass, m, scale, n->input_sum, stride);
        return;
    }
    st_events_begin(&n->input_events, pass->tokens, m->rows);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        st_embed(&n->core, token[t], n->features);
        st_list_graded(&n->input_events, n->core.kernels, t, n->features);
    }
    const st_event_product product = {m, &n->input_events, n->input_sum, stride};
    st_event_products_run(&product, 1, n->core.kernels, n->core.pool);
}

static void fill_table(const st_pass *pass, const int64_t *token)
{
    st_egru *n = st_egru_of(pass);
    const ptrdiff_t columns = n->layer[0].input.cols;
    int64_t missing[ST_EGRU_TOKENS];
    st_pass some = *pass;
    some.tokens = 0;
    for (ptrdiff_t t = 0; t < pass->tokens; t++) {
        if (n->table_filled[token[t]]) continue;
        n->table_filled[token[t]] = 1;
        missing[some.tokens++] = token[t];
    }
    if (!some.tokens) return;
    multiply_embeddings(&some, missing);
    for (ptrdiff_t t = 0; t < some.tokens; t++)
        memcpy(n->table + missing[t] * columns, st_input_row(n, t),
               (size_t)columns * sizeof *n->table);
}

static void count_table(const st_pass *pass)
{
    const st_egru *n = st_egru_of(pass);
    const st_rows *m = &n->layer[0].input;
    st_counters *counters = n->layer[0].counters;
    int64_t row = m->cols * (int64_t)sizeof(float);
    counters->bytes_touched += row * pass->tokens;
    counters->bytes_dense += m->rows * st_row_bytes(m->format, m->cols) * pass->tokens;
    counters->macs_dense += (int64_t)m->rows * m->cols * pass->tokens;
    for (ptrdiff_t t = 0; t < pass->tokens; t++) st_sequence_of(pass, t)->bytes_touched += row;
}

void st_egru_input(const st_pass *pass, const int64_t *token, const float **x)
{
    st_egru *n = st_egru_of(pass);
    const st_rows *m = &n->layer[0].input;
    if (n->table) {
        fill_table(pass, token);
        for (ptrdiff_t t = 0; t < pass->tokens; t++) x[t] = n->table + token[t] * m->cols;
        count_table(pass);
        return;
    }
    multiply_embeddings(pass, token);
    for (ptrdiff_t t = 0; t < pass->tokens; t++) x[t] = st_input_row(n, t);
    if (n->is_int8)
        st_count_codes(pass, m, n->layer[0].counters);
    else
        st_count_rows(pass, n->layer[0].counters, m, 1, &n->input_events, 0);
}
