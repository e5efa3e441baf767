"""A whole RWKV-4 network with spiking neurons: tokens in, logits out, without the GIL and on all of
its threads.

The arithmetic is that of the kernels in mixers and products; results do not depend on the number of
threads, on which sequences step together, or on how a run of tokens is cut.
"""

from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

import numpy as np

from spiketrain.runtime.kernels.checks cimport check_size
from spiketrain.runtime.kernels.dispatch cimport current, st_kernels
from spiketrain.runtime.kernels.products cimport Dense, Sparse, st_dense, st_pool, st_sparse
from spiketrain.runtime.kernels.runner cimport Runner, st_record

from spiketrain.runtime.kernels.runner import WORK_COUNTERS

cdef extern from "rwkv.h" nogil:
    enum:
        ST_MAX_TOKENS
        ST_ON_RESIDUAL
        ST_BEFORE_PROJECTIONS
        ST_NOWHERE
        ST_TIME_MIX
        ST_CHANNEL_MIX

    st_pool *st_pool_new(int threads)
    void st_pool_free(st_pool *pool)

    ctypedef struct st_norm:
        const float *weight
        const float *bias

    ctypedef struct st_work:
        pass

    ctypedef struct st_sequence_work:
        pass

    ctypedef struct st_half:
        int kind
        st_norm norm
        const float *mix[3]
        st_dense matrix[3]
        st_sparse fused
        st_dense output
        st_sparse value
        const float *decay
        const float *bonus
        const float *threshold
        const float *scale
        float input_scale, value_scale
        Py_ssize_t shift, recurrence, membrane
        st_work *work
        st_work *value_work

    ctypedef struct st_rwkv:
        st_record record
        const st_kernels *kernels
        st_pool *pool
        int position
        float tau, epsilon
        Py_ssize_t width, inner, vocabulary, halves
        st_half *half
        st_norm first_norm, last_norm
        const uint8_t *embedding_bits
        const int8_t *embedding_codes
        const uint16_t *embedding_halves
        const float *embedding_scale
        const float *embedding
        Py_ssize_t embedding_stride
        st_dense head
        st_sparse spiked_head
        float head_scale
        st_work *head_work
        int body_format, head_format
        Py_ssize_t dial

    int st_rwkv_prepare(st_rwkv *network)
    void st_rwkv_release(st_rwkv *network)
    void st_rwkv_run(
        st_rwkv *network, float *const *state, const int64_t *token, Py_ssize_t tokens, int scan,
        int want, float *logits, st_sequence_work *sequence
    )

COUNTERS = (*WORK_COUNTERS, "acs_effective")
MAX_TOKENS = ST_MAX_TOKENS
POSITIONS = {
    "residual": ST_ON_RESIDUAL,
    "projections": ST_BEFORE_PROJECTIONS,
    "none": ST_NOWHERE,
}


cdef void one_pass(
    void *network, void *const *state, const int64_t *token, Py_ssize_t tokens, int scan, int want,
    float *logits, void *activity
) noexcept nogil:
    st_rwkv_run(
        <st_rwkv *>network, <float *const *>state, token, tokens, scan, want, logits,
        <st_sequence_work *>activity
    )


cdef class Network(Runner):
    """The compiled network. Calls on one network must not overlap.

    position: where neurons sit, see POSITIONS; tau of the membranes; epsilon of the norms;
    embedding: (rows (V, C) float32 or bits of bfloat16, None), (codes (V, C) int8, scale (V,)) or
    (bits (V, ceil(C / 8)) uint8, None); first_norm, last_norm: (weight (C,), bias (C,));
    halves: objects as spiketrain.runtime.families.spikegpt.Half; head: Dense, or Sparse before projections;
    head_scale: of the head's adaptive threshold; state_size: floats in a state; dial: its place
    there, None for a dial of 1.
    """

    cdef st_rwkv network
    cdef Py_ssize_t state_size
    cdef readonly object counters

    def __cinit__(self):
        memset(&self.network, 0, sizeof(st_rwkv))

    def __init__(
        self, position, tau, epsilon, embedding, first_norm, last_norm, halves, head, head_scale,
        state_size, dial, threads
    ):
        self.network.kernels = current()
        self.network.position = POSITIONS[position]
        self.network.tau = tau
        self.network.epsilon = epsilon
        self.network.width = first_norm[0].shape[0]
        self.state_size = state_size
        self.network.dial = -1 if dial is None else self._place(dial, 1)
        self.network.first_norm = self._norm(first_norm)
        self.network.last_norm = self._norm(last_norm)
        self._set_embedding(embedding[0], embedding[1])
        self._set_head(head, head_scale)
        self._set_halves(halves)
        self.network.pool = st_pool_new(threads)
        if self.network.pool == NULL or st_rwkv_prepare(&self.network):
            raise MemoryError("network scratch")
        self.records = &self.network.record
        self._runs(
            one_pass, &self.network, ST_MAX_TOKENS, self.network.vocabulary,
            sizeof(float) * self.state_size, sizeof(float)
        )

    def __dealloc__(self):
        with nogil:
            st_pool_free(self.network.pool)
            st_rwkv_release(&self.network)
        free(self.network.half)

    cdef void _set_embedding(self, rows, scale) except *:
        cdef const uint8_t[:, :] bits
        cdef const int8_t[:, :] codes
        cdef const uint16_t[:, :] brief
        cdef const float[:, :] floats
        width = self.network.width
        self.network.vocabulary = rows.shape[0]
        self.network.embedding_stride = rows.strides[0] // rows.itemsize
        check_size("embedding column stride", rows.strides[1], rows.itemsize)
        check_size(
            "embedding columns", rows.shape[1], -(-width // 8) if rows.dtype == np.uint8 else width
        )
        if rows.dtype == np.uint8:
            bits = rows
            self.network.embedding_bits = &bits[0, 0]
        elif rows.dtype == np.int8:
            codes = rows
            self.network.embedding_codes = &codes[0, 0]
            self.network.embedding_scale = self._floats(scale, rows.shape[0])
        elif rows.dtype == np.uint16:
            brief = rows
            self.network.embedding_halves = &brief[0, 0]
        else:
            floats = rows
            self.network.embedding = &floats[0, 0]
        self.keep.append(rows)

    cdef void _set_head(self, head, scale) except *:
        if self.network.position == ST_BEFORE_PROJECTIONS:
            self.network.spiked_head = self._sparse(
                head, self.network.width, self.network.vocabulary
            )
            self.network.head_format = self.network.spiked_head.format
            self.network.head_scale = scale
        else:
            self.network.head = self._dense(head, self.network.width, self.network.vocabulary)
            self.network.head_format = self.network.head.format

    cdef void _set_halves(self, halves) except *:
        cdef Py_ssize_t i, row = 0
        cdef int64_t[:, ::1] counters
        cdef st_half *half
        rows = 1 + sum(2 if given.kind == "channel" else 1 for given in halves)
        self.counters = counters = np.zeros((rows, len(COUNTERS)), np.int64)
        self.network.head_work = <st_work *>&counters[rows - 1, 0]
        self.network.halves = len(halves)
        self.network.half = <st_half *>calloc(len(halves), sizeof(st_half))
        if self.network.half == NULL:
            raise MemoryError("halves")
        for i, given in enumerate(halves):
            half = &self.network.half[i]
            half.kind = ST_TIME_MIX if given.kind == "time" else ST_CHANNEL_MIX
            half.work = <st_work *>&counters[row, 0]
            row += 1
            if half.kind == ST_CHANNEL_MIX:
                half.value_work = <st_work *>&counters[row, 0]
                row += 1
            self._set_half(half, given)

    cdef void _set_half(self, st_half *half, given) except *:
        cdef Py_ssize_t width = self.network.width
        half.norm = self._norm(given.norm)
        half.shift = self._place(given.shift, width)
        for i, mix in enumerate(given.mix):
            half.mix[i] = self._floats(mix, width)
        if half.kind == ST_TIME_MIX:
            half.decay = self._floats(given.decay, width)
            half.bonus = self._floats(given.bonus, width)
            half.recurrence = self._place(given.recurrence, 3 * width)
        else:
            self.network.inner = given.inner
        if self.network.position == ST_ON_RESIDUAL:
            half.threshold = self._floats(given.threshold, width)
            half.scale = self._floats(given.scale, width)
            half.membrane = self._place(given.membrane, width)
        self._set_matrices(half, given)

    cdef void _set_matrices(self, st_half *half, given) except *:
        cdef Py_ssize_t width = self.network.width, inner = given.inner
        sizes = [width] * 3 if half.kind == ST_TIME_MIX else [inner, width]
        rows = width if half.kind == ST_TIME_MIX else inner
        if self.network.position == ST_BEFORE_PROJECTIONS:
            check_size("mixes", len(given.mix), 1)
            half.input_scale = given.input_scale
            half.value_scale = given.value_scale
            half.fused = self._sparse(given.fused, width, sum(sizes))
            half.value = self._sparse(given.value, rows, width)
            self.network.body_format = half.fused.format
            return
        check_size("mixes", len(given.mix), len(sizes))
        check_size("matrices", len(given.matrices), len(sizes))
        for i, size in enumerate(sizes):
            half.matrix[i] = self._dense(given.matrices[i], width, size)
        if half.kind == ST_TIME_MIX:
            half.output = self._dense(given.output, width, width)
        else:
            half.value = self._sparse(given.value, inner, width)
        self.network.body_format = half.matrix[0].format

    cdef st_norm _norm(self, pair) except *:
        cdef st_norm norm
        norm.weight = self._floats(pair[0], self.network.width)
        norm.bias = self._floats(pair[1], self.network.width)
        return norm

    cdef Py_ssize_t _place(self, Py_ssize_t at, Py_ssize_t size) except -1:
        if not 0 <= at <= self.state_size - size:
            raise ValueError(f"places must lie in a state of {self.state_size}, got {at}")
        return at

    cdef st_dense _dense(self, Dense matrix, Py_ssize_t inputs, Py_ssize_t outputs) except *:
        check_size("matrix inputs", matrix.matrix.inputs, inputs)
        check_size("matrix outputs", matrix.matrix.outputs, outputs)
        self.keep.append(matrix)
        return matrix.matrix

    cdef st_sparse _sparse(self, Sparse matrix, Py_ssize_t inputs, Py_ssize_t outputs) except *:
        check_size("matrix inputs", matrix.matrix.rows, inputs)
        check_size("matrix outputs", matrix.matrix.cols, outputs)
        self.keep.append(matrix)
        return matrix.matrix
