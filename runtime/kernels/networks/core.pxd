from libc.stdint cimport int32_t, int64_t, uint8_t

from spiketrain.runtime.kernels.isa.dispatch cimport st_dense, st_kernels, st_rows
from spiketrain.runtime.kernels.products.dense cimport Dense
from spiketrain.runtime.kernels.products.events cimport Sparse

cdef extern from "core.h" nogil:
    enum:
        ST_BITS
        ST_NO_LOGITS
        ST_LAST_LOGITS
        ST_ALL_LOGITS

    ctypedef struct st_counters:
        pass

    ctypedef struct st_sequence_counters:
        pass

    ctypedef struct st_record:
        int32_t *next
        Py_ssize_t room

    ctypedef struct st_embedding:
        int format
        const void *rows
        const float *scale
        Py_ssize_t stride, step

    ctypedef struct st_core:
        Py_ssize_t width, vocabulary, dial
        st_embedding embedding
        st_record record
        st_counters *head_counters

    ctypedef struct st_pass:
        st_core *core
        char *const *state
        Py_ssize_t tokens
        int scan
        st_sequence_counters *sequence

    int st_core_init(st_core *core, const st_kernels *kernels, int threads)

# Advances the tokens of a pass and writes rows of logits: see core.h.
ctypedef void (*st_run)(
    const st_pass *network_pass, const int64_t *token, int want, float *logits
) noexcept nogil


cdef class Core:
    cdef st_core *core
    cdef st_run run
    cdef object keep
    cdef bint records
    cdef Py_ssize_t max_tokens, state_bytes, alignment
    cdef readonly object counters

    cdef void _set_core(
        self, st_core *core, st_run run, Py_ssize_t max_tokens, threads
    ) except *
    cdef void _set_state(self, Py_ssize_t state_bytes, Py_ssize_t alignment) noexcept
    cdef void _set_embedding(self, rows, scale, Py_ssize_t width) except *
    cdef void _set_counters(self, Py_ssize_t parts) except *
    cdef st_counters *_part(self, Py_ssize_t part) except NULL
    cdef st_dense _dense(self, Dense matrix, Py_ssize_t inputs, Py_ssize_t outputs) except *
    cdef st_rows _rows(self, Sparse matrix, Py_ssize_t inputs, Py_ssize_t outputs) except *
    cdef Py_ssize_t _offset(self, Py_ssize_t at, Py_ssize_t size) except -1
    cdef void _check(
        self, const int64_t[::1] tokens, Py_ssize_t columns, Py_ssize_t counters
    ) except *
    cdef void *_state(self, state) except NULL
    cdef const float *_floats(self, array, Py_ssize_t size) except NULL
    cdef const float *_optional(self, array, Py_ssize_t size) except? NULL
