"""A whole decoder of gated linear and window attention: tokens in, logits out, without the GIL and
on all of its threads.

The arithmetic is that of the kernels in attention and products; results do not depend on the number
of threads, on which sequences step together, or on how a run of tokens is cut.
"""

from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t
from libc.stdlib cimport calloc
from libc.string cimport memset

import numpy as np

from spiketrain.runtime.kernels.checks cimport check_size
from spiketrain.runtime.kernels.dispatch cimport current, st_kernels
from spiketrain.runtime.kernels.products cimport (
    ST_BFLOAT16,
    ST_FLOAT32,
    ST_INT4,
    ST_INT8,
    Dense,
    Sparse,
    st_dense,
    st_pool,
    st_sparse,
)
from spiketrain.runtime.kernels.runner cimport Runner, st_record

from spiketrain.runtime.kernels.runner import WORK_COUNTERS

cdef extern from "decoder.h" nogil:
    enum:
        ST_BLOCK_TOKENS
        ST_ENTRY_TOKENS
        ST_CACHE_FLOAT32
        ST_CACHE_BFLOAT16
        ST_CACHE_INT8
        ST_GATE_LOW_RANK
        ST_GATE_MERGED
        ST_GATE_TIED

    st_pool *st_pool_new(int threads)
    void st_pool_free(st_pool *pool)

    ctypedef struct st_work:
        pass

    ctypedef struct st_sequence_work:
        pass

    ctypedef struct st_linear:
        int by_rows, matrices
        st_dense dense
        st_sparse sparse
        const float *bias

    ctypedef struct st_place:
        int spiking
        float k, dead_zone
        int values, codes, events

    ctypedef struct st_expert:
        st_linear gate, up, down

    ctypedef struct st_layer:
        int linear, window, gate, low_rank
        const float *attn_norm
        const float *mlp_norm
        const float *q_norm
        const float *k_norm
        const float *g_norm
        const float *w_norm
        st_place attn_place, o_place, mlp_place, down_place
        st_linear q, k, v, o, decay_in, decay, joined
        Py_ssize_t joined_outputs
        Py_ssize_t state, keys, values, key_scales, value_scales, tiles
        int64_t visible
        const float *sink_keys
        const float *sink_values
        Py_ssize_t sinks, experts, shared, inner
        st_linear router
        st_expert *expert
        st_work *attn_work
        st_work *mlp_work

    ctypedef struct st_decoder:
        const st_kernels *kernels
        st_pool *pool
        float epsilon, normalizer
        int sigmoid, cache, attention_spikes
        float attention_k
        Py_ssize_t width, heads, shared_heads, size, inner, rank, vocabulary, layers, most_experts
        st_layer *layer
        const float *last_norm
        int embedding_format
        const void *embedding
        const float *embedding_scale
        Py_ssize_t embedding_stride
        st_place head_place
        st_linear head
        st_work *head_work
        const double *rates
        int event_format
        float most_k
        Py_ssize_t dial
        st_record record

    int st_decoder_prepare(st_decoder *network)
    void st_decoder_release(st_decoder *network)
    void st_decoder_run(
        st_decoder *network, uint8_t *const *state, const int64_t *token, Py_ssize_t tokens,
        int scan, int want, float *logits, st_sequence_work *sequence
    )

COUNTERS = (*WORK_COUNTERS, "acs_effective")
MAX_TOKENS = ST_BLOCK_TOKENS
ENTRY_TOKENS = ST_ENTRY_TOKENS
CACHES = {"float32": ST_CACHE_FLOAT32, "bfloat16": ST_CACHE_BFLOAT16, "int8": ST_CACHE_INT8}
GATES = {"low_rank": ST_GATE_LOW_RANK, "merged": ST_GATE_MERGED, "tied": ST_GATE_TIED}


cdef void one_pass(
    void *network, void *const *state, const int64_t *token, Py_ssize_t tokens, int scan, int want,
    float *logits, void *activity
) noexcept nogil:
    st_decoder_run(
        <st_decoder *>network, <uint8_t *const *>state, token, tokens, scan, want, logits,
        <st_sequence_work *>activity
    )


cdef class Network(Runner):
    """The compiled network. Calls on one network must not overlap.

    shape: an object as spiketrain.runtime.families.spikingbrain.Shape; embedding: (rows (V, D), scale (V,) or
    None), bfloat16 as uint16; last_norm (D,); layers: objects as
    spiketrain.runtime.families.spikingbrain.Layer; head: a Product; state_bytes: of a state.
    """

    cdef st_decoder network
    cdef readonly object counters

    def __cinit__(self):
        memset(&self.network, 0, sizeof(st_decoder))

    def __init__(self, shape, embedding, last_norm, layers, head, state_bytes, threads):
        self.state_bytes = state_bytes
        self._set_shape(shape)
        self._set_embedding(embedding[0], embedding[1])
        self.network.last_norm = self._floats(last_norm, self.network.width)
        self._set_layers(layers)
        self.network.head_place = self._place(None, [head])
        self._set_linear(&self.network.head, head, self.network.width, self.network.vocabulary)
        self.network.pool = st_pool_new(threads)
        if self.network.pool == NULL or st_decoder_prepare(&self.network):
            raise MemoryError("network scratch")
        self.records = &self.network.record
        self._runs(
            one_pass, &self.network, ST_BLOCK_TOKENS, self.network.vocabulary, state_bytes,
            sizeof(int64_t)
        )

    def __dealloc__(self):
        with nogil:
            st_decoder_release(&self.network)
            st_pool_free(self.network.pool)

    cdef void _set_shape(self, shape) except *:
        cdef st_decoder *n = &self.network
        cdef const double[::1] rates = shape.rates
        n.kernels = current()
        n.epsilon, n.normalizer = shape.norm_eps, shape.gate_logit_normalizer
        n.sigmoid = shape.feature_map == "sigmoid"
        n.cache = CACHES[shape.window_cache]
        n.attention_spikes, n.attention_k = shape.attention_spikes, 3.0
        n.width, n.heads, n.shared_heads = shape.width, shape.heads, shape.shared_heads
        n.size, n.inner, n.rank = shape.head_dim, shape.inner, shape.gate_rank
        n.most_experts = shape.most_experts
        n.most_k = shape.most_k
        n.dial = self._within(shape.dial, sizeof(float)) if shape.dial else 0
        n.event_format = ST_INT8
        check_size("rates", rates.shape[0], n.size // 2)
        n.rates = &rates[0]
        self.keep.append(rates)

    cdef void _set_embedding(self, rows, scale) except *:
        cdef st_decoder *n = &self.network
        cdef const int8_t[:, :] codes
        cdef const uint16_t[:, :] halves
        cdef const float[:, :] floats
        n.vocabulary = rows.shape[0]
        n.embedding_stride = rows.strides[0] // rows.itemsize
        check_size("embedding column stride", rows.strides[1], rows.itemsize)
        check_size("embedding columns", rows.shape[1], n.width)
        if rows.dtype == np.int8:
            codes = rows
            n.embedding, n.embedding_format = &codes[0, 0], ST_INT8
            n.embedding_scale = self._floats(scale, rows.shape[0])
        elif rows.dtype == np.uint16:
            halves = rows
            n.embedding, n.embedding_format = &halves[0, 0], ST_BFLOAT16
        else:
            floats = rows
            n.embedding, n.embedding_format = &floats[0, 0], ST_FLOAT32
        self.keep.append(rows)

    cdef void _set_layers(self, layers) except *:
        cdef Py_ssize_t i, count = len(layers)
        cdef int64_t[:, ::1] counters
        cdef st_layer *layer
        self.counters = counters = np.zeros((2 * count + 1, len(COUNTERS)), np.int64)
        self.network.layer = <st_layer *>calloc(count, sizeof(st_layer))
        if self.network.layer == NULL:
            raise MemoryError("layers")
        self.network.layers = count
        self.network.head_work = <st_work *>&counters[2 * count, 0]
        for i, given in enumerate(layers):
            layer = &self.network.layer[i]
            layer.attn_work = <st_work *>&counters[2 * i, 0]
            layer.mlp_work = <st_work *>&counters[2 * i + 1, 0]
            layer.attn_norm = self._floats(given.attn_norm, self.network.width)
            layer.mlp_norm = self._floats(given.mlp_norm, self.network.width)
            self._set_attention(layer, given)
            self._set_feed(layer, given)

    cdef void _set_attention(self, st_layer *layer, given) except *:
        cdef st_decoder *n = &self.network
        cdef Py_ssize_t narrow = n.shared_heads * n.size, wide = n.heads * n.size
        cdef const float[:, :, :, ::1] keys, values
        layer.linear, layer.window = given.linear, given.window
        layer.gate = GATES[given.gate]
        readers = [given.q, given.k, given.v] if given.joined is None else [given.joined]
        if given.decay_in is not None:
            readers.append(given.decay_in)
        elif given.decay is not None:
            readers.append(given.decay)
        layer.attn_place = self._place(given.attn_spikes, readers)
        layer.o_place = self._place(given.o_spikes, [given.o])
        if given.joined is not None:
            merged = given.linear and given.gate == "merged"
            layer.joined_outputs = wide + (3 if merged else 2) * narrow
            self._set_linear(&layer.joined, given.joined, n.width, layer.joined_outputs)
        else:
            self._set_linear(&layer.q, given.q, n.width, wide)
            self._set_linear(&layer.k, given.k, n.width, narrow)
            self._set_linear(&layer.v, given.v, n.width, narrow)
        self._set_linear(&layer.o, given.o, wide, n.width)
        if given.decay_in is not None:
            self._set_linear(&layer.decay_in, given.decay_in, n.width, n.rank)
            self._set_linear(&layer.decay, given.decay, n.rank, narrow)
        elif given.decay is not None:
            self._set_linear(&layer.decay, given.decay, n.width, narrow)
        layer.q_norm = self._floats(given.q_norm, n.size) if given.q_norm is not None else NULL
        layer.k_norm = self._floats(given.k_norm, n.size) if given.k_norm is not None else NULL
        if layer.linear:
            layer.g_norm = self._floats(given.g_norm, n.size)
            layer.state = self._within(given.state, 4 * narrow * n.size)
        if layer.linear and layer.window:
            layer.w_norm = self._floats(given.w_norm, n.size)
        if layer.window:
            layer.tiles, layer.visible = given.tiles, given.visible
            if not 1 <= layer.visible <= layer.tiles * 64 - ST_ENTRY_TOKENS + 1:
                raise ValueError(
                    f"{layer.tiles} tiles must hold {layer.visible} keys and {ST_ENTRY_TOKENS} more"
                )
            item = (4, 2, 1)[n.cache]
            layer.keys = self._within(given.keys, given.tiles * 64 * narrow * item)
            layer.values = self._within(given.values, given.tiles * 64 * narrow * item)
            if n.cache == ST_CACHE_INT8:
                scales = given.tiles * 64 * n.shared_heads * 4
                layer.key_scales = self._within(given.key_scales, scales)
                layer.value_scales = self._within(given.value_scales, scales)
            if given.sinks:
                keys, values = given.sink_keys, given.sink_values
                check_size("sink keys", keys.shape[1] * 64, (given.sinks + 63) // 64 * 64)
                layer.sinks = given.sinks
                layer.sink_keys, layer.sink_values = &keys[0, 0, 0, 0], &values[0, 0, 0, 0]
                self.keep.append((keys, values))

    cdef void _set_feed(self, st_layer *layer, given) except *:
        cdef Py_ssize_t e, width = self.network.width, inner = given.inner
        layer.experts, layer.shared, layer.inner = given.routed, given.shared, inner
        check_size("experts", len(given.experts), max(given.routed + given.shared, 1))
        if given.routed:
            self._set_linear(&layer.router, given.router, width, given.routed)
        layer.mlp_place = self._place(given.mlp_spikes, [expert.gate for expert in given.experts])
        layer.down_place = self._place(given.down_spikes, [expert.down for expert in given.experts])
        layer.expert = <st_expert *>calloc(len(given.experts), sizeof(st_expert))
        if layer.expert == NULL:
            raise MemoryError("experts")
        for e, expert in enumerate(given.experts):
            self._set_linear(&layer.expert[e].gate, expert.gate, width, inner)
            self._set_linear(&layer.expert[e].up, expert.up, width, inner)
            self._set_linear(&layer.expert[e].down, expert.down, inner, width)

    cdef st_place _place(self, spikes, readers) except *:
        """spikes: (k, dead zone), or None; readers: the products that read here."""
        cdef st_place place
        cdef Dense dense
        memset(&place, 0, sizeof(st_place))
        if spikes is not None:
            place.spiking = True
            place.k, place.dead_zone = spikes
        for product in readers:
            if isinstance(product.matrix, Sparse):
                place.events = True
                if not place.spiking:
                    raise ValueError("a matrix read by rows must read spikes")
                continue
            dense = product.matrix
            if dense.matrix.format in (ST_FLOAT32, ST_BFLOAT16):
                place.values = True
            elif place.spiking:
                raise ValueError("a matrix read as a whole must not have integer codes for spikes")
            else:
                place.codes = True
        return place

    cdef void _set_linear(
        self, st_linear *linear, product, Py_ssize_t inputs, Py_ssize_t outputs
    ) except *:
        cdef Dense dense
        cdef Sparse sparse
        linear.matrices = product.matrices
        if isinstance(product.matrix, Sparse):
            sparse = product.matrix
            linear.by_rows, linear.sparse = True, sparse.matrix
            check_size("matrix inputs", sparse.matrix.rows, inputs)
            check_size("matrix outputs", sparse.matrix.cols, outputs)
            if sparse.matrix.format == ST_INT4:
                self.network.event_format = ST_INT4
        else:
            dense = product.matrix
            linear.dense = dense.matrix
            check_size("matrix inputs", dense.matrix.inputs, inputs)
            check_size("matrix outputs", dense.matrix.outputs, outputs)
        if product.bias is not None:
            linear.bias = self._floats(product.bias, outputs)
        self.keep.append(product.matrix)

    cdef Py_ssize_t _within(self, Py_ssize_t at, Py_ssize_t size) except -1:
        if not 8 <= at <= self.state_bytes - size:
            raise ValueError(f"places must lie in a state of {self.state_bytes}, got {at}")
        return at
