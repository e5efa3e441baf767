/* Attention of one layer: gated linear, to a window, or both on the same projections. */
#include <math.h>
#include <string.h>

#include "decoder.h"
#include "functions.h"


#define ST_MIN(a, b) ((a) < (b) ? (a) : (b))
#define ST_MAX(a, b) ((a) > (b) ? (a) : (b))

static ptrdiff_t queries(const st_decoder *n)
{
    return n->heads * n->size;
}

static ptrdiff_t shared(const st_decoder *n)
{
    return n->shared_heads * n->size;
}

/* --- projections --------------------------------------------------------------------------- */

static void norm_heads(const st_decoder *n, const float *weight, ptrdiff_t heads, float *x)
{
    float out[n->size];
    for (ptrdiff_t h = 0; h < heads; h++, x += n->size) {
        n->kernels->rms_norm(x, weight, n->epsilon, n->size, out);
        memcpy(x, out, (size_t)n->size * sizeof *x);
    }
}

static void norm_queries(const st_block *block, const void *subject, int part, ptrdiff_t first,
                         ptrdiff_t last)
{
    (void)part;
    const st_layer *layer = subject;
    const st_decoder *n = block->network;
    for (ptrdiff_t t = first; t < last; t++) {
        norm_heads(n, layer->q_norm, n->heads, n->q + t * queries(n));
        norm_heads(n, layer->k_norm, n->shared_heads, n->k + t * shared(n));
    }
}

/* Outputs of joined matrices to their places. */
static void split(const st_block *block, const void *subject, int part, ptrdiff_t first,
                  ptrdiff_t last)
{
    (void)part;
    const st_layer *layer = subject;
    st_decoder *n = block->network;
    const size_t wide = (size_t)queries(n), narrow = (size_t)shared(n);
    for (ptrdiff_t t = first; t < last; t++) {
        const float *from = n->joined + t * layer->joined_outputs;
        memcpy(n->q + t * queries(n), from, wide * sizeof *from);
        memcpy(n->k + t * shared(n), from + wide, narrow * sizeof *from);
        memcpy(n->v + t * shared(n), from + wide + narrow, narrow * sizeof *from);
        if (layer->linear && layer->gate == ST_GATE_MERGED)
            memcpy(n->decay + t * shared(n), from + wide + 2 * narrow, narrow * sizeof *from);
    }
}

static void project_joined(const st_block *block, st_layer *layer)
{
    st_decoder *n = block->network;
    ptrdiff_t T = block->tokens, outputs = layer->joined_outputs;
    st_multiply(block, &n->outer, &layer->joined, 0, T, n->joined, outputs, layer->attn_work);
    st_share(block, layer, split, T, 1, T * outputs);
}

static void project_each(const st_block *block, st_layer *layer)
{
    st_decoder *n = block->network;
    ptrdiff_t T = block->tokens;
    st_multiply(block, &n->outer, &layer->q, 0, T, n->q, queries(n), layer->attn_work);
    st_multiply(block, &n->outer, &layer->k, 0, T, n->k, shared(n), layer->attn_work);
    st_multiply(block, &n->outer, &layer->v, 0, T, n->v, shared(n), layer->attn_work);
    if (layer->linear && layer->gate == ST_GATE_MERGED)
        st_multiply(block, &n->outer, &layer->decay, 0, T, n->decay, shared(n), layer->attn_work);
}

static void project(const st_block *block, st_layer *layer)
{
    st_decoder *n = block->network;
    ptrdiff_t T = block->tokens;
    st_read(block, &n->outer, &layer->attn_place, n->normed, n->width, n->width, layer->attn_work);
    (layer->joined_outputs ? project_joined : project_each)(block, layer);
    if (layer->linear && layer->gate == ST_GATE_LOW_RANK) {
        static const st_place plain = {.values = 1};
        st_multiply(block, &n->outer, &layer->decay_in, 0, T, n->low, n->rank, layer->attn_work);
        st_read(block, &n->outer, &plain, n->low, n->rank, n->rank, layer->attn_work);
        st_multiply(block, &n->outer, &layer->decay, 0, T, n->decay, shared(n), layer->attn_work);
    }
    if (layer->q_norm) st_share(block, layer, norm_queries, T, 1, T * queries(n));
}

/* --- gated linear attention ----------------------------------------------------------------- */

/* Non-negative q / sqrt(d) and k, and the decays. */
static void make_positive(const st_block *block, const void *subject, int part, ptrdiff_t first,
                          ptrdiff_t last)
{
    (void)part;
    const st_layer *layer = subject;
    st_decoder *n = block->network;
    const float root = sqrtf((float)n->size);
    for (ptrdiff_t t = first; t < last; t++) {
        const float *k = n->k + t * shared(n);
        float *positive_q = n->positive_q + t * queries(n), *decay = n->decay + t * shared(n);
        float *positive_k = n->positive_k + t * shared(n);
        if (n->sigmoid) {
            n->kernels->sigmoid(n->q + t * queries(n), positive_q, queries(n));
            n->kernels->sigmoid(k, positive_k, shared(n));
        } else {
            n->kernels->relu(n->q + t * queries(n), queries(n), positive_q);
            n->kernels->relu(k, shared(n), positive_k);
        }
        for (ptrdiff_t i = 0; i < queries(n); i++) positive_q[i] = positive_q[i] / root;
        if (layer->gate == ST_GATE_TIED) {
            for (ptrdiff_t i = 0; i < shared(n); i++) decay[i] = 1.0f - positive_k[i];
        } else {
            for (ptrdiff_t h = 0; h < n->shared_heads; h++) {
                float made[n->size];
                n->kernels->decay(decay + h * n->size, n->normalizer, n->size, made);
                memcpy(decay + h * n->size, made, sizeof made);
            }
        }
    }
}

static void scan_token(const st_block *block, const st_layer *layer, ptrdiff_t t, ptrdiff_t head)
{
    st_decoder *n = block->network;
    ptrdiff_t group = n->heads / n->shared_heads, at = t * shared(n) + head * n->size;
    float *state = (float *)(st_state_of(block, t) + layer->state) + head * n->size * n->size;
    ptrdiff_t queried = t * queries(n) + head * group * n->size;
    n->kernels->gla(n->decay + at, n->positive_k + at, n->v + at, n->positive_q + queried, group,
                    n->size, state, n->mixed + queried);
    norm_heads(n, layer->g_norm, group, n->mixed + queried);
}

/* Heads of a run of tokens, or pairs of a token and a head. */
static void scan(const st_block *block, const void *subject, int part, ptrdiff_t first,
                 ptrdiff_t last)
{
    (void)part;
    ptrdiff_t heads = block->network->shared_heads;
    for (ptrdiff_t u = first; u < last; u++) {
        if (!block->scan) scan_token(block, subject, u / heads, u % heads);
        for (ptrdiff_t t = 0; block->scan && t < block->tokens; t++)
            scan_token(block, subject, t, u);
    }
}

/* --- windows ------------------------------------------------------------------------------- */

static uint16_t to_bfloat16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Symmetric codes of a key or value, `step` elements apart; its scale. */
static float store_codes(const float *x, ptrdiff_t size, ptrdiff_t step, int8_t *to)
{
    float most = 0.0f;
    for (ptrdiff_t c = 0; c < size; c++) {
        float of = x[c] < 0.0f ? -x[c] : x[c];
        most = of > most ? of : most;
    }
    float scale = most / 127.0f;
    scale = scale < 1e-5f ? 1e-5f : scale > 1e4f ? 1e4f : scale;
    for (ptrdiff_t c = 0; c < size; c++) {
        float code = x[c] / scale;
        code = code < 127.0f ? code : 127.0f;
        code = code > -128.0f ? code : -128.0f;
        to[c * step] = (int8_t)(int32_t)((code + 12582912.0f) - 12582912.0f);
    }
    return scale;
}

/* `size` channels of one key (step ST_TILE_KEYS) or value (step 1) at element `at` of a cache. */
static void store(const st_decoder *n, const float *x, ptrdiff_t step, uint8_t *cache,
                  ptrdiff_t at, float *scale)
{
    if (n->cache == ST_CACHE_INT8) {
        *scale = store_codes(x, n->size, step, (int8_t *)cache + at);
    } else if (n->cache == ST_CACHE_BFLOAT16) {
        for (ptrdiff_t c = 0; c < n->size; c++)
            ((uint16_t *)cache)[at + c * step] = to_bfloat16(x[c]);
    } else {
        for (ptrdiff_t c = 0; c < n->size; c++) ((float *)cache)[at + c * step] = x[c];
    }
}

/* Tokens that enter a window layer's rings before the first of them looks. */
typedef struct {
    const st_layer *layer;
    ptrdiff_t first, count;
} st_entry;

/* Rotates queries and keys, codes and scales the queries, stores keys and values. */
static void enter(const st_block *block, const void *subject, int part, ptrdiff_t first,
                  ptrdiff_t last)
{
    (void)part;
    const st_entry *entry = subject;
    const st_layer *layer = entry->layer;
    st_decoder *n = block->network;
    const float factor = 1.0f / sqrtf((float)n->size);
    for (ptrdiff_t t = entry->first + first; t < entry->first + last; t++) {
        const float *cosine = n->cosine + t * (n->size / 2), *sine = n->sine + t * (n->size / 2);
        uint8_t *state = st_state_of(block, t);
        ptrdiff_t position = (ptrdiff_t)st_position(block, t), slot = position % ST_TILE_KEYS;
        ptrdiff_t tile = position / ST_TILE_KEYS % layer->tiles;
        for (ptrdiff_t h = 0; h < n->heads; h++) {
            float *q = n->q + t * queries(n) + h * n->size, coded[n->size];
            n->kernels->rotate(cosine, sine, n->size / 2, q);
            if (n->attention_spikes) {
                n->kernels->spike_values(q, n->attention_k, 0.0f, n->size, coded);
                memcpy(q, coded, sizeof coded);
            }
            for (ptrdiff_t c = 0; c < n->size; c++) q[c] = q[c] * factor;
        }
        for (ptrdiff_t h = 0; h < n->shared_heads; h++) {
            float *k = n->k + t * shared(n) + h * n->size;
            const float *v = n->v + t * shared(n) + h * n->size;
            ptrdiff_t head = tile * n->shared_heads + h, key = head * ST_TILE_KEYS + slot;
            n->kernels->rotate(cosine, sine, n->size / 2, k);
            store(n, k, ST_TILE_KEYS, state + layer->keys, head * n->size * ST_TILE_KEYS + slot,
                  (float *)(state + layer->key_scales) + key);
            store(n, v, 1, state + layer->values, key * n->size,
                  (float *)(state + layer->value_scales) + key);
        }
    }
}

/* Scratch of one part of a job: a tile, and sums of ST_QUERY_TOKENS tokens' heads. */
typedef struct {
    float *keys, *values, *most, *total;
} st_space;

static st_space space_of(const st_decoder *n, int part)
{
    float *at = n->space[part];
    ptrdiff_t tile = ST_TILE_KEYS * n->size, heads = ST_QUERY_TOKENS * n->heads;
    return (st_space){at, at + tile, at + 2 * tile, at + 2 * tile + heads};
}

/* The keys and values of one head's tile as float32. */
static void load_tile(const st_decoder *n, const st_layer *layer, const uint8_t *state,
                      ptrdiff_t tile, ptrdiff_t head, st_space space, const float **keys,
                      const float **values)
{
    ptrdiff_t at = (tile * n->shared_heads + head) * ST_TILE_KEYS, all = ST_TILE_KEYS * n->size;
    *keys = space.keys;
    *values = space.values;
    if (n->cache == ST_CACHE_INT8) {
        n->kernels->widen_keys((const int8_t *)(state + layer->keys) + at * n->size,
                               (const float *)(state + layer->key_scales) + at, n->size,
                               space.keys);
        n->kernels->widen_values((const int8_t *)(state + layer->values) + at * n->size,
                                 (const float *)(state + layer->value_scales) + at, n->size,
                                 space.values);
    } else if (n->cache == ST_CACHE_BFLOAT16) {
        n->kernels->widen_bfloat16((const uint16_t *)(state + layer->keys) + at * n->size, all,
                                   space.keys);
        n->kernels->widen_bfloat16((const uint16_t *)(state + layer->values) + at * n->size, all,
                                   space.values);
    } else {
        *keys = (const float *)(state + layer->keys) + at * n->size;
        *values = (const float *)(state + layer->values) + at * n->size;
    }
}

/* Sums of the tokens first .. last of one state over all tiles that any of them sees. */
static void see_tiles(const st_block *block, const st_layer *layer, ptrdiff_t first,
                      ptrdiff_t last, ptrdiff_t head, st_space space, float *out)
{
    const st_decoder *n = block->network;
    ptrdiff_t group = n->heads / n->shared_heads;
    const uint8_t *state = st_state_of(block, first);
    int64_t from = ST_MAX(0, st_position(block, first) - layer->visible + 1);
    int64_t newest = st_position(block, last - 1);
    for (int64_t tile = from / ST_TILE_KEYS; tile <= newest / ST_TILE_KEYS; tile++) {
        const float *keys, *values;
        load_tile(n, layer, state, (ptrdiff_t)(tile % layer->tiles), head, space, &keys, &values);
        for (ptrdiff_t t = first; t < last; t++) {
            int64_t own = st_position(block, t), begin = tile * ST_TILE_KEYS;
            int64_t low = ST_MAX(0, own - layer->visible + 1 - begin);
            int64_t high = ST_MIN(ST_TILE_KEYS, own + 1 - begin);
            if (low >= high) continue;
            ptrdiff_t at = (t - first) * group;
            n->kernels->window_tile(keys, values, n->q + t * queries(n) + head * group * n->size,
                                    group, n->size, (ptrdiff_t)low, (ptrdiff_t)high,
                                    space.most + at, space.total + at,
                                    out + t * queries(n) + head * group * n->size);
        }
    }
}

static void see_sinks(const st_block *block, const st_layer *layer, ptrdiff_t first,
                      ptrdiff_t last, ptrdiff_t head, st_space space, float *out)
{
    const st_decoder *n = block->network;
    ptrdiff_t group = n->heads / n->shared_heads, all = ST_TILE_KEYS * n->size;
    ptrdiff_t tiles = (layer->sinks + ST_TILE_KEYS - 1) / ST_TILE_KEYS;
    for (ptrdiff_t tile = 0; tile < tiles; tile++)
        for (ptrdiff_t t = first; t < last; t++) {
            ptrdiff_t at = (t - first) * group, place = (head * tiles + tile) * all;
            n->kernels->window_tile(
                layer->sink_keys + place, layer->sink_values + place,
                n->q + t * queries(n) + head * group * n->size, group, n->size, 0,
                ST_MIN(ST_TILE_KEYS, layer->sinks - tile * ST_TILE_KEYS), space.most + at,
                space.total + at, out + t * queries(n) + head * group * n->size);
        }
}

/* One key/value head of the tokens first .. last of one state. */
static void look(const st_block *block, const st_layer *layer, ptrdiff_t first, ptrdiff_t last,
                 ptrdiff_t head, int part)
{
    const st_decoder *n = block->network;
    ptrdiff_t group = n->heads / n->shared_heads;
    float *out = layer->linear ? n->seen : n->mixed;
    st_space space = space_of(n, part);
    for (ptrdiff_t i = 0; i < (last - first) * group; i++) {
        space.most[i] = -INFINITY;
        space.total[i] = 0.0f;
    }
    for (ptrdiff_t t = first; t < last; t++)
        memset(out + t * queries(n) + head * group * n->size, 0,
               (size_t)(group * n->size) * sizeof *out);
    see_sinks(block, layer, first, last, head, space, out);
    see_tiles(block, layer, first, last, head, space, out);
    for (ptrdiff_t t = first; t < last; t++)
        for (ptrdiff_t h = 0; h < group; h++) {
            float *row = out + t * queries(n) + (head * group + h) * n->size;
            float total = space.total[(t - first) * group + h];
            for (ptrdiff_t c = 0; c < n->size; c++) row[c] = row[c] / total;
        }
}

/* Pairs of a token, or of a few of a run, and a head. */
static void look_all(const st_block *block, const void *subject, int part, ptrdiff_t first,
                     ptrdiff_t last)
{
    const st_entry *entry = subject;
    ptrdiff_t heads = block->network->shared_heads, step = block->scan ? ST_QUERY_TOKENS : 1;
    for (ptrdiff_t u = first; u < last; u++) {
        ptrdiff_t t = u / heads * step, end = ST_MIN(t + step, entry->count);
        look(block, entry->layer, entry->first + t, entry->first + end, u % heads, part);
    }
}

/* (linear + norm(window)) / 2 where a layer has both. */
static void combine(const st_block *block, const void *subject, int part, ptrdiff_t first,
                    ptrdiff_t last)
{
    (void)part;
    const st_layer *layer = subject;
    const st_decoder *n = block->network;
    for (ptrdiff_t t = first; t < last; t++) {
        float *out = n->mixed + t * queries(n), *seen = n->seen + t * queries(n);
        norm_heads(n, layer->w_norm, n->heads, seen);
        for (ptrdiff_t i = 0; i < queries(n); i++) {
            float both = out[i] + seen[i];
            out[i] = both * 0.5f;
        }
    }
}

/* A run of tokens in pieces for which the rings have room, or one token of each state. */
static void look_through_window(const st_block *block, const st_layer *layer)
{
    const st_decoder *n = block->network;
    ptrdiff_t heads = n->shared_heads, step = block->scan ? ST_QUERY_TOKENS : 1;
    for (ptrdiff_t first = 0; first < block->tokens; first += ST_ENTRY_TOKENS) {
        const st_entry entry = {layer, first, ST_MIN(ST_ENTRY_TOKENS, block->tokens - first)};
        ptrdiff_t values = entry.count * queries(n), runs = (entry.count + step - 1) / step;
        st_share(block, &entry, enter, entry.count, 1, values);
        st_share(block, &entry, look_all, runs * heads, 1, values * n->size);
    }
}

void st_attend(const st_block *block, st_layer *layer)
{
    st_decoder *n = block->network;
    ptrdiff_t T = block->tokens, heads = n->shared_heads, values = T * queries(n);
    project(block, layer);
    if (layer->linear) {
        st_share(block, layer, make_positive, T, 1, values);
        st_share(block, layer, scan, block->scan ? heads : heads * T, 1, values * n->size);
    }
    if (layer->window) look_through_window(block, layer);
    if (layer->linear && layer->window) st_share(block, layer, combine, T, 1, values);
    st_read(block, &n->outer, &layer->o_place, n->mixed, queries(n), queries(n),
            layer->attn_work);
    st_multiply(block, &n->outer, &layer->o, 0, T, n->branch, n->width, layer->attn_work);
}
