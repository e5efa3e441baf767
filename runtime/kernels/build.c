/* One instruction-set build of all kernels: compiled once per level with its own ST_BUILD. */
#include "kernels.h"

#include <string.h>

#include "functions.h"

#define ST_JOIN_(a, b) a##b
#define ST_JOIN(a, b) ST_JOIN_(a, b)
#define ST_TEXT_(a) #a
#define ST_TEXT(a) ST_TEXT_(a)
#define ST_MIN(a, b) ((a) < (b) ? (a) : (b))

/* Outputs whose accumulators a kernel holds at a time: 40 KB. Long pieces of rows stream best. */
#define ST_TILE 10240
/* Bytes of accumulators of all lanes of a dense product. */
#define ST_DENSE_BYTES 24576

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "elementwise.h"
#include "gather_floats.h"
#include "gather_int8.h"

#include "dense_float32.h"
#include "dense_int8.h"
#include "gather_shared.h"

#include "dense_int4.h"
#include "sparse_lists.h"
#include "sparse_rows.h"
#include "mixing.h"
#include "attention.h"
#include "drawing.h"
#include "softmax.h"

#include "sparse_int4.h"
#include "sparse_shared.h"
#include "sparse_groups.h"

const st_kernels ST_JOIN(st_kernels_, ST_BUILD) = {
    .name = ST_TEXT(ST_BUILD),
    .exp = exp_all,
    .sigmoid = sigmoid_all,
    .tanh = tanh_all,
    .list_float32 = list_float32,
    .list_int16 = list_int16,
    .gather_float32 = gather_float32,
    .gather_bfloat16 = gather_bfloat16,
    .gather_int8 = gather_int8,
    .gather_int8_shared = gather_all_int8,
    .dense_int8 = dense_int8,
    .quantise = quantise,
    .quantise_row = quantise_row,
    .multiply_float32 = multiply_float32,
    .multiply_bfloat16 = multiply_bfloat16,
    .multiply_int8 = multiply_int8,
    .multiply_int4 = multiply_int4,
    .list_squares_float32 = list_squares_float32,
    .list_squares = list_squares,
    .square_codes = square_codes,
    .list_counts = list_counts,
    .sparse_float32 = sparse_float32,
    .sparse_bfloat16 = sparse_bfloat16,
    .sparse_int8 = sparse_int8,
    .sparse_int4 = sparse_int4,
    .counts_int8 = counts_int8,
    .counts_int8_groups = counts_int8_groups,
    .counts_int4 = counts_int4,
    .sum_events = sum_events,
    .add_parts = add_parts,
    .sparse_shared = multiply_all_shared,
    .egru_float32 = egru_float32,
    .egru_int16 = egru_int16,
    .layer_norm = layer_norm,
    .token_shift = token_shift,
    .wkv = wkv,
    .lif = lif,
    .gate = gate,
    .square_relu = square_relu,
    .add_counts = add_counts,
    .add_vector = add_vector,
    .count_spikes = count_spikes,
    .rms_norm = rms_norm,
    .rotate = rotate,
    .silu_product = silu_product,
    .decay = decay_all,
    .relu = relu,
    .spike_values = spike_values,
    .spike_list = spike_list,
    .gla = gla,
    .window_tile = window_tile,
    .widen_bfloat16 = widen_bfloat16,
    .widen_keys = widen_keys,
    .widen_values = widen_values,
    .first_greatest = first_greatest,
    .group_maxima = group_maxima,
    .weigh = weigh,
    .sum_weights = sum_weights,
    .softmax = softmax,
    .nats = nats,
};
