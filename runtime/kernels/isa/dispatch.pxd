from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t

cdef extern from "kernels.h" nogil:
    enum:
        ST_FLOAT32
        ST_BFLOAT16
        ST_INT8
        ST_INT8_GROUPS
        ST_INT4
        ST_FORMATS
        ST_GRADED
        ST_SQUARES
        ST_COUNTS
        ST_PANEL
        ST_GROUP
        ST_SPAN

    ctypedef struct st_format:
        const char *name
        int32_t max_event[3]

    const st_format *st_formats
    int st_is_float(int format)

    ctypedef struct st_dense:
        int format
        Py_ssize_t inputs, outputs, group
        const uint8_t *panel
        Py_ssize_t panel_stride
        const float *scale

    ctypedef struct st_rows:
        int format
        Py_ssize_t rows, cols
        const void *weight
        Py_ssize_t stride
        const uint8_t *multiplier
        Py_ssize_t multiplier_stride
        const float *scale
        const float *bias
        Py_ssize_t group
        const int32_t *extra_row
        const int32_t *extra_column
        const int16_t *extra

    # What kernels alone look into.
    ctypedef struct st_dense_input:
        pass

    ctypedef struct st_list:
        pass

    ctypedef struct st_shared_bytes:
        pass

    ctypedef struct st_shared_lists:
        pass

include "kernel_table.pxi"

cdef const st_kernels *current() noexcept nogil
