"""A whole EGRU network: tokens in, logits out, without the GIL and on all of its threads.

The arithmetic is that of the kernels in gather, neurons and functions; results do not depend on the
number of threads, on which sequences step together, or on how a run of tokens is cut.
"""

from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

import numpy as np

from spiketrain.runtime.kernels.checks cimport check_size
from spiketrain.runtime.kernels.dispatch cimport ST_MAX_LANES, current, st_kernels, st_matrix
from spiketrain.runtime.kernels.products cimport ST_BFLOAT16, ST_FLOAT32, ST_INT8
from spiketrain.runtime.kernels.runner cimport Runner

from spiketrain.runtime.kernels.runner import WORK_COUNTERS

cdef extern from "network.h" nogil:
    ctypedef struct st_pool:
        pass

    st_pool *st_pool_new(int threads)
    void st_pool_free(st_pool *pool)

    ctypedef struct st_layer:
        st_matrix input, recurrent
        const float *threshold

    ctypedef struct st_counters:
        pass

    ctypedef struct st_lane_activity:
        pass

    ctypedef struct st_network:
        const st_kernels *kernels
        st_pool *pool
        int format, is_int8
        float zoneout
        Py_ssize_t layers
        st_layer *layer
        int has_projection
        st_matrix projection, head
        const void *embedding
        Py_ssize_t token_stride, element_stride
        const float *embedding_scale
        float *table
        uint8_t *table_filled
        st_counters *counters

    int st_network_prepare(st_network *network)
    void st_network_release(st_network *network)
    void st_network_run(
        st_network *network, char *const *state, const int64_t *token, Py_ssize_t lanes, int scan,
        int want, float *logits, st_lane_activity *activity
    )

COUNTERS = WORK_COUNTERS
FORMATS = {"float32": ST_FLOAT32, "uint16": ST_BFLOAT16, "int8": ST_INT8}  # by dtype


cdef void one_pass(
    void *network, void *const *state, const int64_t *token, Py_ssize_t tokens, int scan, int want,
    float *logits, void *activity
) noexcept nogil:
    st_network_run(
        <st_network *>network, <char *const *>state, token, tokens, scan, want, logits,
        <st_lane_activity *>activity
    )


cdef class Network(Runner):
    """The compiled network. Calls on one network must not overlap.

    layers: for each layer (input, recurrent, threshold), input and recurrent being matrices
    (weight (I, O), scale (O,) or None, bias (O,)), the weights float32, bits of bfloat16 or int8,
    blocks z, r, g side by side;
    projection: a matrix or None; head: a matrix;
    embedding: (weight, scale or None), element i of token v at weight[v, i];
    table: float32 (V, 3H) of zeros for the first layer's input product, or None.
    Int8 scales of matrices that read events include the events' 1/32767.
    """

    cdef st_network network
    cdef readonly object counters

    def __cinit__(self):
        memset(&self.network, 0, sizeof(st_network))

    def __init__(self, layers, projection, head, embedding, zoneout, threads, table=None):
        self.network.format = FORMATS[head[0].dtype.name]
        self.network.is_int8 = self.network.format == ST_INT8
        self.network.kernels = current()
        self.network.zoneout = zoneout
        self._set_layers(layers)
        if projection is not None:
            self.network.has_projection = 1
            self.network.projection = self._matrix(projection)
        self.network.head = self._matrix(head)
        self.vocabulary = self.network.head.cols
        self._set_embedding(embedding[0], embedding[1])
        self._check_chain()
        self._set_table(table)
        self.counters = np.zeros((len(layers) + 2, len(COUNTERS)), np.int64)
        cdef int64_t[:, ::1] counters = self.counters
        self.network.counters = <st_counters *>&counters[0, 0]
        self.network.pool = st_pool_new(threads)
        if self.network.pool == NULL or st_network_prepare(&self.network):
            raise MemoryError("network scratch")
        self._runs(
            one_pass, &self.network, ST_MAX_LANES, self.vocabulary, self.state_bytes,
            sizeof(float)
        )

    def __dealloc__(self):
        with nogil:
            st_pool_free(self.network.pool)
            st_network_release(&self.network)
        free(self.network.layer)

    cdef st_matrix _matrix(self, matrix) except *:
        weight, scale, bias = matrix
        cdef st_matrix m
        m.rows, m.cols = weight.shape
        m.format = self.network.format
        m.weight = self._rows(weight)
        m.scale = self._floats(scale, m.cols) if self.network.is_int8 else NULL
        m.stride = weight.strides[0] // weight.itemsize
        m.bias = self._floats(bias, m.cols)
        return m

    cdef const void *_rows(self, weight) except NULL:
        if weight.strides[1] != weight.itemsize:
            raise ValueError("weight must have contiguous rows")
        return self._first(weight)

    cdef const void *_first(self, weight) except NULL:
        """The first element of a matrix of the network's format, which is kept."""
        cdef const int8_t[:, :] codes
        cdef const uint16_t[:, :] halves
        cdef const float[:, :] floats
        self.keep.append(weight)
        if self.network.is_int8:
            codes = weight
            return &codes[0, 0]
        if self.network.format == ST_BFLOAT16:
            halves = weight
            return &halves[0, 0]
        floats = weight
        return &floats[0, 0]

    cdef void _set_layers(self, layers) except *:
        cdef Py_ssize_t i
        cdef int output_size = 2 if self.network.is_int8 else 4
        self.network.layers = len(layers)
        self.network.layer = <st_layer *>calloc(len(layers), sizeof(st_layer))
        if self.network.layer == NULL:
            raise MemoryError("layers")
        self.state_bytes = 0
        for i in range(self.network.layers):
            self.network.layer[i].input = self._matrix(layers[i][0])
            self.network.layer[i].recurrent = self._matrix(layers[i][1])
            self.network.layer[i].threshold = self._floats(
                layers[i][2], self.network.layer[i].recurrent.rows
            )
            self.state_bytes += (4 + output_size) * self.network.layer[i].recurrent.rows

    cdef void _set_embedding(self, weight, scale) except *:
        if weight.shape != (self.vocabulary, self.network.layer[0].input.rows):
            raise ValueError(f"embedding must have a row for each token, is {weight.shape}")
        self.network.embedding = self._first(weight)
        if self.network.is_int8:
            self.network.embedding_scale = self._floats(scale, self.vocabulary)
        self.network.token_stride = weight.strides[0] // weight.itemsize
        self.network.element_stride = weight.strides[1] // weight.itemsize

    cdef void _check_chain(self) except *:
        """Each matrix takes what the one before it gives."""
        cdef Py_ssize_t i, size = self.network.layer[0].input.rows
        for i in range(self.network.layers):
            check_size(f"layers[{i}] inputs", self.network.layer[i].input.rows, size)
            size = self.network.layer[i].recurrent.rows
            check_size(f"layers[{i}] input columns", self.network.layer[i].input.cols, 3 * size)
            check_size(
                f"layers[{i}] recurrent columns", self.network.layer[i].recurrent.cols, 3 * size
            )
        if self.network.has_projection:
            check_size("projection rows", self.network.projection.rows, size)
            size = self.network.projection.cols
        check_size("head rows", self.network.head.rows, size)

    cdef void _set_table(self, table) except *:
        cdef float[:, ::1] rows
        cdef uint8_t[::1] filled
        if table is None:
            return
        rows = table
        check_size("table rows", rows.shape[0], self.vocabulary)
        check_size("table columns", rows.shape[1], self.network.layer[0].input.cols)
        self.keep.append(table)
        flags = np.zeros(self.vocabulary, np.uint8)
        self.keep.append(flags)
        filled = flags
        self.network.table = &rows[0, 0]
        self.network.table_filled = &filled[0]
