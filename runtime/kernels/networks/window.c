/* Softmax attention to a window of keys in rings of tiles, oldest first, and to sinks before them.
 */
#include <math.h>
#include <string.h>

#include "spikingbrain.h"

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
static void store(const st_spikingbrain *n, const float *x, ptrdiff_t step, void *cache,
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

/* Tokens that enter a window layer's rings before the first of them attends. */
typedef struct {
    const st_layer *layer;
    ptrdiff_t first, count;
} st_entry;

/* Rotates queries and keys, codes and scales the queries, stores keys and values. */
static void enter(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                  ptrdiff_t last)
{
    (void)piece;
    const st_entry *entry = subject;
    const st_layer *layer = entry->layer;
    st_spikingbrain *n = st_spikingbrain_of(pass);
    const float factor = 1.0f / sqrtf((float)n->size);
    for (ptrdiff_t t = entry->first + first; t < entry->first + last; t++) {
        const float *cosine = n->cosine + t * (n->size / 2), *sine = n->sine + t * (n->size / 2);
        char *state = st_state_of(pass, t);
        ptrdiff_t position = (ptrdiff_t)st_position(pass, t), slot = position % ST_TILE_KEYS;
        ptrdiff_t tile = position / ST_TILE_KEYS % layer->tiles;
        for (ptrdiff_t h = 0; h < n->heads; h++) {
            float *q = n->q + t * st_queries(n) + h * n->size, coded[n->size];
            n->core.kernels->rotate(cosine, sine, n->size / 2, q);
            if (n->attention_spikes) {
                n->core.kernels->spike_values(q, n->attention_k, 0.0f, n->size, coded);
                memcpy(q, coded, sizeof coded);
            }
            for (ptrdiff_t c = 0; c < n->size; c++) q[c] = q[c] * factor;
        }
        for (ptrdiff_t h = 0; h < n->kv_heads; h++) {
            float *k = n->k + t * st_keys(n) + h * n->size;
            const float *v = n->v + t * st_keys(n) + h * n->size;
            ptrdiff_t head = tile * n->kv_heads + h, key = head * ST_TILE_KEYS + slot;
            n->core.kernels->rotate(cosine, sine, n->size / 2, k);
            store(n, k, ST_TILE_KEYS, state + layer->keys, head * n->size * ST_TILE_KEYS + slot,
                  (float *)(state + layer->key_scales) + key);
            store(n, v, 1, state + layer->values, key * n->size,
                  (float *)(state + layer->value_scales) + key);
        }
    }
}

/* Scratch of one piece of a split: a tile, and sums of ST_QUERY_TOKENS tokens' heads. */
typedef struct {
    float *keys, *values, *most, *total;
} st_space;

static st_space space_of(const st_spikingbrain *n, int piece)
{
    float *at = n->space + piece * n->space_size;
    ptrdiff_t tile = ST_TILE_KEYS * n->size, heads = ST_QUERY_TOKENS * n->heads;
    return (st_space){at, at + tile, at + 2 * tile, at + 2 * tile + heads};
}

/* The keys and values of one head's tile as float32. */
static void load_tile(const st_spikingbrain *n, const st_layer *layer, const char *state,
                      ptrdiff_t tile, ptrdiff_t head, st_space space, const float **keys,
                      const float **values)
{
    ptrdiff_t at = (tile * n->kv_heads + head) * ST_TILE_KEYS, all = ST_TILE_KEYS * n->size;
    *keys = space.keys;
    *values = space.values;
    if (n->cache == ST_CACHE_INT8) {
        n->core.kernels->widen_keys((const int8_t *)(state + layer->keys) + at * n->size,
                                    (const float *)(state + layer->key_scales) + at, n->size,
                                    space.keys);
        n->core.kernels->widen_values((const int8_t *)(state + layer->values) + at * n->size,
                                      (const float *)(state + layer->value_scales) + at, n->size,
                                      space.values);
    } else if (n->cache == ST_CACHE_BFLOAT16) {
        n->core.kernels->widen_bfloat16((const uint16_t *)(state + layer->keys) + at * n->size, all,
                                        space.keys);
        n->core.kernels->widen_bfloat16((const uint16_t *)(state + layer->values) + at * n->size,
                                        all, space.values);
    } else {
        *keys = (const float *)(state + layer->keys) + at * n->size;
        *values = (const float *)(state + layer->values) + at * n->size;
    }
}

/* Sums of the tokens first .. last of one state over all tiles that any of them attends to. */
static void attend_tiles(const st_pass *pass, const st_layer *layer, ptrdiff_t first,
                         ptrdiff_t last, ptrdiff_t head, st_space space, float *out)
{
    const st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t group = n->heads / n->kv_heads;
    const char *state = st_state_of(pass, first);
    int64_t from = ST_MAX(0, st_position(pass, first) - layer->visible + 1);
    int64_t newest = st_position(pass, last - 1);
    for (int64_t tile = from / ST_TILE_KEYS; tile <= newest / ST_TILE_KEYS; tile++) {
        const float *keys, *values;
        load_tile(n, layer, state, (ptrdiff_t)(tile % layer->tiles), head, space, &keys, &values);
        for (ptrdiff_t t = first; t < last; t++) {
            int64_t at_position = st_position(pass, t), begin = tile * ST_TILE_KEYS;
            int64_t low = ST_MAX(0, at_position - layer->visible + 1 - begin);
            int64_t high = ST_MIN(ST_TILE_KEYS, at_position + 1 - begin);
            if (low >= high) continue;
            ptrdiff_t at = (t - first) * group;
            n->core.kernels->window_tile(
                keys, values, n->q + t * st_queries(n) + head * group * n->size, group, n->size,
                (ptrdiff_t)low, (ptrdiff_t)high, space.most + at, space.total + at,
                out + t * st_queries(n) + head * group * n->size);
        }
    }
}

static void attend_sinks(const st_pass *pass, const st_layer *layer, ptrdiff_t first,
                         ptrdiff_t last, ptrdiff_t head, st_space space, float *out)
{
    const st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t group = n->heads / n->kv_heads, all = ST_TILE_KEYS * n->size;
    ptrdiff_t tiles = (layer->sinks + ST_TILE_KEYS - 1) / ST_TILE_KEYS;
    for (ptrdiff_t tile = 0; tile < tiles; tile++)
        for (ptrdiff_t t = first; t < last; t++) {
            ptrdiff_t at = (t - first) * group, offset = (head * tiles + tile) * all;
            n->core.kernels->window_tile(
                layer->sink_keys + offset, layer->sink_values + offset,
                n->q + t * st_queries(n) + head * group * n->size, group, n->size, 0,
                ST_MIN(ST_TILE_KEYS, layer->sinks - tile * ST_TILE_KEYS), space.most + at,
                space.total + at, out + t * st_queries(n) + head * group * n->size);
        }
}

/* One key/value head of the tokens first .. last of one state. */
static void attend_head(const st_pass *pass, const st_layer *layer, ptrdiff_t first, ptrdiff_t last,
                        ptrdiff_t head, int piece)
{
    const st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t group = n->heads / n->kv_heads;
    float *out = layer->linear ? n->attended : n->mixed;
    st_space space = space_of(n, piece);
    for (ptrdiff_t i = 0; i < (last - first) * group; i++) {
        space.most[i] = -INFINITY;
        space.total[i] = 0.0f;
    }
    for (ptrdiff_t t = first; t < last; t++)
        memset(out + t * st_queries(n) + head * group * n->size, 0,
               (size_t)(group * n->size) * sizeof *out);
    attend_sinks(pass, layer, first, last, head, space, out);
    attend_tiles(pass, layer, first, last, head, space, out);
    for (ptrdiff_t t = first; t < last; t++)
        for (ptrdiff_t h = 0; h < group; h++) {
            float *row = out + t * st_queries(n) + (head * group + h) * n->size;
            float total = space.total[(t - first) * group + h];
            for (ptrdiff_t c = 0; c < n->size; c++) row[c] = row[c] / total;
        }
}

/* Pairs of a token, or of a few of a run, and a head. */
static void attend_all(const st_pass *pass, const void *subject, int piece, ptrdiff_t first,
                       ptrdiff_t last)
{
    const st_entry *entry = subject;
    ptrdiff_t heads = st_spikingbrain_of(pass)->kv_heads, step = pass->scan ? ST_QUERY_TOKENS : 1;
    for (ptrdiff_t u = first; u < last; u++) {
        ptrdiff_t t = u / heads * step, end = ST_MIN(t + step, entry->count);
        attend_head(pass, entry->layer, entry->first + t, entry->first + end, u % heads, piece);
    }
}

/* A run of tokens in pieces for which the rings have room, or one token of each state. */
void st_attend_window(const st_pass *pass, const st_layer *layer)
{
    const st_spikingbrain *n = st_spikingbrain_of(pass);
    ptrdiff_t heads = n->kv_heads, step = pass->scan ? ST_QUERY_TOKENS : 1;
    for (ptrdiff_t first = 0; first < pass->tokens; first += ST_ENTRY_TOKENS) {
        const st_entry entry = {layer, first, ST_MIN(ST_ENTRY_TOKENS, pass->tokens - first)};
        ptrdiff_t values = entry.count * st_queries(n), runs = (entry.count + step - 1) / step;
        st_split(pass, &entry, enter, entry.count, 1, values);
        st_split(pass, &entry, attend_all, runs * heads, 1, values * n->size);
    }
}
