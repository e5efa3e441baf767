"""A whole SpikeGPT network, or an RWKV-4: tokens in, logits out, without the GIL and on all of its
threads.

The arithmetic is that of the kernels in vectors and products; results do not depend on the number
of threads, on which sequences step together, or on how a run of tokens is cut.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc
from libc.string cimport memset

from spiketrain.runtime.kernels.isa.checks cimport check_size
from spiketrain.runtime.kernels.isa.dispatch cimport st_dense, st_rows
from spiketrain.runtime.kernels.networks.core cimport Core, st_core, st_counters, st_pass

import spiketrain.runtime.kernels.networks.core as core

cdef extern from "spikegpt.h" nogil:
    enum:
        ST_MAX_TOKENS
        ST_ON_RESIDUAL
        ST_BEFORE_PROJECTIONS
        ST_NOWHERE
        ST_TIME_MIX
        ST_CHANNEL_MIX

    ctypedef struct st_norm:
        const float *weight
        const float *bias

    ctypedef struct st_sublayer:
        int kind
        st_norm norm
        const float *mix[3]
        st_dense matrix[3]
        st_rows fused
        st_dense output
        st_rows value
        const float *decay
        const float *bonus
        const float *threshold
        const float *scale
        float input_scale, value_scale
        Py_ssize_t shift, recurrence, membrane
        st_counters *counters
        st_counters *value_counters

    ctypedef struct st_spikegpt:
        st_core core
        int position
        float tau, epsilon
        Py_ssize_t inner, sublayers
        st_sublayer *sublayer
        st_norm first_norm, last_norm
        st_dense head
        st_rows spiking_head
        float head_scale
        int body_format, head_format

    int st_spikegpt_prepare(st_spikegpt *network)
    void st_spikegpt_free(st_spikegpt *network)
    void st_spikegpt_run(
        const st_pass *network_pass, const int64_t *token, int want, float *logits
    )

COUNTERS = core.COUNTERS
MAX_TOKENS = ST_MAX_TOKENS
POSITIONS = {
    "residual": ST_ON_RESIDUAL,
    "projections": ST_BEFORE_PROJECTIONS,
    "none": ST_NOWHERE,
}


cdef class Network(Core):
    """The compiled network. Calls on one network must not overlap.

    position: where neurons sit, see POSITIONS; tau of the membranes; epsilon of the norms;
    embedding: (rows (V, C) float32 or bits of bfloat16, None), (codes (V, C) int8, scale (V,)) or
    (bits (V, ceil(C / 8)) uint8, None); first_norm, last_norm: (weight (C,), bias (C,));
    sublayers: objects as families.spikegpt.Sublayer; head: Dense, or Sparse before
    projections; head_scale: of the head's adaptive threshold; state_size: floats in a state; dial:
    its offset there in floats, None for a dial of 1.
    """

    cdef st_spikegpt network

    def __cinit__(self):
        memset(&self.network, 0, sizeof(st_spikegpt))

    def __init__(
        self, position, tau, epsilon, embedding, first_norm, last_norm, sublayers, head,
        head_scale, state_size, dial, threads
    ):
        self._set_core(&self.network.core, st_spikegpt_run, ST_MAX_TOKENS, threads)
        self._set_state(sizeof(float) * state_size, sizeof(float))
        self._set_embedding(embedding[0], embedding[1], first_norm[0].shape[0])
        self.network.position = POSITIONS[position]
        self.network.tau, self.network.epsilon = tau, epsilon
        if dial is not None:
            self.network.core.dial = self._offset(4 * dial, sizeof(float))
        self.network.first_norm = self._norm(first_norm)
        self.network.last_norm = self._norm(last_norm)
        self._set_head(head, head_scale)
        self._set_sublayers(sublayers)
        if st_spikegpt_prepare(&self.network):
            raise MemoryError("network scratch")
        self.records = True

    def __dealloc__(self):
        with nogil:
            st_spikegpt_free(&self.network)

    cdef void _set_head(self, head, scale) except *:
        if self.network.position == ST_BEFORE_PROJECTIONS:
            self.network.spiking_head = self._rows(
                head, self.network.core.width, self.network.core.vocabulary
            )
            self.network.head_format = self.network.spiking_head.format
            self.network.head_scale = scale
        else:
            self.network.head = self._dense(
                head, self.network.core.width, self.network.core.vocabulary
            )
            self.network.head_format = self.network.head.format

    cdef void _set_sublayers(self, sublayers) except *:
        cdef Py_ssize_t i, part = 0
        cdef st_sublayer *sublayer
        self._set_counters(1 + sum(2 if s.kind == "channel" else 1 for s in sublayers))
        self.network.sublayers = len(sublayers)
        self.network.sublayer = <st_sublayer *>calloc(len(sublayers), sizeof(st_sublayer))
        if self.network.sublayer == NULL:
            raise MemoryError("sublayers")
        for i, source in enumerate(sublayers):
            sublayer = &self.network.sublayer[i]
            sublayer.kind = ST_TIME_MIX if source.kind == "time" else ST_CHANNEL_MIX
            sublayer.counters = self._part(part)
            part += 1
            if sublayer.kind == ST_CHANNEL_MIX:
                sublayer.value_counters = self._part(part)
                part += 1
            self._set_sublayer(sublayer, source)

    cdef void _set_sublayer(self, st_sublayer *sublayer, source) except *:
        cdef Py_ssize_t width = self.network.core.width
        sublayer.norm = self._norm(source.norm)
        sublayer.shift = self._floats_at(source.shift, width)
        for i, mix in enumerate(source.mix):
            sublayer.mix[i] = self._floats(mix, width)
        if sublayer.kind == ST_TIME_MIX:
            sublayer.decay = self._floats(source.decay, width)
            sublayer.bonus = self._floats(source.bonus, width)
            sublayer.recurrence = self._floats_at(source.recurrence, 3 * width)
        else:
            self.network.inner = source.inner
        if self.network.position == ST_ON_RESIDUAL:
            sublayer.threshold = self._floats(source.threshold, width)
            sublayer.scale = self._floats(source.scale, width)
            sublayer.membrane = self._floats_at(source.membrane, width)
        self._set_matrices(sublayer, source)

    cdef void _set_matrices(self, st_sublayer *sublayer, source) except *:
        cdef Py_ssize_t width = self.network.core.width, inner = source.inner
        sizes = [width] * 3 if sublayer.kind == ST_TIME_MIX else [inner, width]
        rows = width if sublayer.kind == ST_TIME_MIX else inner
        if self.network.position == ST_BEFORE_PROJECTIONS:
            check_size("mixes", len(source.mix), 1)
            sublayer.input_scale = source.input_scale
            sublayer.value_scale = source.value_scale
            sublayer.fused = self._rows(source.fused, width, sum(sizes))
            sublayer.value = self._rows(source.value, rows, width)
            self.network.body_format = sublayer.fused.format
            return
        check_size("mixes", len(source.mix), len(sizes))
        check_size("matrices", len(source.matrices), len(sizes))
        for i, size in enumerate(sizes):
            sublayer.matrix[i] = self._dense(source.matrices[i], width, size)
        if sublayer.kind == ST_TIME_MIX:
            sublayer.output = self._dense(source.output, width, width)
        else:
            sublayer.value = self._rows(source.value, inner, width)
        self.network.body_format = sublayer.matrix[0].format

    cdef st_norm _norm(self, pair) except *:
        cdef st_norm norm
        norm.weight = self._floats(pair[0], self.network.core.width)
        norm.bias = self._floats(pair[1], self.network.core.width)
        return norm

    cdef Py_ssize_t _floats_at(self, Py_ssize_t at, Py_ssize_t size) except -1:
        """An offset of `size` floats in a state, in floats."""
        return self._offset(4 * at, 4 * size) // 4
