"""Functions of float32, the same bits in every build.

exp, sigmoid and tanh are at most 2 ulp (measured: below 0.6) from the true value over the whole
range; NaN gives NaN, infinities their limits. softmax is at most 2 ulp from it (measured: below
1.6), nats, a float64, 3e-10.
"""

from libc.stdint cimport int64_t

from spiketrain.runtime.kernels.isa.dispatch cimport current


def exp(const float[::1] x, float[::1] out):
    """out = e ** x.  x (N,), out (N,)."""
    check_sizes(x, out)
    cdef Py_ssize_t n = x.shape[0]
    if n:
        with nogil:
            current().exp_all(&x[0], &out[0], n)


def sigmoid(const float[::1] x, float[::1] out):
    """out = 1 / (1 + e ** -x).  x (N,), out (N,)."""
    check_sizes(x, out)
    cdef Py_ssize_t n = x.shape[0]
    if n:
        with nogil:
            current().sigmoid_all(&x[0], &out[0], n)


def tanh(const float[::1] x, float[::1] out):
    """out = tanh(x).  x (N,), out (N,)."""
    check_sizes(x, out)
    cdef Py_ssize_t n = x.shape[0]
    if n:
        with nogil:
            current().tanh_all(&x[0], &out[0], n)


def softmax(const float[::1] x, float[::1] out):
    """out = e ** x over the sum of e ** x.  x (N,), out (N,); -inf gives 0.

    ValueError for NaN, and unless the greatest element is finite.
    """
    check_sizes(x, out)
    cdef Py_ssize_t n = x.shape[0]
    cdef int failed = 0
    if n:
        with nogil:
            failed = current().softmax(&x[0], n, &out[0])
    if failed:
        raise ValueError("x must have a finite greatest element, and no NaN")


def nats(const float[:, :] logits, const int64_t[::1] target, double[::1] out):
    """out[t] = -ln of the softmax of logits[t] at target[t], from that row alone.

    logits (T, V) with contiguous rows, target (T,) in [0, V), out (T,). ValueError for NaN, and
    unless the greatest element of each row is finite.
    """
    cdef Py_ssize_t t, n = logits.shape[1]
    cdef double loss = 0.0
    if target.shape[0] != logits.shape[0] or out.shape[0] != logits.shape[0]:
        raise ValueError(
            f"target and out must have {logits.shape[0]} elements, have {target.shape[0]} and "
            f"{out.shape[0]}"
        )
    if n > 1 and logits.strides[1] != sizeof(float):
        raise ValueError("logits must have contiguous rows")
    for t in range(target.shape[0]):
        if not 0 <= target[t] < n:
            raise ValueError(f"target[{t}] must be in [0, {n}), got {target[t]}")
    for t in range(target.shape[0]):
        with nogil:
            loss = current().nats(&logits[t, 0], n, target[t])
        if loss != loss:
            raise ValueError(f"logits[{t}] must have a finite greatest element, and no NaN")
        out[t] = loss


cdef void check_sizes(const float[::1] x, float[::1] out) except *:
    if out.shape[0] != x.shape[0]:
        raise ValueError(f"out has {out.shape[0]} elements, x has {x.shape[0]}")
