from spiketrain.runtime.kernels.isa.dispatch cimport st_dense

cdef extern from "pool.h" nogil:
    ctypedef struct st_pool:
        pass

    st_pool *st_pool_new(int threads)
    void st_pool_free(st_pool *pool)

cdef class Pool:
    cdef st_pool *pool

cdef class Dense:
    cdef st_dense matrix
    cdef object keep

cdef const void *first_weight(int format, weight, Py_ssize_t outputs) except? NULL
