"""A whole EGRU network: tokens in, logits out, without the GIL and on all of its threads.

The arithmetic is that of the kernels in products and vectors; results do not depend on the number
of threads, on which sequences step together, or on how a run of tokens is cut.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc
from libc.string cimport memset

import numpy as np

from spiketrain.runtime.kernels.isa.checks cimport check_size
from spiketrain.runtime.kernels.isa.dispatch cimport ST_INT8, st_rows
from spiketrain.runtime.kernels.networks.core cimport Core, st_core, st_counters, st_pass
from spiketrain.runtime.kernels.products.events cimport Sparse

import spiketrain.runtime.kernels.networks.core as core

cdef extern from "egru.h" nogil:
    enum:
        ST_EGRU_TOKENS

    ctypedef struct st_egru_layer:
        st_rows input, recurrent
        const float *threshold
        Py_ssize_t cell, output
        st_counters *counters

    ctypedef struct st_egru:
        st_core core
        int format, is_int8
        float zoneout
        Py_ssize_t layers
        st_egru_layer *layer
        int has_projection
        st_rows projection, head
        st_counters *projection_counters
        float *table
        uint8_t *table_filled

    int st_egru_prepare(st_egru *network)
    void st_egru_free(st_egru *network)
    void st_egru_run(
        const st_pass *network_pass, const int64_t *token, int want, float *logits
    )

# All events are graded, so that none is an addition alone.
COUNTERS = tuple(name for name in core.COUNTERS if name != "acs_effective")
MAX_TOKENS = ST_EGRU_TOKENS
WEIGHTS = {"float32": "float32", "uint16": "bfloat16", "int8": "int8"}  # by dtype


cdef class Network(Core):
    """The compiled network. Calls on one network must not overlap.

    A matrix is (weight (I, O), scale (O,) or None, bias (O,)), of bfloat16 the bits.
    layers: (input, recurrent, threshold (H,)) each; projection: a matrix or None; head: a matrix;
    embedding: (weight, scale or None), element i of token v at weight[v, i];
    table: float32 (V, 3H) of zeros for the first layer's input product, or None.
    Int8 scales of matrices that read events include the events' 1/32767.
    """

    cdef st_egru network

    def __cinit__(self):
        memset(&self.network, 0, sizeof(st_egru))

    def __init__(self, layers, projection, head, embedding, zoneout, threads, table=None):
        self._set_core(&self.network.core, st_egru_run, ST_EGRU_TOKENS, threads)
        self._set_counters(len(layers) + 2)
        self.network.zoneout = zoneout
        self.network.head = self._matrix(head)
        self.network.format = self.network.head.format
        self.network.is_int8 = self.network.format == ST_INT8
        self._set_layers(layers)
        if projection is not None:
            self.network.has_projection = 1
            self.network.projection = self._matrix(projection)
        self.network.projection_counters = self._part(len(layers))
        check_size("embedding rows", embedding[0].shape[0], self.network.head.cols)
        self._set_embedding(embedding[0], embedding[1], self.network.layer[0].input.rows)
        self._check_chain()
        self._set_table(table)
        self.counters = self.counters[:, : len(COUNTERS)]
        if st_egru_prepare(&self.network):
            raise MemoryError("network scratch")

    def __dealloc__(self):
        with nogil:
            st_egru_free(&self.network)

    cdef st_rows _matrix(self, matrix) except *:
        weight, scale, bias = matrix
        rows, columns = weight.shape
        packed = Sparse(WEIGHTS[weight.dtype.name], weight, columns, scale, bias=bias)
        return self._rows(packed, rows, columns)

    cdef void _set_layers(self, layers) except *:
        cdef Py_ssize_t i, size, cells = 0, count = len(layers)
        cdef Py_ssize_t output_size = 2 if self.network.is_int8 else 4
        self.network.layers = count
        self.network.layer = <st_egru_layer *>calloc(count, sizeof(st_egru_layer))
        if self.network.layer == NULL:
            raise MemoryError("layers")
        for i in range(count):
            self.network.layer[i].input = self._matrix(layers[i][0])
            self.network.layer[i].recurrent = self._matrix(layers[i][1])
            size = self.network.layer[i].recurrent.rows
            self.network.layer[i].threshold = self._floats(layers[i][2], size)
            self.network.layer[i].counters = self._part(i)
            self.network.layer[i].cell = 4 * cells
            self.network.layer[i].output = output_size * cells
            cells += size
        for i in range(count):
            self.network.layer[i].output += 4 * cells
        self._set_state((4 + output_size) * cells, sizeof(float))

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
        check_size("table rows", rows.shape[0], self.network.core.vocabulary)
        check_size("table columns", rows.shape[1], self.network.layer[0].input.cols)
        flags = np.zeros(rows.shape[0], np.uint8)
        filled = flags
        self.network.table, self.network.table_filled = &rows[0, 0], &filled[0]
        self.keep.append((table, flags))
