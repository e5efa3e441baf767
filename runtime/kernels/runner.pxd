from libc.stdint cimport int32_t, int64_t, uint8_t

cdef extern from "work.h" nogil:
    ctypedef struct st_record:
        int32_t *next
        Py_ssize_t room


# One pass of a network over tokens: scan 0, token i belongs to state[i]; scan 1, the tokens are
# consecutive in state[0].  want: 0 no logits, 1 those after the last token alone, 2 all.
ctypedef void (*st_pass)(
    void *network, void *const *state, const int64_t *token, Py_ssize_t tokens, int scan, int want,
    float *logits, void *activity
) noexcept nogil


cdef class Runner:
    cdef st_pass one_pass
    cdef void *compiled
    cdef st_record *records
    cdef object keep
    cdef Py_ssize_t most_tokens, vocabulary, state_bytes, alignment

    cdef void _runs(
        self, st_pass one_pass, void *compiled, Py_ssize_t most_tokens, Py_ssize_t vocabulary,
        Py_ssize_t state_bytes, Py_ssize_t alignment
    ) noexcept
    cdef void _check(
        self, const int64_t[::1] tokens, Py_ssize_t columns, Py_ssize_t counters
    ) except *
    cdef void *_state(self, state) except NULL
    cdef const float *_floats(self, array, Py_ssize_t size) except NULL
