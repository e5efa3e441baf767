"""Event-driven products: only the rows of inputs that have an event are read.

Weights are input-major, (I, O); rows may stand apart, columns not. Sums of floats run over inputs
in ascending order, each product rounded before it is added; sums of int8 are exact. The bias is
added last. A bfloat16 is the float32 whose upper half its bits are.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, uint16_t

from spiketrain.runtime.kernels.dispatch cimport ST_MAX_LANES, current, st_kernels, st_matrix
from spiketrain.runtime.kernels.products cimport ST_BFLOAT16, ST_FLOAT32, ST_INT8

cdef extern from "events.h" nogil:
    ctypedef struct st_events:
        float *code_scale

    int st_events_init(st_events *events, int is_int8, Py_ssize_t size, Py_ssize_t lanes)
    void st_events_free(st_events *events)
    void st_events_list(
        st_events *events, const st_kernels *kernels, const void *const *vector, Py_ssize_t lanes,
        Py_ssize_t size
    )
    void st_events_dense(
        st_events *events, const void *const *codes, Py_ssize_t lanes, Py_ssize_t size
    )
    void st_events_multiply(
        const st_events *events, const st_kernels *kernels, const st_matrix *m, Py_ssize_t first,
        Py_ssize_t last, float *const *out
    )

MAX_LANES = ST_MAX_LANES


def gather_float32(
    const float[:, :] weight,
    const int32_t[::1] index,
    const float[::1] value,
    const float[::1] bias,
    float[::1] out,
):
    """out = sum of value[e] * weight[index[e]] over e in order, + bias.

    weight (I, O), index (E,) ascending, value (E,), bias (O,), out (O,).
    """
    cdef st_matrix m = float_matrix(weight, bias)
    cdef Py_ssize_t n = index.shape[0]
    check_list(index, value.shape[0], m.rows)
    check_columns("out", out.shape[0], m.cols)
    if m.cols:
        with nogil:
            current().gather_float32(
                &m, &index[0] if n else NULL, &value[0] if n else NULL, n, 0, m.cols, &out[0]
            )


def gather_bfloat16(
    const uint16_t[:, :] weight,
    const int32_t[::1] index,
    const float[::1] value,
    const float[::1] bias,
    float[::1] out,
):
    """gather_float32 of weights whose bits are given: weight (I, O)."""
    cdef st_matrix m = half_matrix(weight, bias)
    cdef Py_ssize_t n = index.shape[0]
    check_list(index, value.shape[0], m.rows)
    check_columns("out", out.shape[0], m.cols)
    if m.cols:
        with nogil:
            current().gather_bfloat16(
                &m, &index[0] if n else NULL, &value[0] if n else NULL, n, 0, m.cols, &out[0]
            )


def gather_int8(
    const int8_t[:, :] weight,
    const int32_t[::1] index,
    const int16_t[::1] value,
    const float[::1] scale,
    const float[::1] bias,
    float[::1] out,
):
    """out = float32(exact sum of value[e] * weight[index[e]]) * scale + bias.

    weight (I, O), index (E,), value (E,) in 0 .. 32767, scale (O,), bias (O,), out (O,).
    """
    cdef st_matrix m = int8_matrix(weight, scale, bias)
    cdef Py_ssize_t e, n = index.shape[0]
    check_list(index, value.shape[0], m.rows)
    check_columns("out", out.shape[0], m.cols)
    for e in range(n):
        if value[e] < 0:
            raise ValueError(f"value[{e}] must be in 0 .. 32767, got {value[e]}")
    if m.cols:
        with nogil:
            current().gather_int8(
                &m, &index[0] if n else NULL, &value[0] if n else NULL, n, 0, m.cols, &out[0]
            )


def batch_float32(
    const float[:, :] weight, const float[:, ::1] vector, const float[::1] bias, float[:, ::1] out
):
    """gather_float32 of the non-zero elements of each vector; a row is read once for all of them.

    weight (I, O), vector (B, I) with B <= MAX_LANES, bias (O,), out (B, O).
    """
    cdef st_matrix m = float_matrix(weight, bias)
    multiply_floats(&m, vector, out)


def batch_bfloat16(
    const uint16_t[:, :] weight, const float[:, ::1] vector, const float[::1] bias,
    float[:, ::1] out
):
    """batch_float32 of weights whose bits are given: weight (I, O)."""
    cdef st_matrix m = half_matrix(weight, bias)
    multiply_floats(&m, vector, out)


def batch_int8(
    const int8_t[:, :] weight,
    const int16_t[:, ::1] vector,
    const float[::1] scale,
    const float[::1] bias,
    float[:, ::1] out,
):
    """gather_int8 of the non-zero elements of each vector; a row is read once for all of them.

    weight (I, O), vector (B, I) in 0 .. 32767 with B <= MAX_LANES, scale (O,), bias (O,),
    out (B, O).
    """
    cdef st_matrix m = int8_matrix(weight, scale, bias)
    cdef Py_ssize_t lane, i, lanes = vector.shape[0]
    cdef const void *vectors[ST_MAX_LANES]
    cdef float *outs[ST_MAX_LANES]
    check_batch(lanes, out.shape[0], vector.shape[1], m.rows, out.shape[1], m.cols)
    for lane in range(lanes):
        for i in range(m.rows):
            if vector[lane, i] < 0:
                raise ValueError(
                    f"vector[{lane}, {i}] must be in 0 .. 32767, got {vector[lane, i]}"
                )
    if lanes and m.cols:
        for lane in range(lanes):
            vectors[lane] = &vector[lane, 0] if m.rows else NULL
            outs[lane] = &out[lane, 0]
        multiply(&m, vectors, lanes, 1, NULL, outs)


def dense_int8(
    const int8_t[:, :] weight,
    const int16_t[:, ::1] codes,
    const float[::1] code_scale,
    const float[::1] scale,
    const float[::1] bias,
    float[:, ::1] out,
):
    """out[b] = float32(exact sum of codes[b, i] * weight[i]) * code_scale[b] * scale + bias.

    weight (I, O) with I <= 131072, codes (B, I) in [-127, 127] with B <= MAX_LANES,
    code_scale (B,), scale (O,), bias (O,), out (B, O).
    """
    cdef st_matrix m = int8_matrix(weight, scale, bias)
    cdef Py_ssize_t lane, i, lanes = codes.shape[0]
    cdef const void *vectors[ST_MAX_LANES]
    cdef float *outs[ST_MAX_LANES]
    check_batch(lanes, out.shape[0], codes.shape[1], m.rows, out.shape[1], m.cols)
    if code_scale.shape[0] != lanes:
        raise ValueError(f"code_scale must have {lanes} elements, has {code_scale.shape[0]}")
    if m.rows > 131072:
        raise ValueError(f"weight must have at most 131072 rows, has {m.rows}")
    for lane in range(lanes):
        for i in range(m.rows):
            if not -127 <= codes[lane, i] <= 127:
                raise ValueError(
                    f"codes[{lane}, {i}] must be in [-127, 127], got {codes[lane, i]}"
                )
    if lanes and m.cols:
        for lane in range(lanes):
            vectors[lane] = &codes[lane, 0] if m.rows else NULL
            outs[lane] = &out[lane, 0]
        multiply(&m, vectors, lanes, 1, &code_scale[0], outs)


cdef void multiply_floats(
    const st_matrix *m, const float[:, ::1] vector, float[:, ::1] out
) except *:
    cdef Py_ssize_t lane, lanes = vector.shape[0]
    cdef const void *vectors[ST_MAX_LANES]
    cdef float *outs[ST_MAX_LANES]
    check_batch(lanes, out.shape[0], vector.shape[1], m.rows, out.shape[1], m.cols)
    if lanes and m.cols:
        for lane in range(lanes):
            vectors[lane] = &vector[lane, 0] if m.rows else NULL
            outs[lane] = &out[lane, 0]
        multiply(m, vectors, lanes, 0, NULL, outs)


cdef void multiply(
    const st_matrix *m, const void **vectors, Py_ssize_t lanes, bint is_int8,
    const float *code_scale, float **outs
) except *:
    """Events of all lanes, or dense codes where there is a code scale; then one pass over rows."""
    cdef st_events events
    cdef Py_ssize_t lane
    if st_events_init(&events, is_int8, m.rows, lanes):
        raise MemoryError("event lists")
    with nogil:
        if code_scale == NULL:
            st_events_list(&events, current(), <const void *const *>vectors, lanes, m.rows)
        else:
            st_events_dense(&events, <const void *const *>vectors, lanes, m.rows)
            for lane in range(lanes):
                events.code_scale[lane] = code_scale[lane]
        st_events_multiply(&events, current(), m, 0, m.cols, outs)
        st_events_free(&events)


cdef st_matrix float_matrix(const float[:, :] weight, const float[::1] bias) except *:
    cdef st_matrix m
    check_columns("bias", bias.shape[0], weight.shape[1])
    if weight.shape[1] > 1 and weight.strides[1] != sizeof(float):
        raise ValueError("weight must have contiguous rows")
    m.format = ST_FLOAT32
    m.rows, m.cols = weight.shape[0], weight.shape[1]
    m.stride = weight.strides[0] // <Py_ssize_t>sizeof(float)
    m.weight = &weight[0, 0] if m.rows and m.cols else NULL
    m.scale = NULL
    m.bias = &bias[0] if m.cols else NULL
    return m


cdef st_matrix half_matrix(const uint16_t[:, :] weight, const float[::1] bias) except *:
    cdef st_matrix m
    check_columns("bias", bias.shape[0], weight.shape[1])
    if weight.shape[1] > 1 and weight.strides[1] != sizeof(uint16_t):
        raise ValueError("weight must have contiguous rows")
    m.format = ST_BFLOAT16
    m.rows, m.cols = weight.shape[0], weight.shape[1]
    m.stride = weight.strides[0] // <Py_ssize_t>sizeof(uint16_t)
    m.weight = &weight[0, 0] if m.rows and m.cols else NULL
    m.scale = NULL
    m.bias = &bias[0] if m.cols else NULL
    return m


cdef st_matrix int8_matrix(
    const int8_t[:, :] weight, const float[::1] scale, const float[::1] bias
) except *:
    cdef st_matrix m
    check_columns("bias", bias.shape[0], weight.shape[1])
    check_columns("scale", scale.shape[0], weight.shape[1])
    if weight.shape[1] > 1 and weight.strides[1] != 1:
        raise ValueError("weight must have contiguous rows")
    m.format = ST_INT8
    m.rows, m.cols = weight.shape[0], weight.shape[1]
    m.stride = weight.strides[0]
    m.weight = &weight[0, 0] if m.rows and m.cols else NULL
    m.scale = &scale[0] if m.cols else NULL
    m.bias = &bias[0] if m.cols else NULL
    return m


cdef void check_list(const int32_t[::1] index, Py_ssize_t values, Py_ssize_t rows) except *:
    cdef Py_ssize_t e
    if values != index.shape[0]:
        raise ValueError(f"value has {values} elements, index has {index.shape[0]}")
    for e in range(index.shape[0]):
        if not 0 <= index[e] < rows:
            raise ValueError(f"index[{e}] must be in [0, {rows}), got {index[e]}")


cdef void check_columns(str name, Py_ssize_t got, Py_ssize_t columns) except *:
    if got != columns:
        raise ValueError(f"{name} has {got} columns, weight has {columns}")


cdef void check_batch(
    Py_ssize_t lanes, Py_ssize_t out_lanes, Py_ssize_t size, Py_ssize_t rows, Py_ssize_t out_size,
    Py_ssize_t columns
) except *:
    if lanes > ST_MAX_LANES or out_lanes != lanes:
        raise ValueError(
            f"out must have as many vectors as the input, at most {ST_MAX_LANES}, "
            f"has {out_lanes} for {lanes}"
        )
    if size != rows:
        raise ValueError(f"input has {size} elements a vector, weight has {rows} rows")
    check_columns("out", out_size, columns)
