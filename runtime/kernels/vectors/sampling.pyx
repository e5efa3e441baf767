"""A token from each row of logits: the greatest, or drawn from the likely ones."""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free, malloc

from spiketrain.runtime.kernels.isa.dispatch cimport current, st_kernels

cdef extern from "draw.h" nogil:
    ctypedef struct st_choice:
        double temperature, top_p, min_p, typical_p, random
        int64_t top_k

    ctypedef struct st_draw_memory:
        Py_ssize_t size
        double *weight
        double *key
        float *value
        int32_t *index
        int32_t *order

    double st_uniform(uint64_t seed, uint64_t position, uint64_t index)
    Py_ssize_t st_draw(const st_kernels *, const float *, Py_ssize_t, const st_choice *,
                       st_draw_memory *)

cdef enum:
    MOST = 64  # rows drawn at a time


def uniform(uint64_t seed, uint64_t position, uint64_t index):
    """The random number in [0, 1) of completion `index` of one request at one position.

    The first output of Philox4x64-10 (Salmon et al., 2011) with the key (seed, index) and the
    counter (1, position, 0, 0), as NumPy's Philox has it.
    """
    return st_uniform(seed, position, index)


cdef class Drawer:
    """Draws from rows of `size` logits, in memory of its own. One call at a time."""

    cdef st_draw_memory memory

    def __cinit__(self, Py_ssize_t size):
        if not 1 <= size < 1 << 31:
            raise ValueError(f"size must be from 1 to 2^31 - 1, got {size}")
        self.memory.size = size
        self.memory.weight = <double *>malloc(size * sizeof(double))
        self.memory.key = <double *>malloc(size * sizeof(double))
        self.memory.value = <float *>malloc(size * sizeof(float))
        self.memory.index = <int32_t *>malloc(size * sizeof(int32_t))
        self.memory.order = <int32_t *>malloc(size * sizeof(int32_t))
        if (
            self.memory.weight == NULL
            or self.memory.key == NULL
            or self.memory.value == NULL
            or self.memory.index == NULL
            or self.memory.order == NULL
        ):
            raise MemoryError

    def __dealloc__(self):
        free(self.memory.weight)
        free(self.memory.key)
        free(self.memory.value)
        free(self.memory.index)
        free(self.memory.order)

    @property
    def size(self):
        """Logits in a row."""
        return self.memory.size

    def draw(self, list rows, const double[:, ::1] choices, int64_t[::1] tokens):
        """tokens[b] is drawn from rows[b], or -1 where the greatest logit is not finite.

        rows: B of (V,) float32. choices (B, 6): temperature, top_k, top_p, min_p, typical_p as in
        SamplingParams, and a random number in [0, 1). tokens (B,).
        """
        cdef Py_ssize_t count = len(rows), start, b, n
        cdef const float *row[MOST]
        cdef st_choice choice[MOST]
        cdef const float[::1] view
        if choices.shape[0] != count or choices.shape[1] != 6 or tokens.shape[0] != count:
            raise ValueError(
                f"choices and tokens must be ({count}, 6) and ({count},), "
                f"got ({choices.shape[0]}, {choices.shape[1]}) and ({tokens.shape[0]},)"
            )
        for start in range(0, count, MOST):
            n = min(MOST, count - start)
            for b in range(n):
                view = rows[start + b]
                if view.shape[0] != self.memory.size:
                    raise ValueError(f"rows must have {self.memory.size}, got {view.shape[0]}")
                row[b] = &view[0]
                choice[b].temperature = choices[start + b, 0]
                choice[b].top_k = <int64_t>min(choices[start + b, 1], <double>self.memory.size)
                choice[b].top_p = choices[start + b, 2]
                choice[b].min_p = choices[start + b, 3]
                choice[b].typical_p = choices[start + b, 4]
                choice[b].random = choices[start + b, 5]
            with nogil:
                for b in range(n):
                    tokens[start + b] = st_draw(
                        current(), row[b], self.memory.size, &choice[b], &self.memory
                    )
