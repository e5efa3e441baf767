"""Products of a block of tokens, Y (T, O) = X (T, I) W (I, O): dense ones with packed weights, and
event-driven ones that read only the rows of non-zero inputs.

Results depend neither on T nor on how outputs are shared out among threads; equations and layouts
are in dense.h and sparse.h. Weights are input-major. Int4 weights are two codes + 8 a byte, the
lower output in the low nibble, codes in [-8, 7].
"""

from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t, uint16_t

import numpy as np

from spiketrain.runtime.kernels.checks cimport check_size
from spiketrain.runtime.kernels.dispatch cimport current, st_kernels
from spiketrain.runtime.kernels.floats cimport st_plain_rounding, st_rounding, st_set_rounding

cdef extern from "dense.h" nogil:
    ctypedef struct st_dense_input:
        pass

    ctypedef struct st_dense_product:
        const st_dense *matrix
        const st_dense_input *input
        float *y
        Py_ssize_t y_stride

    st_pool *st_pool_new(int threads)
    void st_pool_free(st_pool *pool)
    Py_ssize_t st_panel_bytes(int format, Py_ssize_t inputs, Py_ssize_t group)
    Py_ssize_t st_panels(Py_ssize_t outputs)
    void st_pack_float32(
        const st_dense *m, const float *weight, Py_ssize_t stride, uint8_t *panel
    )
    void st_pack_bfloat16(
        const st_dense *m, const uint16_t *weight, Py_ssize_t stride, uint8_t *panel
    )
    void st_pack_int8(const st_dense *m, const int8_t *weight, Py_ssize_t stride, uint8_t *panel)
    void st_pack_int4(
        const st_dense *m, const uint8_t *weight, Py_ssize_t stride, const float *scale,
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

cdef extern from "sparse.h" nogil:
    enum:
        ST_SQUARES
        ST_COUNTS

    ctypedef struct st_sparse_input:
        int format
        Py_ssize_t size, tokens

    int st_sparse_most(int format, int kind)
    int st_sparse_input_init(
        st_sparse_input *input, int format, int kind, Py_ssize_t size, Py_ssize_t room,
        Py_ssize_t tokens
    )
    void st_sparse_input_free(st_sparse_input *input)
    void st_sparse_squares(
        st_sparse_input *input, const st_kernels *kernels, const float *x, Py_ssize_t x_stride,
        Py_ssize_t first, Py_ssize_t last
    )
    void st_sparse_counts(
        st_sparse_input *input, const st_kernels *kernels, const int16_t *count,
        Py_ssize_t count_stride, const float *unit, Py_ssize_t first, Py_ssize_t last
    )
    void st_sparse_run(
        const st_sparse *m, st_sparse_input *input, const st_kernels *kernels, float *y,
        Py_ssize_t y_stride, st_pool *pool
    )

# Sums of int8 * int8 over this many inputs stay below 2**31.
MAX_INPUTS = 131072
PANEL = ST_PANEL
SPAN = ST_SPAN
GROUPS = (ST_GROUP, 2 * ST_GROUP)
FORMATS = {
    "float32": ST_FLOAT32,
    "bfloat16": ST_BFLOAT16,
    "int8": ST_INT8,
    "int8-groups": ST_INT8_GROUPS,
    "int4": ST_INT4,
}


def panels_shape(weights, inputs, outputs, group=0):
    """Shape of the bytes of packed weights: (panels, bytes of one, a multiple of 64).

    weights: float32, bfloat16, int8 or int4; group: inputs that share an int4 scale, 32 or 64.
    """
    cdef int format = FORMATS[weights]
    check_group(format, group)
    return st_panels(outputs), st_panel_bytes(format, inputs, group)


def pack_float32(const float[:, :] weight, uint8_t[:, :] panels):
    """Pack weight (I, O) into panels of panels_shape("float32", I, O)."""
    cdef st_dense m = empty(ST_FLOAT32, weight.shape[0], weight.shape[1], 0, panels)
    check_rows("weight", weight.shape[1], weight.strides[1], sizeof(float))
    if m.inputs and m.outputs:
        with nogil:
            st_pack_float32(&m, &weight[0, 0], weight.strides[0] // sizeof(float), &panels[0, 0])


def pack_bfloat16(const uint16_t[:, :] weight, uint8_t[:, :] panels):
    """Pack the bits of weight (I, O) into panels of panels_shape("bfloat16", I, O)."""
    cdef st_dense m = empty(ST_BFLOAT16, weight.shape[0], weight.shape[1], 0, panels)
    check_rows("weight", weight.shape[1], weight.strides[1], sizeof(uint16_t))
    if m.inputs and m.outputs:
        with nogil:
            st_pack_bfloat16(
                &m, &weight[0, 0], weight.strides[0] // sizeof(uint16_t), &panels[0, 0]
            )


def pack_int8(const int8_t[:, :] weight, uint8_t[:, :] panels):
    """Pack codes (I, O) in [-127, 127] into panels of panels_shape("int8", I, O)."""
    cdef st_dense m = empty(ST_INT8, weight.shape[0], weight.shape[1], 0, panels)
    check_rows("weight", weight.shape[1], weight.strides[1], 1)
    if m.inputs and m.outputs:
        with nogil:
            st_pack_int8(&m, &weight[0, 0], weight.strides[0], &panels[0, 0])


def pack_int4(
    const uint8_t[:, :] weight, const float[:, ::1] scale, Py_ssize_t group, uint8_t[:, :] panels
):
    """Pack int4 weights with groups along the inputs into panels of panels_shape("int4", I, O).

    weight (I, (O + 1) // 2), scale (ceil(I / group), O) representable in bfloat16, group 32 or 64.
    """
    check_group(ST_INT4, group)
    cdef st_dense m = empty(ST_INT4, weight.shape[0], scale.shape[1], group, panels)
    check_rows("weight", weight.shape[1], weight.strides[1], 1)
    check_size("weight columns", weight.shape[1], (m.outputs + 1) // 2)
    check_size("scale rows", scale.shape[0], (m.inputs + group - 1) // group)
    if np.any(np.asarray(scale).view(np.uint32) & 0xFFFF):
        raise ValueError("scale must be representable in bfloat16")
    if m.inputs and m.outputs:
        with nogil:
            st_pack_int4(
                &m, &weight[0, 0], weight.strides[0], &scale[0, 0], &panels[0, 0]
            )


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
    cdef int made = 0, count = len(products)
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
            if st_dense_input_init(&inputs[made], x.shape[1], x.shape[0]):
                raise MemoryError("codes")
            made += 1
            st_dense_input_set(
                &inputs[made - 1], &x[0, 0] if x.size else NULL, x.shape[1], x.shape[0], x.shape[1]
            )
            jobs[made - 1].matrix = &dense.matrix
            jobs[made - 1].input = &inputs[made - 1]
            jobs[made - 1].y = &y[0, 0] if y.size else NULL
            jobs[made - 1].y_stride = y.shape[1]
            if dense.matrix.format not in (ST_FLOAT32, ST_BFLOAT16):
                with nogil:
                    st_dense_quantise(&inputs[made - 1], current(), 0, x.shape[0])
        with nogil:
            rounding = st_plain_rounding()
            st_dense_run(jobs, count, current(), pool.pool)
            st_set_rounding(rounding)
    finally:
        for i in range(made):
            st_dense_input_free(&inputs[i])


cdef class Sparse:
    """Input-major weights of one matrix, of which only the rows of events are read.

    weight (I, O), of bfloat16 the bits, or (I, (O + 1) // 2) for int4; scale (O,) of integers;
    multiplier
    (I, ceil(O / 128)) in 1 .. 15 for int4: weight ~ code * multiplier * scale.
    int8-groups, of spike counts: scale (ceil(I / group), O); extra, unless None: (rows (I + 1,),
    columns (N,), values (N,)), int32, int32 and int16, of what to add to codes; the columns of a
    row ascend.
    """

    def __init__(
        self, weights, weight, outputs, scale=None, multiplier=None, group=0, extra=None
    ):
        cdef const float[::1] scales
        cdef const uint8_t[:, :] multipliers
        self.matrix.format = FORMATS[weights]
        self.matrix.rows, self.matrix.cols = weight.shape[0], outputs
        half = (outputs + 1) // 2
        check_size(
            "weight columns", weight.shape[1], half if self.matrix.format == ST_INT4 else outputs
        )
        set_weight(&self.matrix, weight)
        if self.matrix.format == ST_INT8_GROUPS:
            set_groups(&self.matrix, scale, group, extra)
        elif self.matrix.format not in (ST_FLOAT32, ST_BFLOAT16):
            scales = scale
            check_size("scale", scales.shape[0], outputs)
            self.matrix.scale = &scales[0] if outputs else NULL
        if self.matrix.format == ST_INT4:
            multipliers = multiplier
            check_size("multiplier rows", multipliers.shape[0], weight.shape[0])
            check_size("multiplier columns", multipliers.shape[1], (outputs + 127) // 128)
            if multiplier.size:
                check_rows("multiplier", multipliers.shape[1], multipliers.strides[1], 1)
                self.matrix.multiplier_stride = multipliers.strides[0]
                self.matrix.multiplier = &multipliers[0, 0]
        self.keep = (weight, scale, multiplier, extra)

    def squares(self, const float[:, ::1] x, float[:, ::1] y, Pool pool):
        """Write max(x, 0) ** 2, in steps of a token's largest, times the weights to y (T, O)."""
        self.multiply(list_events(self.matrix.format, x, None), y, pool)

    def counts(
        self, const int16_t[:, ::1] count, const float[::1] unit, float[:, ::1] y, Pool pool
    ):
        """Write count (T, I) times the weights times unit (T,) to y (T, O)."""
        self.multiply(list_events(self.matrix.format, count, unit), y, pool)

    def multiply(self, Events events, float[:, ::1] y, Pool pool):
        """Write the events' products to y (T, O); the events are of weights of this format."""
        if events.input.format != self.matrix.format:
            raise ValueError("events must be of weights of the matrix's format")
        check_size("input columns", events.input.size, self.matrix.rows)
        check_size("y rows", y.shape[0], events.input.tokens)
        check_size("y columns", y.shape[1], self.matrix.cols)
        cdef st_rounding rounding
        if y.size:
            with nogil:
                rounding = st_plain_rounding()
                st_sparse_run(
                    &self.matrix, &events.input, current(), &y[0, 0], y.shape[1], pool.pool
                )
                st_set_rounding(rounding)


cdef class Events:
    """Lists of the events of T tokens, for every matrix of one format with these inputs.

    With unit (T,), values are counts (T, I), int16; without, x (T, I), float32, for squares.
    """

    cdef st_sparse_input input

    def __init__(self, weights, values, unit=None):
        fill_events(self, FORMATS[weights], values, unit)

    def __dealloc__(self):
        st_sparse_input_free(&self.input)


cdef Events list_events(int format, values, unit):
    cdef Events events = Events.__new__(Events)
    fill_events(events, format, values, unit)
    return events


cdef void fill_events(Events events, int format, values, unit) except *:
    cdef const float[:, ::1] x
    cdef const int16_t[:, ::1] count
    cdef const float[::1] units
    cdef Py_ssize_t tokens, size, room
    if unit is None:
        x = values
        tokens, size = x.shape[0], x.shape[1]
        init_input(&events.input, format, ST_SQUARES, size, size, tokens)
        if tokens and size:
            with nogil:
                st_sparse_squares(&events.input, current(), &x[0, 0], size, 0, tokens)
        return
    count, units = values, unit
    tokens, size = count.shape[0], count.shape[1]
    check_size("unit", units.shape[0], tokens)
    largest = int(np.abs(np.asarray(count).astype(np.int64)).sum(1).max(initial=0))
    room = size + largest // st_sparse_most(format, ST_COUNTS)
    init_input(&events.input, format, ST_COUNTS, size, room, tokens)
    if tokens and size:
        with nogil:
            st_sparse_counts(&events.input, current(), &count[0, 0], size, &units[0], 0, tokens)


cdef void set_weight(st_sparse *m, weight) except *:
    cdef const float[:, :] floats
    cdef const uint16_t[:, :] brief
    cdef const int8_t[:, :] codes
    cdef const uint8_t[:, :] halves
    if not weight.size:
        return
    if weight.shape[1] > 1 and weight.strides[1] != weight.itemsize:
        raise ValueError("weight must have contiguous rows")
    m.stride = weight.strides[0] // weight.itemsize
    if m.format == ST_FLOAT32:
        floats = weight
        m.weight = &floats[0, 0]
    elif m.format == ST_BFLOAT16:
        brief = weight
        m.weight = &brief[0, 0]
    elif m.format in (ST_INT8, ST_INT8_GROUPS):
        codes = weight
        m.weight = &codes[0, 0]
    else:
        halves = weight
        m.weight = &halves[0, 0]


cdef void set_groups(st_sparse *m, const float[:, ::1] scale, Py_ssize_t group, extra) except *:
    cdef const int32_t[::1] rows, columns
    cdef const int16_t[::1] values
    if group < 1:
        raise ValueError(f"group must be at least 1, got {group}")
    check_size("scale rows", scale.shape[0], (m.rows + group - 1) // group)
    check_size("scale columns", scale.shape[1], m.cols)
    m.group = group
    m.scale = &scale[0, 0] if scale.shape[0] and m.cols else NULL
    if extra is None:
        return
    check_extra(*extra, m.rows, m.cols)
    rows, columns, values = extra
    m.extra_row, m.extra_column, m.extra = &rows[0], &columns[0], &values[0]


def check_extra(rows, columns, values, inputs, outputs):
    """ValueError unless these are corrections of a matrix (inputs, outputs); see Sparse."""
    count = len(values)
    if len(rows) != inputs + 1 or rows[0] != 0 or rows[-1] != count or np.any(np.diff(rows) < 0):
        raise ValueError(f"extra rows must ascend from 0 to {count} in {inputs + 1} steps")
    if len(columns) != count or not count:
        raise ValueError(f"extra columns must be {count} and at least 1, got {len(columns)}")
    ascends = np.diff(columns) > 0
    starts = rows[1:-1]
    ascends[starts[(starts > 0) & (starts < count)] - 1] = True
    if columns.min() < 0 or columns.max() >= outputs or not ascends.all():
        raise ValueError(f"extra columns must ascend in each row and lie in [0, {outputs})")


cdef void init_input(
    st_sparse_input *input, int format, int kind, Py_ssize_t size, Py_ssize_t room,
    Py_ssize_t tokens
) except *:
    st_sparse_input_free(input)
    if st_sparse_input_init(input, format, kind, size, room, tokens):
        raise MemoryError("event lists")
    input.tokens = tokens


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


cdef void check_rows(
    str name, Py_ssize_t columns, Py_ssize_t stride, Py_ssize_t itemsize
) except *:
    if columns > 1 and stride != itemsize:
        raise ValueError(f"{name} must have contiguous rows")
