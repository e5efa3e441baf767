# How a thread rounds floats. Another library may have told it to take denormals for zeros, or to
# round otherwise; results must not depend on that.
cdef extern from "<fenv.h>" nogil:
    ctypedef struct fenv_t:
        pass

    int fegetenv(fenv_t *floats)
    int fesetenv(const fenv_t *floats)
    const fenv_t *FE_DFL_ENV


cdef inline void plain_floats(fenv_t *before) noexcept nogil:
    """To nearest, with denormals; `before` is for fesetenv afterwards."""
    fegetenv(before)
    fesetenv(FE_DFL_ENV)
