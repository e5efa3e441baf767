"""Products of events: of input-major weights only the rows of non-zero inputs are read.

Results depend neither on the number of tokens nor on how threads split the work; events.h has the
equations.
"""

from libc.stdint cimport int16_t, int32_t, uint8_t

import numpy as np

from spiketrain.runtime.kernels.isa.checks cimport check_rows, check_size
from spiketrain.runtime.kernels.isa.dispatch cimport (
    ST_COUNTS,
    ST_GRADED,
    ST_INT4,
    ST_INT8_GROUPS,
    ST_SPAN,
    ST_SQUARES,
    current,
    st_formats,
    st_is_float,
    st_kernels,
    st_rows,
)
from spiketrain.runtime.kernels.isa.floats cimport st_plain_rounding, st_rounding, st_set_rounding
from spiketrain.runtime.kernels.products.dense cimport Pool, first_weight, st_pool

from spiketrain.runtime.kernels.products.dense import FORMATS

cdef extern from "events.h" nogil:
    ctypedef struct st_events:
        int format, kind
        Py_ssize_t size, tokens

    ctypedef struct st_event_product:
        const st_rows *matrix
        st_events *events
        float *y
        Py_ssize_t y_stride

    int st_events_init(
        st_events *events, int format, int kind, Py_ssize_t size, Py_ssize_t room,
        Py_ssize_t tokens
    )
    void st_events_free(st_events *events)
    void st_events_begin(st_events *events, Py_ssize_t tokens, Py_ssize_t size)
    void st_list_graded(
        st_events *events, const st_kernels *kernels, Py_ssize_t token, const void *output
    )
    void st_list_squares(
        st_events *events, const st_kernels *kernels, const float *x, Py_ssize_t x_stride,
        Py_ssize_t first, Py_ssize_t last
    )
    void st_list_counts(
        st_events *events, const st_kernels *kernels, const int16_t *count,
        Py_ssize_t count_stride, const float *unit, Py_ssize_t first, Py_ssize_t last
    )
    void st_event_products_run(
        const st_event_product *product, int count, const st_kernels *kernels, st_pool *pool
    )

SPAN = ST_SPAN


cdef class Sparse:
    """Input-major weights of one matrix, of which only the rows of events are read.

    weight (I, O), of bfloat16 the bits, or (I, (O + 1) // 2) for int4; scale (O,) of integers;
    multiplier (I, ceil(O / 128)) in 1 .. 15 for int4: weight ~ code * multiplier * scale.
    int8-groups, of spike counts: scale (ceil(I / group), O); extra, unless None: (rows (I + 1,),
    columns (N,), values (N,)), int32, int32 and int16, of what to add to codes; the columns of a
    row ascend. bias (O,), added last, or None.
    """

    def __init__(
        self, weights, weight, outputs, scale=None, multiplier=None, group=0, extra=None, bias=None
    ):
        cdef const float[::1] scales, biases
        cdef const uint8_t[:, :] multipliers
        cdef int format = FORMATS[weights]
        self.matrix.format = format
        self.matrix.rows, self.matrix.cols = weight.shape[0], outputs
        self.matrix.weight = first_weight(format, weight, outputs)
        self.matrix.stride = weight.strides[0] // weight.itemsize
        if format == ST_INT8_GROUPS:
            set_groups(&self.matrix, scale, group, extra)
        elif not st_is_float(format):
            scales = scale
            check_size("scale", scales.shape[0], outputs)
            self.matrix.scale = &scales[0] if outputs else NULL
        if format == ST_INT4:
            multipliers = multiplier
            check_size("multiplier rows", multipliers.shape[0], weight.shape[0])
            check_size("multiplier columns", multipliers.shape[1], (outputs + 127) // 128)
            if multiplier.size:
                check_rows("multiplier", multipliers.shape[1], multipliers.strides[1], 1)
                self.matrix.multiplier_stride = multipliers.strides[0]
                self.matrix.multiplier = &multipliers[0, 0]
        if bias is not None:
            biases = bias
            check_size("bias", biases.shape[0], outputs)
            self.matrix.bias = &biases[0] if outputs else NULL
        self.keep = (weight, scale, multiplier, extra, bias)

    def graded(self, output, float[:, ::1] y, Pool pool):
        """Write output (T, I) times the weights to y (T, O).

        output: float32, or for integer weights int16 in 0 .. 32767; int8 and floats alone.
        """
        self.multiply(list_events(self.matrix.format, output, None, True), y, pool)

    def squares(self, const float[:, ::1] x, float[:, ::1] y, Pool pool):
        """Write max(x, 0) ** 2, in steps of a token's largest, times the weights to y (T, O)."""
        self.multiply(list_events(self.matrix.format, x, None, False), y, pool)

    def counts(
        self, const int16_t[:, ::1] count, const float[::1] unit, float[:, ::1] y, Pool pool
    ):
        """Write count (T, I) times the weights times unit (T,) to y (T, O)."""
        self.multiply(list_events(self.matrix.format, count, unit, False), y, pool)

    def multiply(self, Events events, float[:, ::1] y, Pool pool):
        """Write the events' products to y (T, O); the events are of weights of this format."""
        if events.events.format != self.matrix.format:
            raise ValueError("events must be of weights of the matrix's format")
        check_size("input columns", events.events.size, self.matrix.rows)
        check_size("y rows", y.shape[0], events.events.tokens)
        check_size("y columns", y.shape[1], self.matrix.cols)
        cdef st_rounding rounding
        cdef st_event_product product
        if y.size:
            product.matrix, product.events = &self.matrix, &events.events
            product.y, product.y_stride = &y[0, 0], y.shape[1]
            with nogil:
                rounding = st_plain_rounding()
                st_event_products_run(&product, 1, current(), pool.pool)
                st_set_rounding(rounding)


cdef class Events:
    """Lists of the events of T tokens, for every matrix of one format with these inputs.

    With unit (T,), values are counts (T, I), int16. Without, they are x (T, I), float32, for
    squares; or with `graded` outputs of neurons (T, I), see Sparse.graded.
    """

    cdef st_events events

    def __init__(self, weights, values, unit=None, graded=False):
        fill_events(self, FORMATS[weights], values, unit, graded)

    def __dealloc__(self):
        st_events_free(&self.events)


cdef Events list_events(int format, values, unit, bint graded):
    cdef Events events = Events.__new__(Events)
    fill_events(events, format, values, unit, graded)
    return events


cdef void fill_events(Events events, int format, values, unit, bint graded) except *:
    cdef int kind = ST_GRADED if graded else ST_SQUARES if unit is None else ST_COUNTS
    cdef Py_ssize_t tokens = values.shape[0], size = values.shape[1], room = size
    if not st_formats[format].max_event[kind]:
        raise ValueError("weights must be of a format that reads events of this kind")
    if kind == ST_COUNTS:
        largest = int(np.abs(np.asarray(values).astype(np.int64)).sum(1).max(initial=0))
        room += largest // st_formats[format].max_event[kind]
    st_events_free(&events.events)
    if st_events_init(&events.events, format, kind, size, room, tokens):
        raise MemoryError("event lists")
    st_events_begin(&events.events, tokens, size)
    if kind == ST_GRADED:
        list_graded(&events.events, values)
    elif kind == ST_SQUARES:
        list_squares(&events.events, values)
    else:
        list_counts(&events.events, values, unit)


cdef void list_graded(st_events *events, values) except *:
    cdef const float[:, ::1] floats
    cdef const int16_t[:, ::1] codes
    cdef Py_ssize_t t
    if st_is_float(events.format):
        floats = values
        for t in range(events.tokens):
            st_list_graded(events, current(), t, &floats[t, 0] if events.size else NULL)
        return
    codes = values
    if values.min(initial=0) < 0:
        raise ValueError(f"output must be in 0 .. 32767, got {values.min()}")
    for t in range(events.tokens):
        st_list_graded(events, current(), t, &codes[t, 0] if events.size else NULL)


cdef void list_squares(st_events *events, const float[:, ::1] x) except *:
    if events.tokens and events.size:
        with nogil:
            st_list_squares(events, current(), &x[0, 0], events.size, 0, events.tokens)


cdef void list_counts(
    st_events *events, const int16_t[:, ::1] count, const float[::1] unit
) except *:
    check_size("unit", unit.shape[0], events.tokens)
    if events.tokens and events.size:
        with nogil:
            st_list_counts(
                events, current(), &count[0, 0], events.size, &unit[0], 0, events.tokens
            )


cdef void set_groups(st_rows *m, const float[:, ::1] scale, Py_ssize_t group, extra) except *:
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
