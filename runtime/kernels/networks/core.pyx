"""What the compiled networks of all families share: their setting up, and tokens through them, as
many at a time as a network takes.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free

import numpy as np

from spiketrain.runtime.kernels.isa.checks cimport check_size
from spiketrain.runtime.kernels.isa.dispatch cimport ST_BFLOAT16, ST_FLOAT32, ST_INT8, current
from spiketrain.runtime.kernels.isa.floats cimport st_plain_rounding, st_rounding, st_set_rounding

SEQUENCE_COUNTERS = ("events", "neurons", "weight_bytes_touched")
COUNTERS = (
    "neurons",
    "events",
    "silent_rows",
    "weight_bytes_touched",
    "weight_bytes_dense",
    "macs_dense",
    "macs_effective",
    "acs_effective",
)
EMBEDDINGS = {"float32": ST_FLOAT32, "uint16": ST_BFLOAT16, "int8": ST_INT8, "uint8": ST_BITS}


cdef class Core:
    """A network with `step` and `forward`; calls on one network must not overlap.

    A subclass holds the C struct of its family, which begins with an st_core. Its __init__ calls
    the _set methods, then the C function that prepares its scratch. Its __dealloc__ frees all.
    """

    def __cinit__(self):
        self.alignment = 1
        self.keep = []

    cdef void _set_core(
        self, st_core *core, st_run run, Py_ssize_t max_tokens, threads
    ) except *:
        self.core, self.run, self.max_tokens = core, run, max_tokens
        core.dial = -1
        if st_core_init(core, current(), threads):
            raise MemoryError("threads")

    cdef void _set_state(self, Py_ssize_t state_bytes, Py_ssize_t alignment) noexcept:
        self.state_bytes, self.alignment = state_bytes, alignment

    cdef void _set_embedding(self, rows, scale, Py_ssize_t width) except *:
        """rows (V, width), or bits (V, ceil(width / 8)); scale (V,) of int8 rows."""
        cdef st_embedding *embedding = &self.core.embedding
        embedding.format = EMBEDDINGS[rows.dtype.name]
        columns = (width + 7) // 8 if embedding.format == ST_BITS else width
        check_size("embedding columns", rows.shape[1], columns)
        embedding.rows = <const void *><size_t>rows.ctypes.data
        embedding.stride = rows.strides[0] // rows.itemsize
        embedding.step = rows.strides[1] // rows.itemsize
        if embedding.format == ST_BITS:
            check_size("embedding column stride", embedding.step, 1)
        if embedding.format == ST_INT8:
            embedding.scale = self._floats(scale, rows.shape[0])
        self.core.width, self.core.vocabulary = width, rows.shape[0]
        self.keep.append(rows)

    cdef void _set_counters(self, Py_ssize_t parts) except *:
        """Counters of so many parts, the head's last."""
        self.counters = np.zeros((parts, len(COUNTERS)), np.int64)
        self.core.head_counters = self._part(parts - 1)

    cdef st_counters *_part(self, Py_ssize_t part) except NULL:
        cdef int64_t[:, ::1] counters = self.counters
        return <st_counters *>&counters[part, 0]

    cdef st_dense _dense(self, Dense matrix, Py_ssize_t inputs, Py_ssize_t outputs) except *:
        check_size("matrix inputs", matrix.matrix.inputs, inputs)
        check_size("matrix outputs", matrix.matrix.outputs, outputs)
        self.keep.append(matrix)
        return matrix.matrix

    cdef st_rows _rows(self, Sparse matrix, Py_ssize_t inputs, Py_ssize_t outputs) except *:
        check_size("matrix inputs", matrix.matrix.rows, inputs)
        check_size("matrix outputs", matrix.matrix.cols, outputs)
        self.keep.append(matrix)
        return matrix.matrix

    cdef Py_ssize_t _offset(self, Py_ssize_t at, Py_ssize_t size) except -1:
        """An offset of `size` bytes in a state."""
        if not 0 <= at <= self.state_bytes - size:
            raise ValueError(f"offsets must lie in a state of {self.state_bytes}, got {at}")
        return at

    def step(self, list states, const int64_t[::1] tokens, float[:, ::1] logits,
             int64_t[:, ::1] activity):
        """One token for each sequence.

        states: B writable buffers; tokens (B,) in [0, V); logits (B, V); activity (B, 3) is added
        to.
        """
        cdef Py_ssize_t lanes = len(states), at = 0
        cdef void **pointers
        cdef st_rounding rounding
        cdef st_pass now
        if tokens.shape[0] != lanes or logits.shape[0] != lanes or activity.shape[0] != lanes:
            raise ValueError(f"tokens, logits and activity must have {lanes} rows, one a state")
        self._check(tokens, logits.shape[1], activity.shape[1])
        if not lanes:
            return
        pointers = <void **>calloc(lanes, sizeof(void *))
        if pointers == NULL:
            raise MemoryError("state pointers")
        try:
            for at in range(lanes):
                pointers[at] = self._state(states[at])
            with nogil:
                rounding = st_plain_rounding()
                at = 0
                now.core, now.scan = self.core, 0
                while at < lanes:
                    now.state = <char *const *>(pointers + at)
                    now.tokens = min(lanes - at, self.max_tokens)
                    now.sequence = <st_sequence_counters *>&activity[at, 0]
                    self.run(&now, &tokens[at], ST_ALL_LOGITS, &logits[at, 0])
                    at += now.tokens
                st_set_rounding(rounding)
        finally:
            free(pointers)

    def record(self, state, const int64_t[::1] token, float[:, ::1] logits,
               int64_t[:, ::1] activity, int32_t[::1] counts):
        """As `step` with one sequence, and the spike counts of each site one after another."""
        if not self.records or token.shape[0] != 1:
            raise ValueError(f"a network that records takes 1 token, got {token.shape[0]}")
        self.core.record.next, self.core.record.room = &counts[0], counts.shape[0]
        try:
            self.step([state], token, logits, activity)
            if self.core.record.room:
                raise ValueError(
                    f"counts must be as many as the network's, {self.core.record.room} are off"
                )
        finally:
            self.core.record.next = NULL

    def forward(self, state, const int64_t[::1] tokens, float[:, ::1] logits,
                int64_t[:, ::1] activity, const uint8_t[::1] cancelled=None):
        """Consecutive tokens of one sequence; how many were read.

        state: a writable buffer; tokens (T,) in [0, V); logits (T, V), or (1, V) for those after
        the last token alone, or (0, V) for none; activity (1, 3) is added to.
        cancelled (1,) or None: another thread sets it to end the call after some tokens, without
        the logits of the others.
        """
        cdef Py_ssize_t length = tokens.shape[0], rows = logits.shape[0], at = 0
        cdef void *pointer = self._state(state)
        cdef int want
        cdef float *out
        cdef const uint8_t *poll = NULL
        cdef st_rounding rounding
        cdef st_pass now
        self._check(tokens, logits.shape[1], activity.shape[1])
        if rows != length and rows > 1 or activity.shape[0] != 1:
            raise ValueError(f"logits must have {length}, 1 or 0 rows, has {rows}")
        if cancelled is not None:
            poll = &cancelled[0]
        with nogil:
            rounding = st_plain_rounding()
            now.core, now.scan, now.state = self.core, 1, <char *const *>&pointer
            now.sequence = <st_sequence_counters *>&activity[0, 0]
            while at < length and (poll == NULL or not poll[0]):
                now.tokens = min(length - at, self.max_tokens)
                out = NULL
                want = ST_NO_LOGITS
                if rows == length:
                    want = ST_ALL_LOGITS
                    out = &logits[at, 0]
                elif rows == 1 and at + now.tokens == length:
                    want = ST_LAST_LOGITS
                    out = &logits[0, 0]
                self.run(&now, &tokens[at], want, out)
                at += now.tokens
            st_set_rounding(rounding)
        return at

    cdef void _check(
        self, const int64_t[::1] tokens, Py_ssize_t columns, Py_ssize_t counters
    ) except *:
        cdef Py_ssize_t i
        if columns != self.core.vocabulary or counters != len(SEQUENCE_COUNTERS):
            raise ValueError(f"logits must have {self.core.vocabulary} columns, has {columns}")
        for i in range(tokens.shape[0]):
            if not 0 <= tokens[i] < self.core.vocabulary:
                raise ValueError(
                    f"token must be in [0, {self.core.vocabulary}), got {tokens[i]} at position {i}"
                )

    cdef void *_state(self, state) except NULL:
        cdef uint8_t[::1] view = state
        if view.shape[0] != self.state_bytes or <size_t>&view[0] % <size_t>self.alignment:
            raise ValueError(
                f"state must have {self.state_bytes} bytes on a multiple of {self.alignment}, "
                f"has {view.shape[0]}"
            )
        return &view[0]

    cdef const float *_floats(self, array, Py_ssize_t size) except NULL:
        cdef const float[::1] view = array
        check_size("vector", view.shape[0], size)
        self.keep.append(array)
        return &view[0]

    cdef const float *_optional(self, array, Py_ssize_t size) except? NULL:
        if array is None:
            return NULL
        return self._floats(array, size)
