from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t

from spiketrain.runtime.kernels.dispatch cimport st_kernels

cdef extern from "kernels.h" nogil:
    enum:
        ST_FLOAT32
        ST_INT8
        ST_INT4
        ST_BFLOAT16
        ST_INT8_GROUPS
        ST_PANEL
        ST_GROUP
        ST_SPAN

    ctypedef struct st_dense:
        int format
        Py_ssize_t inputs, outputs, group
        const uint8_t *panel
        Py_ssize_t panel_stride
        const float *scale

    ctypedef struct st_sparse:
        int format
        Py_ssize_t rows, cols
        const void *weight
        Py_ssize_t stride
        const uint8_t *multiplier
        Py_ssize_t multiplier_stride
        const float *scale
        Py_ssize_t group
        const int32_t *extra_row
        const int32_t *extra_column
        const int16_t *extra

cdef extern from "pool.h" nogil:
    ctypedef struct st_pool:
        pass

cdef class Pool:
    cdef st_pool *pool

cdef class Dense:
    cdef st_dense matrix
    cdef object keep

cdef class Sparse:
    cdef st_sparse matrix
    cdef object keep
