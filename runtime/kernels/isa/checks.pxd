# Checks of arguments, the same in every kernel module.


cdef inline void check_size(str name, Py_ssize_t got, Py_ssize_t rule) except *:
    if got != rule:
        raise ValueError(f"{name} must be {rule}, got {got}")


cdef inline void check_rows(
    str name, Py_ssize_t columns, Py_ssize_t stride, Py_ssize_t itemsize
) except *:
    if columns > 1 and stride != itemsize:
        raise ValueError(f"{name} must have contiguous rows")
