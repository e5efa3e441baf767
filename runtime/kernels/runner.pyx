"""Tokens through a compiled network, as many at a time as it takes: what all networks share."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free

from spiketrain.runtime.kernels.checks cimport check_size
from spiketrain.runtime.kernels.floats cimport st_plain_rounding, st_rounding, st_set_rounding

SEQUENCE_COUNTERS = ("events", "neurons", "weight_bytes_touched")
WORK_COUNTERS = (
    "neurons",
    "events",
    "silent_rows",
    "weight_bytes_touched",
    "weight_bytes_dense",
    "macs_dense",
    "macs_effective",
)


cdef class Runner:
    """A network with `step` and `forward`; calls on one network must not overlap.

    A subclass says in its __init__, by _runs, what makes a pass and on what.
    """

    def __cinit__(self):
        self.alignment = 1
        self.keep = []

    cdef void _runs(
        self, st_pass one_pass, void *compiled, Py_ssize_t most_tokens, Py_ssize_t vocabulary,
        Py_ssize_t state_bytes, Py_ssize_t alignment
    ) noexcept:
        self.one_pass, self.compiled = one_pass, compiled
        self.most_tokens, self.vocabulary = most_tokens, vocabulary
        self.state_bytes, self.alignment = state_bytes, alignment

    def step(self, list states, const int64_t[::1] tokens, float[:, ::1] logits,
             int64_t[:, ::1] activity):
        """One token for each sequence.

        states: B writable buffers; tokens (B,) in [0, V); logits (B, V); activity (B, 3) is added
        to.
        """
        cdef Py_ssize_t lanes = len(states), at = 0, count
        cdef void **pointers
        cdef st_rounding rounding
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
                while at < lanes:
                    count = min(lanes - at, self.most_tokens)
                    self.one_pass(
                        self.compiled, <void *const *>(pointers + at), &tokens[at], count, 0, 2,
                        &logits[at, 0], &activity[at, 0]
                    )
                    at += count
                st_set_rounding(rounding)
        finally:
            free(pointers)

    def record(self, state, const int64_t[::1] token, float[:, ::1] logits,
               int64_t[:, ::1] activity, int32_t[::1] counts):
        """As `step` with one sequence, and the spike counts of each place one after another."""
        if self.records == NULL or token.shape[0] != 1:
            raise ValueError(f"a network that records takes 1 token, got {token.shape[0]}")
        self.records.next, self.records.room = &counts[0], counts.shape[0]
        try:
            self.step([state], token, logits, activity)
            if self.records.room:
                raise ValueError(
                    f"counts must be as many as the network's, {self.records.room} are off"
                )
        finally:
            self.records.next = NULL

    def forward(self, state, const int64_t[::1] tokens, float[:, ::1] logits,
                int64_t[:, ::1] activity, const uint8_t[::1] cancelled=None):
        """Consecutive tokens of one sequence; how many were read.

        state: a writable buffer; tokens (T,) in [0, V); logits (T, V), or (1, V) for those after
        the last token alone, or (0, V) for none; activity (1, 3) is added to.
        cancelled (1,) or None: another thread sets it to end the call after some tokens, without
        the logits of the others.
        """
        cdef Py_ssize_t length = tokens.shape[0], rows = logits.shape[0], at = 0, count
        cdef void *pointer = self._state(state)
        cdef int want
        cdef float *out
        cdef const uint8_t *poll = NULL
        cdef st_rounding rounding
        self._check(tokens, logits.shape[1], activity.shape[1])
        if rows != length and rows > 1 or activity.shape[0] != 1:
            raise ValueError(f"logits must have {length}, 1 or 0 rows, has {rows}")
        if cancelled is not None:
            poll = &cancelled[0]
        with nogil:
            rounding = st_plain_rounding()
            while at < length and (poll == NULL or not poll[0]):
                count = min(length - at, self.most_tokens)
                out = NULL
                want = 0
                if rows == length:
                    want = 2
                    out = &logits[at, 0]
                elif rows == 1 and at + count == length:
                    want = 1
                    out = &logits[0, 0]
                self.one_pass(
                    self.compiled, &pointer, &tokens[at], count, 1, want, out, &activity[0, 0]
                )
                at += count
            st_set_rounding(rounding)
        return at

    cdef void _check(
        self, const int64_t[::1] tokens, Py_ssize_t columns, Py_ssize_t counters
    ) except *:
        cdef Py_ssize_t i
        if columns != self.vocabulary or counters != len(SEQUENCE_COUNTERS):
            raise ValueError(f"logits must have {self.vocabulary} columns, has {columns}")
        for i in range(tokens.shape[0]):
            if not 0 <= tokens[i] < self.vocabulary:
                raise ValueError(
                    f"token must be in [0, {self.vocabulary}), got {tokens[i]} at position {i}"
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
