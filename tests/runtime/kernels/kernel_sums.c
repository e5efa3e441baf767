/* Runs every kernel of the generic build on the same pseudo-random inputs and prints, for each, a
 * checksum of the bits that it leaves: two machines that agree print the same lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dense.h"
#include "kernels.h"

extern const st_kernels st_kernels_generic;

enum { MOST = 1 << 17 };
static float a[MOST], b[MOST], c[MOST], d[MOST], p[MOST], q[MOST], y[MOST];
static double wide[MOST];
static int8_t codes[MOST];
static uint8_t nibbles[MOST], factors[MOST];
static int16_t halves[MOST], value[MOST];
static int32_t index_[MOST], whole[MOST];
static uint16_t bits[MOST];
static _Alignas(64) uint8_t panels[1 << 20];

static uint64_t state = 1, sum;

static uint32_t draw(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static void fill(float *x, float spread)
{
    for (int i = 0; i < MOST; i++) x[i] = spread * ((float)(draw() >> 7) / 8388608.0f - 1.0f);
}

static void fill_all(void)
{
    fill(a, 4.0f), fill(b, 2.0f), fill(c, 1.0f), fill(d, 0.5f), fill(p, 1.0f), fill(q, 3.0f);
    for (int i = 0; i < MOST; i++) {
        codes[i] = (int8_t)((int)(draw() % 255) - 127);
        nibbles[i] = (uint8_t)draw();
        factors[i] = (uint8_t)(1 + draw() % 15);
        halves[i] = draw() % 3 ? 0 : (int16_t)(draw() % 32768);
        whole[i] = (int32_t)(draw() % 100);
        bits[i] = (uint16_t)(draw() % 0x7f80);
    }
}

static void add(const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) sum = (sum ^ ((const uint8_t *)data)[i]) * 1099511628211u;
}

static void add_float(float x)
{
    add(&x, sizeof x);
}

static void show(const char *name)
{
    printf("%s %016llx\n", name, (unsigned long long)sum);
    sum = 14695981039346656037u;
    fill_all();
}

/* A list of every third of n inputs or so, values within +-most or from 1 on. */
static ptrdiff_t list(ptrdiff_t n, int most, int has_signs)
{
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        if (draw() % 3) continue;
        index_[count] = (int32_t)i;
        value[count] = (int16_t)(1 + draw() % (uint32_t)most);
        if (has_signs && draw() % 2) value[count] = (int16_t)-value[count];
        count++;
    }
    return count;
}

static const int sizes[] = {1, 15, 16, 63, 64, 65, 1000};
/* A kernel of vectors: its checksum over all sizes n. */
#define SIZES(name, call, out, count)                                                              \
    do {                                                                                           \
        for (int s = 0, n; s < 7 && (n = sizes[s]); s++) {                                         \
            call;                                                                                  \
            add(out, (size_t)(count) * sizeof *(out));                                             \
        }                                                                                          \
        show(name);                                                                                \
    } while (0)

static void elementwise(const st_kernels *k)
{
    SIZES("exp_all", k->exp_all(a, y, n), y, n);
    SIZES("sigmoid_all", k->sigmoid_all(a, y, n), y, n);
    SIZES("tanh_all", k->tanh_all(a, y, n), y, n);
    SIZES("list_float32", whole[0] = (int32_t)k->list_float32(a, n, index_, y), y, whole[0]);
    SIZES("list_int16", whole[0] = (int32_t)k->list_int16(halves, n, index_, value), value,
          whole[0]);
    SIZES("quantise", add_float(k->quantise(a, n, value)), value, n);
    SIZES("quantise_row", memset(codes, 0, 1024); add_float(k->quantise_row(a, n, codes, whole));
          add(whole, 8), codes, n);
    SIZES("list_squares_float32", whole[0] = (int32_t)k->list_squares_float32(a, n, index_, y), y,
          whole[0]);
    SIZES("list_squares", whole[0] = (int32_t)k->list_squares(a, n, 4095, index_, value, y);
          add_float(y[0]), value, whole[0]);
    SIZES("square_codes", whole[0] = (int32_t)k->square_codes(a, n, 4095, value, y);
          add_float(y[0]); add(whole, 1), value, n);
    SIZES("list_counts", whole[0] = (int32_t)k->list_counts(halves, n, 127, index_, value), value,
          whole[0]);
    SIZES("gate", k->gate(a, b, n, y), y, n);
    SIZES("square_relu", k->square_relu(a, n, y), y, n);
    SIZES("add_counts", k->add_counts(a, whole, n, y), y, n);
    SIZES("add_vector", k->add_vector(a, n, y), y, n);
    SIZES("relu", k->relu(a, n, y), y, n);
    SIZES("rms_norm", k->rms_norm(a, b, 1e-6f, n, y), y, n);
    SIZES("rotate", k->rotate(c, d, n, a), a, 2 * n);
    SIZES("silu_product", k->silu_product(a, b, n, y), y, n);
    SIZES("decay", k->decay(a, 16.0f, n, y), y, n);
    SIZES("widen_bfloat16", k->widen_bfloat16(bits, n, y), y, n);
    SIZES("first_greatest", whole[0] = (int32_t)k->first_greatest(a, n), whole, 1);
    SIZES("group_maxima", k->group_maxima(a, n, y), y, n);
    SIZES("weigh", k->weigh(a, n, 4.0, 0.7, wide), wide, n);
    SIZES("softmax", whole[0] = k->softmax(a, n, y), y, n);
    SIZES("nats", wide[0] = k->nats(a, n, n / 2), wide, 1);
    for (int i = 0; i < MOST; i++) wide[i] = a[i];
    SIZES("sum_weights", wide[MOST - 1] = k->sum_weights(wide, n), wide + MOST - 1, 1);
}

static void neurons(const st_kernels *k)
{
    const int n = 200;
    k->egru_float32(a, b, d, 0.1f, n, 0, n, c, y), add(c, 4 * n), add(y, 4 * n);
    show("egru_float32");
    k->egru_int16(a, b, d, 0.1f, n, 0, n, c, value), add(c, 4 * n), add(value, 2 * n);
    show("egru_int16");
    k->layer_norm(a, b, c, 1e-5f, n, y), add(y, 4 * n), show("layer_norm");
    k->token_shift(a, b, c, n, y), add(y, 4 * n), show("token_shift");
    for (int i = 0; i < n; i++) q[i] = 1.0f + p[i] * p[i];
    k->wkv(a, b, c, d, b, n, p, q, c + 1000, y);
    add(p, 4 * n), add(q, 4 * n), add(c + 1000, 4 * n), add(y, 4 * n), show("wkv");
    whole[n] = (int32_t)k->lif(a, b, d, 2.0f, n, p, whole), add(p, 4 * n), add(whole, 4 * n + 4);
    show("lif");
    add_float(k->count_spikes(a, 0.5f, 0.0f, n, value)), add(value, 2 * n), show("count_spikes");
    add_float(k->spike_values(a, 3.0f, 0.6f, n, y)), add(y, 4 * n), show("spike_values");
    int64_t fired;
    ptrdiff_t events = k->spike_list(a, 3.0f, 0.6f, n, 8, index_, value, y, &fired);
    add(index_, (size_t)events * 4), add(value, (size_t)events * 2), add(y, 4), add(&fired, 8);
    show("spike_list");
    k->gla(c, d, b, a, 2, 100, p, y), add(p, 40000), add(y, 800), show("gla");
    float most[2] = {-1e30f, 0.5f}, total[2] = {0.0f, 1.0f};
    k->window_tile(a, b, c, 2, 100, 3, 60, most, total, p);
    add(most, 8), add(total, 8), add(p, 800), show("window_tile");
    k->widen_keys(codes, a, 30, y), add(y, 4 * 30 * ST_TILE_KEYS), show("widen_keys");
    k->widen_values(codes, a, 30, y), add(y, 4 * 30 * ST_TILE_KEYS), show("widen_values");
}

enum { INPUTS = 300, OUTPUTS = 333, TOKENS = 8 };

/* The events that `list` left, of values of floats where the kernel takes floats. */
static st_list listed(ptrdiff_t n, void *values, float unit)
{
    return (st_list){.index = index_, .value = values, .count = n, .unit = unit};
}

static void floats(const st_kernels *k)
{
    for (int has_bias = 0; has_bias < 2; has_bias++) {
        const float *bias = has_bias ? b : NULL;
        st_rows m = {.rows = INPUTS, .cols = OUTPUTS, .stride = OUTPUTS + 3, .bias = bias};
        m.format = ST_FLOAT32, m.weight = a;
        st_list events = listed(list(INPUTS, 32767, 0), c, 1.0f);
        k->rows_float32(&m, &events, 0, OUTPUTS, y), add(y, 4 * OUTPUTS);
    }
    show("rows_float32");
    for (int i = 0; i < MOST; i++) bits[i] &= 0x3fff;
    for (int has_bias = 0; has_bias < 2; has_bias++) {
        const float *bias = has_bias ? b : NULL;
        st_rows m = {.rows = INPUTS, .cols = OUTPUTS, .stride = OUTPUTS + 3, .bias = bias};
        m.format = ST_BFLOAT16, m.weight = bits;
        st_list events = listed(list(INPUTS, 32767, 0), c, 1.0f);
        k->rows_bfloat16(&m, &events, 0, OUTPUTS, y), add(y, 4 * OUTPUTS);
    }
    show("rows_bfloat16");
}

static void dense(const st_kernels *k, int format, const char *name)
{
    st_dense m = {format, INPUTS, OUTPUTS, format == ST_INT4 ? 32 : 0, panels, 0, b};
    st_dense_input input;
    m.panel_stride = st_panel_bytes(format, INPUTS, m.group);
    for (int i = 0; i < MOST; i++) bits[i] &= 0x3fff;
    const void *weight[ST_FORMATS] = {
        [ST_FLOAT32] = a, [ST_BFLOAT16] = bits, [ST_INT8] = codes, [ST_INT4] = nibbles};
    st_pack(&m, weight[format], format == ST_INT4 ? (OUTPUTS + 1) / 2 : OUTPUTS, a, panels);
    if (st_dense_input_init(&input, INPUTS, TOKENS)) exit(1);
    st_dense_input_set(&input, c, INPUTS, TOKENS, INPUTS);
    if (!st_is_float(format)) st_dense_quantise(&input, k, 0, TOKENS);
    st_dense_multiply(&m, &input, k, 0, OUTPUTS, y, OUTPUTS);
    st_dense_input_free(&input);
    add(y, sizeof *y * TOKENS * OUTPUTS), show(name);
}

static st_rows matrix(int format)
{
    st_rows m = {.format = format, .rows = INPUTS, .cols = OUTPUTS, .weight = codes};
    m.stride = OUTPUTS, m.scale = a, m.bias = b, m.group = 16;
    m.multiplier = factors, m.multiplier_stride = 3;
    if (format == ST_INT4) m.weight = nibbles, m.stride = (OUTPUTS + 1) / 2;
    return m;
}

typedef void (*st_rows_kernel)(const st_rows *, const st_list *, ptrdiff_t, ptrdiff_t, float *);

static void rows(st_rows_kernel kernel, int format, int most, int has_signs, const char *name)
{
    int32_t starts[INPUTS + 1] = {0, 1}, columns[] = {OUTPUTS - 1};
    int16_t extra[] = {1000};
    for (int i = 2; i <= INPUTS; i++) starts[i] = 1;
    st_rows m = matrix(format);
    if (format == ST_INT8_GROUPS) m.extra_row = starts, m.extra_column = columns, m.extra = extra;
    for (int has_bias = 0; has_bias < 2; has_bias++) {
        if (!has_bias) m.bias = NULL;
        st_list events = listed(list(INPUTS, most, has_signs), value, 0.3f);
        kernel(&m, &events, 0, OUTPUTS, y);
        add(y, sizeof *y * OUTPUTS);
        m.bias = b;
    }
    show(name);
}

/* Sums of both halves of a list, and what they add up to. */
static void parts(const st_kernels *k)
{
    enum { STRIDE = 384 };
    st_rows m;
    for (int kind = 0; kind < 4; kind++) {
        int is_int8 = kind % 2, counts = kind / 2;
        m = matrix(is_int8 ? ST_INT8 : ST_INT4);
        ptrdiff_t n = list(INPUTS, counts ? (is_int8 ? 127 : 8) : 4095, counts);
        for (int half = 0; half < 2; half++) {
            ptrdiff_t first = half * n / 2, last = (half + 1) * n / 2;
            st_list some = {.index = index_ + first, .value = value + first, .count = last - first};
            k->sum_events(&m, counts, &some, whole + half * STRIDE);
            add(whole + half * STRIDE, sizeof *whole * OUTPUTS);
        }
    }
    show("sum_events");
    m = matrix(ST_INT8);
    k->add_parts(&m, whole, 2, STRIDE, 0.3f, y), add(y, sizeof *y * OUTPUTS);
    show("add_parts");
}

int main(void)
{
    const st_kernels *k = &st_kernels_generic;
    sum = 14695981039346656037u;
    fill_all();
    elementwise(k);
    neurons(k);
    floats(k);
    dense(k, ST_FLOAT32, "multiply_float32");
    dense(k, ST_BFLOAT16, "multiply_bfloat16");
    dense(k, ST_INT8, "multiply_int8");
    dense(k, ST_INT4, "multiply_int4");
    rows(k->rows_int8, ST_INT8, 32767, 0, "rows_int8");
    rows(k->rows_int4, ST_INT4, 4095, 0, "rows_int4");
    rows(k->counts_int8, ST_INT8, 127, 1, "counts_int8");
    rows(k->counts_int8_groups, ST_INT8_GROUPS, 127, 1, "counts_int8_groups");
    rows(k->counts_int4, ST_INT4, 8, 1, "counts_int4");
    parts(k);
    return 0;
}
