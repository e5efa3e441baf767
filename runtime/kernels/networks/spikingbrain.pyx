"""A whole SpikingBrain network: tokens in, logits out, without the GIL and on all of its threads.

The arithmetic is that of the kernels in vectors and products; results do not depend on the number
of threads, on which sequences step together, or on how a run of tokens is cut.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc
from libc.string cimport memset

from spiketrain.runtime.kernels.isa.checks cimport check_size
from spiketrain.runtime.kernels.isa.dispatch cimport (
    ST_INT4, ST_INT8, st_dense, st_is_float, st_rows,
)
from spiketrain.runtime.kernels.networks.core cimport Core, st_core, st_counters, st_pass
from spiketrain.runtime.kernels.products.dense cimport Dense
from spiketrain.runtime.kernels.products.events cimport Sparse

import spiketrain.runtime.kernels.networks.core as core

cdef extern from "spikingbrain.h" nogil:
    enum:
        ST_BLOCK_TOKENS
        ST_ENTRY_TOKENS
        ST_CACHE_FLOAT32
        ST_CACHE_BFLOAT16
        ST_CACHE_INT8
        ST_GATE_LOW_RANK
        ST_GATE_MERGED
        ST_GATE_TIED

    ctypedef struct st_linear:
        int by_rows, matrices
        st_dense dense
        st_rows rows
        const float *bias

    ctypedef struct st_site:
        int spiking
        float k, dead_zone
        int values, codes, events

    ctypedef struct st_expert:
        st_linear gate, up, down

    ctypedef struct st_layer:
        int linear, window, gate
        const float *attn_norm
        const float *mlp_norm
        const float *q_norm
        const float *k_norm
        const float *g_norm
        const float *w_norm
        st_site attn_site, o_site, mlp_site, down_site
        st_linear q, k, v, o, decay_in, decay, joined
        Py_ssize_t joined_outputs
        Py_ssize_t state, keys, values, key_scales, value_scales, tiles
        int64_t visible
        const float *sink_keys
        const float *sink_values
        Py_ssize_t sinks, experts, shared, inner
        st_linear router
        st_expert *expert
        st_counters *attn_counters
        st_counters *mlp_counters

    ctypedef struct st_spikingbrain:
        st_core core
        float epsilon, normalizer
        int sigmoid, cache, attention_spikes
        float attention_k
        Py_ssize_t heads, kv_heads, size, inner, rank, layers, max_experts
        st_layer *layer
        const float *last_norm
        st_site head_site
        st_linear head
        const double *rates
        int event_format
        float max_k

    int st_spikingbrain_prepare(st_spikingbrain *network)
    void st_spikingbrain_free(st_spikingbrain *network)
    void st_spikingbrain_run(
        const st_pass *network_pass, const int64_t *token, int want, float *logits
    )

COUNTERS = core.COUNTERS
MAX_TOKENS = ST_BLOCK_TOKENS
ENTRY_TOKENS = ST_ENTRY_TOKENS
CACHES = {"float32": ST_CACHE_FLOAT32, "bfloat16": ST_CACHE_BFLOAT16, "int8": ST_CACHE_INT8}
GATES = {"low_rank": ST_GATE_LOW_RANK, "merged": ST_GATE_MERGED, "tied": ST_GATE_TIED}


cdef class Network(Core):
    """The compiled network. Calls on one network must not overlap.

    shape: an object as families.spikingbrain.Shape; embedding: (rows (V, D), scale (V,) or
    None), bfloat16 as uint16; last_norm (D,); layers: objects as
    families.spikingbrain.Layer; head: a Product; state_bytes: of a state.
    """

    cdef st_spikingbrain network

    def __cinit__(self):
        memset(&self.network, 0, sizeof(st_spikingbrain))

    def __init__(self, shape, embedding, last_norm, layers, head, state_bytes, threads):
        self._set_core(&self.network.core, st_spikingbrain_run, ST_BLOCK_TOKENS, threads)
        self._set_state(state_bytes, sizeof(int64_t))
        self._set_embedding(embedding[0], embedding[1], shape.width)
        self._set_shape(shape)
        self.network.last_norm = self._floats(last_norm, shape.width)
        self._set_layers(layers)
        self.network.head_site = self._site(None, [head])
        self._set_linear(&self.network.head, head, shape.width, self.network.core.vocabulary)
        if st_spikingbrain_prepare(&self.network):
            raise MemoryError("network scratch")
        self.records = True

    def __dealloc__(self):
        with nogil:
            st_spikingbrain_free(&self.network)

    cdef void _set_shape(self, shape) except *:
        cdef st_spikingbrain *n = &self.network
        cdef const double[::1] rates = shape.rates
        n.epsilon, n.normalizer = shape.norm_eps, shape.gate_logit_normalizer
        n.sigmoid = shape.feature_map == "sigmoid"
        n.cache = CACHES[shape.window_cache]
        n.attention_spikes, n.attention_k = shape.attention_spikes, 3.0
        n.heads, n.kv_heads = shape.heads, shape.kv_heads
        n.size, n.inner, n.rank = shape.head_dim, shape.inner, shape.gate_rank
        n.max_experts = shape.max_experts
        n.max_k = shape.max_k
        if shape.dial:
            n.core.dial = self._offset(shape.dial, sizeof(float))
        n.event_format = ST_INT8
        check_size("rates", rates.shape[0], n.size // 2)
        n.rates = &rates[0]
        self.keep.append(rates)

    cdef void _set_layers(self, layers) except *:
        cdef Py_ssize_t i, count = len(layers)
        cdef st_layer *layer
        self._set_counters(2 * count + 1)
        self.network.layer = <st_layer *>calloc(count, sizeof(st_layer))
        if self.network.layer == NULL:
            raise MemoryError("layers")
        self.network.layers = count
        for i, source in enumerate(layers):
            layer = &self.network.layer[i]
            layer.attn_counters, layer.mlp_counters = self._part(2 * i), self._part(2 * i + 1)
            layer.attn_norm = self._floats(source.attn_norm, self.network.core.width)
            layer.mlp_norm = self._floats(source.mlp_norm, self.network.core.width)
            self._set_attention(layer, source)
            self._set_feed(layer, source)

    cdef void _set_attention(self, st_layer *layer, source) except *:
        cdef st_spikingbrain *n = &self.network
        cdef Py_ssize_t narrow = n.kv_heads * n.size, wide = n.heads * n.size
        cdef const float[:, :, :, ::1] keys, values
        layer.linear, layer.window = source.linear, source.window
        layer.gate = GATES[source.gate]
        readers = [source.q, source.k, source.v] if source.joined is None else [source.joined]
        if source.decay_in is not None:
            readers.append(source.decay_in)
        elif source.decay is not None:
            readers.append(source.decay)
        layer.attn_site = self._site(source.attn_spikes, readers)
        layer.o_site = self._site(source.o_spikes, [source.o])
        if source.joined is not None:
            merged = source.linear and source.gate == "merged"
            layer.joined_outputs = wide + (3 if merged else 2) * narrow
            self._set_linear(&layer.joined, source.joined, n.core.width, layer.joined_outputs)
        else:
            self._set_linear(&layer.q, source.q, n.core.width, wide)
            self._set_linear(&layer.k, source.k, n.core.width, narrow)
            self._set_linear(&layer.v, source.v, n.core.width, narrow)
        self._set_linear(&layer.o, source.o, wide, n.core.width)
        if source.decay_in is not None:
            self._set_linear(&layer.decay_in, source.decay_in, n.core.width, n.rank)
            self._set_linear(&layer.decay, source.decay, n.rank, narrow)
        elif source.decay is not None:
            self._set_linear(&layer.decay, source.decay, n.core.width, narrow)
        layer.q_norm = self._optional(source.q_norm, n.size)
        layer.k_norm = self._optional(source.k_norm, n.size)
        if layer.linear:
            layer.g_norm = self._floats(source.g_norm, n.size)
            layer.state = self._offset(source.state, 4 * narrow * n.size)
        if layer.linear and layer.window:
            layer.w_norm = self._floats(source.w_norm, n.size)
        if layer.window:
            layer.tiles, layer.visible = source.tiles, source.visible
            if not 1 <= layer.visible <= layer.tiles * 64 - ST_ENTRY_TOKENS + 1:
                raise ValueError(
                    f"{layer.tiles} tiles must hold {layer.visible} keys and {ST_ENTRY_TOKENS} more"
                )
            item = (4, 2, 1)[n.cache]
            layer.keys = self._offset(source.keys, source.tiles * 64 * narrow * item)
            layer.values = self._offset(source.values, source.tiles * 64 * narrow * item)
            if n.cache == ST_CACHE_INT8:
                scales = source.tiles * 64 * n.kv_heads * 4
                layer.key_scales = self._offset(source.key_scales, scales)
                layer.value_scales = self._offset(source.value_scales, scales)
            if source.sinks:
                keys, values = source.sink_keys, source.sink_values
                check_size("sink keys", keys.shape[1] * 64, (source.sinks + 63) // 64 * 64)
                layer.sinks = source.sinks
                layer.sink_keys, layer.sink_values = &keys[0, 0, 0, 0], &values[0, 0, 0, 0]
                self.keep.append((keys, values))

    cdef void _set_feed(self, st_layer *layer, source) except *:
        cdef Py_ssize_t e, width = self.network.core.width, inner = source.inner
        layer.experts, layer.shared, layer.inner = source.routed, source.shared, inner
        check_size("experts", len(source.experts), max(source.routed + source.shared, 1))
        if source.routed:
            self._set_linear(&layer.router, source.router, width, source.routed)
        layer.mlp_site = self._site(source.mlp_spikes, [expert.gate for expert in source.experts])
        layer.down_site = self._site(source.down_spikes, [expert.down for expert in source.experts])
        layer.expert = <st_expert *>calloc(len(source.experts), sizeof(st_expert))
        if layer.expert == NULL:
            raise MemoryError("experts")
        for e, expert in enumerate(source.experts):
            self._set_linear(&layer.expert[e].gate, expert.gate, width, inner)
            self._set_linear(&layer.expert[e].up, expert.up, width, inner)
            self._set_linear(&layer.expert[e].down, expert.down, inner, width)

    cdef st_site _site(self, spikes, readers) except *:
        """spikes: (k, dead zone), or None; readers: the products that read here."""
        cdef st_site site
        cdef Dense dense
        memset(&site, 0, sizeof(st_site))
        if spikes is not None:
            site.spiking = True
            site.k, site.dead_zone = spikes
        for product in readers:
            if isinstance(product.matrix, Sparse):
                site.events = True
                if not site.spiking:
                    raise ValueError("a matrix read by rows must read spikes")
                continue
            dense = product.matrix
            if st_is_float(dense.matrix.format):
                site.values = True
            elif site.spiking:
                raise ValueError("a matrix read as a whole must not have integer codes for spikes")
            else:
                site.codes = True
        return site

    cdef void _set_linear(
        self, st_linear *linear, product, Py_ssize_t inputs, Py_ssize_t outputs
    ) except *:
        linear.matrices = product.matrices
        if isinstance(product.matrix, Sparse):
            linear.by_rows, linear.rows = True, self._rows(product.matrix, inputs, outputs)
            if linear.rows.format == ST_INT4:
                self.network.event_format = ST_INT4
        else:
            linear.dense = self._dense(product.matrix, inputs, outputs)
        linear.bias = self._optional(product.bias, outputs)
