"""Dense products of a block of tokens, Y (T, O) = X (T, I) W (I, O), with packed weights.

Results depend neither on T nor on how threads split the outputs; dense.h has equations and layouts.
Weights are input-major. Int4 weights are two codes + 8 a byte, the lower output in the low nibble,
codes in [-8, 7].
"""

from libc.stdint cimport int8_t, int32_t, uint8_t

import numpy as np

from spiketrain.runtime.kernels.isa.checks cimport check_rows, check_size
from spiketrain.runtime.kernels.isa.dispatch cimport (
    ST_BFLOAT16,
    ST_FLOAT32,
    ST_FORMATS,
    ST_GROUP,
    ST_INT4,
    ST_INT8,
    ST_INT8_GROUPS,
    ST_PANEL,
    current,
    st_dense,
    st_dense_input,
    st_formats,
    st_is_float,
    st_kernels,
)
from spiketrain.runtime.kernels.isa.floats cimport st_plain_rounding, st_rounding, st_set_rounding

cdef extern from "dense.h" nogil:
    ctypedef struct st_dense_product:
        const st_dense *matrix
        const st_dense_input *input
        float *y
        Py_ssize_t y_stride

    Py_ssize_t st_panel_bytes(int format, Py_ssize_t inputs, Py_ssize_t group)
    Py_ssize_t st_panels(Py_ssize_t outputs)
    void st_pack(
        const st_dense *m, const void *weight, Py_ssize_t stride, const float *scale,
        uint8_t *panel
    )
    int st_dense_input_init(st_dense_input *input, Py_ssize_t inputs, Py_ssize_t tokens)
    void st_dense_input_free(st_dense_input *input)
    void st_dense_input_set(
        st_dense_input *input, const float *x, Py_ssize_t x_stride, Py_ssize_t tokens,
        Py_ssize_t inputs
    )
    void st_dense_quantise(
        st_dense_input *input, const st_kernels *kernels, Py_ssize_t first, Py_ssize_t last
    )
    void st_dense_run(
        const st_dense_product *product, int count, const st_kernels *kernels, st_pool *pool
    )

# Sums of int8 * int8 over this many inputs stay below 2**31.
MAX_INPUTS = 131072
PANEL = ST_PANEL
GROUPS = (ST_GROUP, 2 * ST_GROUP)
FORMATS = {st_formats[i].name.decode(): i for i in range(ST_FORMATS)}
# How numpy holds a row of weights: bfloat16 as its bits, int4 as bytes of two codes.
DTYPES = {
    ST_FLOAT32: "float32",
    ST_BFLOAT16: "uint16",
    ST_INT8: "int8",
    ST_INT8_GROUPS: "int8",
    ST_INT4: "uint8",
}


def panels_shape(weights, inputs, outputs, group=0):
    """Shape of the bytes of packed weights: (panels, bytes of one, a multiple of 64).

    weights: one of FORMATS; group: inputs that share an int4 scale, 32 or 64.
    """
    cdef int format = FORMATS[weights]
    check_group(format, group)
    return st_panels(outputs), st_panel_bytes(format, inputs, group)


def pack(weights, weight, uint8_t[:, :] panels, scale=None, group=0):
    """Pack weight (I, O) into panels of panels_shape(weights, I, O, group).

    weight: float32, uint16 with the bits of bfloat16, or int8 codes in [-127, 127].
    int4: weight (I, (O + 1) // 2) uint8, and scale (ceil(I / group), O) float32 that bfloat16
    represents, group 32 or 64.
    """
    cdef int format = FORMATS[weights]
    cdef const float[:, ::1] scales
    cdef const float *first_scale = NULL
    cdef st_dense m
    outputs = weight.shape[1]
    check_group(format, group)
    if format == ST_INT4:
        scales = scale
        outputs = scales.shape[1]
        check_size("scale rows", scales.shape[0], (weight.shape[0] + group - 1) // group)
        if np.any(scale.view(np.uint32) & 0xFFFF):
            raise ValueError("scale must be representable in bfloat16")
        first_scale = &scales[0, 0] if scale.size else NULL
    m = empty(format, weight.shape[0], outputs, group, panels)
    cdef const void *first = first_weight(format, weight, outputs)
    cdef Py_ssize_t stride = weight.strides[0] // weight.itemsize
    if m.inputs and m.outputs:
        with nogil:
            st_pack(&m, first, stride, first_scale, &panels[0, 0])


def quantise_row(const float[::1] x, int8_t[::1] codes, int32_t[::1] sums):
    """Symmetric codes in [-127, 127], half to even; returns the scale, max |x| / 127 or 1 if zero.

    x (N,), codes (64 * ceil(N / 64),) zero beyond N, sums of each 32 codes.
    """
    cdef Py_ssize_t n = x.shape[0]
    cdef float scale = 1.0
    check_size("codes", codes.shape[0], (n + 63) // 64 * 64)
    check_size("sums", sums.shape[0], codes.shape[0] // ST_GROUP)
    codes[n:] = 0
    if n:
        with nogil:
            scale = current().quantise_row(&x[0], n, &codes[0], &sums[0])
    return scale


cdef class Pool:
    """Threads that products share; calls with one pool must not overlap."""

    def __cinit__(self, int threads):
        self.pool = st_pool_new(threads)
        if self.pool == NULL:
            raise MemoryError("threads")

    def __dealloc__(self):
        with nogil:
            st_pool_free(self.pool)


cdef class Dense:
    """Packed weights of one matrix.

    panels: bytes that a pack function filled; scale (O,) for int8; group for int4.
    """

    def __init__(self, weights, const uint8_t[:, :] panels, inputs, outputs, scale=None, group=0):
        cdef const float[::1] scales
        cdef int format = FORMATS[weights]
        check_group(format, group)
        self.matrix = empty(format, inputs, outputs, group, panels)
        if panels.shape[0] and panels.shape[1]:
            self.matrix.panel = &panels[0, 0]
        if (<size_t>self.matrix.panel | panels.strides[0]) % 64:
            raise ValueError("panels must start on multiples of 64 bytes")
        if format == ST_INT8:
            scales = scale
            check_size("scale", scales.shape[0], outputs)
            self.matrix.scale = &scales[0] if outputs else NULL
        self.keep = (panels, scale)

    def multiply(self, const float[:, ::1] x, float[:, ::1] y, Pool pool):
        """Write x (T, I) times the weights to y (T, O)."""
        multiply_all([(self, x, y)], pool)


def multiply_all(products, Pool pool):
    """Run several (Dense, x, y) at a time, in one go of the threads."""
    cdef st_dense_input inputs[8]
    cdef st_dense_product jobs[8]
    cdef int ready = 0, count = len(products)
    cdef Dense dense
    cdef const float[:, ::1] x
    cdef float[:, ::1] y
    cdef st_rounding rounding
    if count > 8:
        raise ValueError(f"products must be at most 8, got {count}")
    try:
        for dense, x, y in products:
            check_size("x columns", x.shape[1], dense.matrix.inputs)
            check_size("y rows", y.shape[0], x.shape[0])
            check_size("y columns", y.shape[1], dense.matrix.outputs)
            if st_dense_input_init(&inputs[ready], x.shape[1], x.shape[0]):
                raise MemoryError("codes")
            ready += 1
            st_dense_input_set(
                &inputs[ready - 1], &x[0, 0] if x.size else NULL, x.shape[1], x.shape[0], x.shape[1]
            )
            jobs[ready - 1].matrix = &dense.matrix
            jobs[ready - 1].input = &inputs[ready - 1]
            jobs[ready - 1].y = &y[0, 0] if y.size else NULL
            jobs[ready - 1].y_stride = y.shape[1]
            if not st_is_float(dense.matrix.format):
                with nogil:
                    st_dense_quantise(&inputs[ready - 1], current(), 0, x.shape[0])
        with nogil:
            rounding = st_plain_rounding()
            st_dense_run(jobs, count, current(), pool.pool)
            st_set_rounding(rounding)
    finally:
        for i in range(ready):
            st_dense_input_free(&inputs[i])


cdef const void *first_weight(int format, weight, Py_ssize_t outputs) except? NULL:
    """The first of a matrix of weights, whose rows must be contiguous; NULL of an empty one."""
    if weight.dtype != DTYPES[format]:
        raise ValueError(f"weight must be {DTYPES[format]}, got {weight.dtype}")
    columns = (outputs + 1) // 2 if format == ST_INT4 else outputs
    check_size("weight columns", weight.shape[1], columns)
    if not weight.size:
        return NULL
    check_rows("weight", weight.shape[1], weight.strides[1], weight.itemsize)
    return <const void *><size_t>weight.ctypes.data


cdef st_dense empty(
    int format, Py_ssize_t inputs, Py_ssize_t outputs, Py_ssize_t group,
    const uint8_t[:, :] panels
) except *:
    """A matrix whose panels are yet to be filled, with room for them checked."""
    cdef st_dense m
    if inputs > MAX_INPUTS:
        raise ValueError(f"inputs must be at most {MAX_INPUTS}, got {inputs}")
    check_size("panels", panels.shape[0], st_panels(outputs))
    check_size("panel bytes", panels.shape[1], st_panel_bytes(format, inputs, group))
    check_rows("panels", panels.shape[1], panels.strides[1], 1)
    m.format, m.inputs, m.outputs, m.group = format, inputs, outputs, group
    m.panel = NULL
    m.panel_stride = panels.strides[0]
    m.scale = NULL
    return m


cdef void check_group(int format, Py_ssize_t group) except *:
    if format == ST_INT4 and group not in GROUPS:
        raise ValueError(f"group must be one of {GROUPS}, got {group}")
