from spiketrain.runtime.kernels.isa.dispatch cimport st_rows

cdef class Sparse:
    cdef st_rows matrix
    cdef object keep
