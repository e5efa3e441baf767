cdef extern from "floats.h" nogil:
    ctypedef struct st_rounding:
        pass

    st_rounding st_plain_rounding()
    void st_set_rounding(st_rounding rounding)
