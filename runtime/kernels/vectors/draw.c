/* A token from logits: greatest, or drawn from what top_k, top_p, min_p and typical_p leave.
 *
 * Ties are won by the lower index, and sums run in a fixed order, so that a draw depends on its own
 * row and choice alone. Passes over all logits are the instruction-set build's (drawing.h). */
#include "draw.h"

#include <math.h>
#include <string.h>

#include "functions.h"

__extension__ typedef unsigned __int128 wide;

#define LOOK 16  /* ST_LOOK of drawing.h */
#define BLOCK 64 /* weights summed at once */

double st_uniform(uint64_t seed, uint64_t position, uint64_t index)
{
    uint64_t a = 1, b = position, c = 0, d = 0, key = seed, other = index;
    for (int round = 0; round < 10; round++) {
        wide product = (wide)0xD2E7470EE14C6C93ull * a;
        wide second = (wide)0xCA5A826395121157ull * c;
        a = (uint64_t)(second >> 64) ^ b ^ key;
        b = (uint64_t)second;
        c = (uint64_t)(product >> 64) ^ d ^ other;
        d = (uint64_t)product;
        key += 0x9E3779B97F4A7C15ull;
        other += 0xBB67AE8584CAA73Bull;
    }
    return (double)(a >> 11) * 0x1p-53;
}

/* The value that `count` - 1 others are greater than, or as great as; x is put into another order.
 */
static float nth_greatest(float *x, ptrdiff_t n, ptrdiff_t count)
{
    ptrdiff_t low = 0, high = n - 1, wanted = count - 1;
    while (low < high) {
        float a = x[low], b = x[low + (high - low) / 2], c = x[high];
        float pivot = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
        ptrdiff_t i = low, j = high;
        while (i <= j) {
            while (x[i] > pivot) i++;
            while (x[j] < pivot) j--;
            if (i > j) break;
            float other = x[i];
            x[i++] = x[j];
            x[j--] = other;
        }
        if (wanted <= j)
            high = j;
        else if (wanted >= i)
            low = i;
        else
            break;
    }
    return x[wanted];
}

/* Indices, ascending, of the `count` greatest of x, of equal ones the first. */
static void most_likely(const st_kernels *kernels, const float *x, ptrdiff_t n, ptrdiff_t count,
                        st_draw_memory *memory)
{
    float *value = memory->value;
    int32_t *index = memory->index;
    ptrdiff_t groups = n / LOOK, listed = 0;
    float least = -INFINITY;
    if (count <= groups) { /* `count` groups have a maximum of at least `least` */
        kernels->group_maxima(x, groups, value);
        least = nth_greatest(value, groups, count);
    }
    for (ptrdiff_t i = 0; i < n; i++)
        if (x[i] >= least) {
            value[listed] = x[i];
            index[listed++] = (int32_t)i;
        }
    float border = nth_greatest(value, listed, count);
    ptrdiff_t missing = count, kept = 0;
    for (ptrdiff_t i = 0; i < listed; i++) missing -= x[index[i]] > border;
    for (ptrdiff_t i = 0; i < listed; i++) {
        float v = x[index[i]];
        if (v > border || (v == border && missing-- > 0)) index[kept++] = index[i];
    }
}

/* Whether candidate a is taken before candidate b: by key, of equal ones the lower. */
static inline int goes_first(const double *key, int32_t a, int32_t b)
{
    return key[a] > key[b] || (key[a] == key[b] && a < b);
}

static void sift_down(const double *key, int32_t *heap, ptrdiff_t n, ptrdiff_t at)
{
    int32_t moved = heap[at];
    for (ptrdiff_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && goes_first(key, heap[child + 1], heap[child])) child++;
        if (!goes_first(key, heap[child], moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

/* Leave the candidates of greatest key, together with at least `wanted` of weight: the fewest. Of
 * `count` weights those in `heap` are candidates; kept ones move to the front, in their order. */
static ptrdiff_t keep_greatest(st_draw_memory *memory, ptrdiff_t count, ptrdiff_t candidates,
                               double wanted)
{
    double *weight = memory->weight, *key = memory->key, mass = 0.0;
    int32_t *heap = memory->order, *index = memory->index;
    ptrdiff_t left = candidates, kept = 0;
    for (ptrdiff_t at = candidates / 2; at-- > 0;) sift_down(key, heap, candidates, at);
    do {
        int32_t taken = heap[0];
        mass += weight[taken];
        key[taken] = INFINITY;
        heap[0] = heap[--left];
        sift_down(key, heap, left, 0);
    } while (left && mass < wanted);
    for (ptrdiff_t i = 0; i < count; i++)
        if (key[i] == INFINITY) {
            weight[kept] = weight[i];
            index[kept++] = index[i];
        }
    return kept;
}

/* The fewest greatest weights that hold at least `top_p` of the sum. */
static ptrdiff_t nucleus(const st_kernels *kernels, st_draw_memory *memory, ptrdiff_t count,
                         double top_p)
{
    double total = kernels->sum_weights(memory->weight, count);
    /* Weights below the mean of what may be left out are together less than may be left out. */
    double least = (1.0 - top_p) * total / (double)count;
    ptrdiff_t candidates = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        memory->key[i] = memory->weight[i];
        if (memory->weight[i] >= least) memory->order[candidates++] = (int32_t)i;
    }
    return keep_greatest(memory, count, candidates, top_p * total);
}

/* The weights of at least `min_p` times the greatest, which is 1. */
static ptrdiff_t near_the_likeliest(st_draw_memory *memory, ptrdiff_t count, double min_p)
{
    ptrdiff_t kept = 0;
    for (ptrdiff_t i = 0; i < count; i++)
        if (memory->weight[i] >= min_p) {
            memory->weight[kept] = memory->weight[i];
            memory->index[kept++] = memory->index[i];
        }
    return kept;
}

/* The fewest that hold `typical_p` of the sum, those first whose information -log p is nearest to
 * the entropy. */
static ptrdiff_t typical(const st_kernels *kernels, st_draw_memory *memory, ptrdiff_t count,
                         double typical_p)
{
    double *weight = memory->weight, *key = memory->key, entropy = 0.0;
    double total = kernels->sum_weights(weight, count);
    ptrdiff_t candidates = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        double probability = weight[i] / total;
        key[i] = probability < 0x1p-1022 ? 0.0 : -st_log_of(probability);
        entropy += probability * key[i];
        if (probability >= 0x1p-1022) memory->order[candidates++] = (int32_t)i;
    }
    for (ptrdiff_t i = 0; i < count; i++) key[i] = -fabs(key[i] - entropy);
    return keep_greatest(memory, count, candidates, typical_p * total);
}

/* The index at which the running sum, taken block by block, passes `random` of the total; if
 * rounding leaves none, the last one at which it rises. */
static ptrdiff_t pass(const st_kernels *kernels, const double *weight, ptrdiff_t count,
                      double random, double *sums)
{
    ptrdiff_t blocks = (count + BLOCK - 1) / BLOCK, block = 0;
    double mass = 0.0;
    for (ptrdiff_t b = 0; b < blocks; b++) {
        ptrdiff_t size = count - b * BLOCK < BLOCK ? count - b * BLOCK : BLOCK;
        mass += kernels->sum_weights(weight + b * BLOCK, size);
        sums[b] = mass;
    }
    double wanted = random * mass;
    while (block < blocks - 1 && sums[block] <= wanted) block++;
    while (block && sums[block] == sums[block - 1]) block--;
    wanted -= block ? sums[block - 1] : 0.0;
    ptrdiff_t last = block * BLOCK;
    mass = 0.0;
    for (ptrdiff_t i = last; i < count && i < (block + 1) * BLOCK; i++) {
        if (weight[i] > 0.0) last = i;
        mass += weight[i];
        if (mass > wanted) return i;
    }
    return last;
}

ptrdiff_t st_draw(const st_kernels *kernels, const float *logits, ptrdiff_t size,
                  const st_choice *choice, st_draw_memory *memory)
{
    ptrdiff_t best = kernels->first_greatest(logits, size), count = size;
    double most = (double)logits[best];
    if (!isfinite(most)) return -1;
    if (choice->temperature == 0.0 || choice->top_k == 1) return best;
    if (choice->top_k > 0 && choice->top_k < size) {
        count = (ptrdiff_t)choice->top_k;
        most_likely(kernels, logits, size, count, memory);
        for (ptrdiff_t i = 0; i < count; i++) memory->value[i] = logits[memory->index[i]];
        logits = memory->value;
    }
    kernels->weigh(logits, count, most, choice->temperature, memory->weight);
    if (count == size) {
        if (choice->top_p == 1.0 && choice->min_p == 0.0 && choice->typical_p == 1.0)
            return pass(kernels, memory->weight, count, choice->random, memory->key);
        for (ptrdiff_t i = 0; i < size; i++) memory->index[i] = (int32_t)i;
    }
    if (choice->top_p != 1.0) count = nucleus(kernels, memory, count, choice->top_p);
    if (choice->min_p != 0.0) count = near_the_likeliest(memory, count, choice->min_p);
    if (choice->typical_p != 1.0) count = typical(kernels, memory, count, choice->typical_p);
    return memory->index[pass(kernels, memory->weight, count, choice->random, memory->key)];
}
