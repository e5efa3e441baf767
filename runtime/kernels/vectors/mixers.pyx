"""Elementwise parts of token mixers: LayerNorm, token shift, WKV, LIF, squared ReLU, spike counts.

Every sum over a vector has sixteen partial sums in a fixed order, so all builds give the same bits.
"""

from libc.stdint cimport int16_t, int32_t

from spiketrain.runtime.kernels.isa.dispatch cimport current


def layer_norm(
    const float[::1] x, const float[::1] weight, const float[::1] bias, float epsilon,
    float[::1] out
):
    """out = (x - mean) / sqrt(variance + epsilon) * weight + bias.  All (N,)."""
    cdef Py_ssize_t n = out.shape[0]
    check_sizes(n, x.shape[0], weight.shape[0], bias.shape[0])
    if n:
        with nogil:
            current().layer_norm(&x[0], &weight[0], &bias[0], epsilon, n, &out[0])


def token_shift(
    const float[::1] now, const float[::1] before, const float[::1] mix, float[::1] out
):
    """out = now * mix + before * (1 - mix).  All (N,)."""
    cdef Py_ssize_t n = out.shape[0]
    check_sizes(n, now.shape[0], before.shape[0], mix.shape[0])
    if n:
        with nogil:
            current().token_shift(&now[0], &before[0], &mix[0], n, &out[0])


def wkv(
    const float[::1] r, const float[::1] k, const float[::1] v, const float[::1] decay,
    const float[::1] bonus, float[::1] p, float[::1] q, float[::1] o, float[::1] out
):
    """out = sigmoid(r) * wkv for one token, and the state p, q, o after it.  All (N,).

    With n = max(o, bonus + k), A = e^(o - n), B = e^(bonus + k - n): wkv = (A p + B v) / (A q + B).
    With n = max(o + decay, k), A = e^(o + decay - n), B = e^(k - n): p = A p + B v, q = A q + B,
    o = n.
    """
    cdef Py_ssize_t n = out.shape[0]
    check_sizes(n, r.shape[0], k.shape[0], v.shape[0])
    check_sizes(n, decay.shape[0], bonus.shape[0], n)
    check_sizes(n, p.shape[0], q.shape[0], o.shape[0])
    if n:
        with nogil:
            current().wkv(
                &r[0], &k[0], &v[0], &decay[0], &bonus[0], n, &p[0], &q[0], &o[0], &out[0]
            )


def lif(
    const float[::1] x, const float[::1] scale, const float[::1] threshold, float tau,
    float[::1] membrane, int32_t[::1] count
):
    """One token of leaky integrate and fire; adds each spike to `count`, returns their number.

    h = membrane + (scale * x - membrane) / tau; a spike if h >= threshold; membrane = h, or 0 after
    a spike.  All (N,).
    """
    cdef Py_ssize_t n = count.shape[0], spikes = 0
    check_sizes(n, x.shape[0], scale.shape[0], threshold.shape[0])
    check_sizes(n, membrane.shape[0], n, n)
    if n:
        with nogil:
            spikes = current().lif(
                &x[0], &scale[0], &threshold[0], tau, n, &membrane[0], &count[0]
            )
    return spikes


def gate(const float[::1] r, const float[::1] x, float[::1] out):
    """out = sigmoid(r) * x.  All (N,)."""
    cdef Py_ssize_t n = out.shape[0]
    check_sizes(n, r.shape[0], x.shape[0], n)
    if n:
        with nogil:
            current().gate(&r[0], &x[0], n, &out[0])


def square_relu(const float[::1] x, float[::1] out):
    """out = max(x, 0) ** 2.  Both (N,)."""
    cdef Py_ssize_t n = out.shape[0]
    check_sizes(n, x.shape[0], n, n)
    if n:
        with nogil:
            current().square_relu(&x[0], n, &out[0])


def add_counts(const float[::1] x, const int32_t[::1] count, float[::1] out):
    """out = x + count.  All (N,)."""
    cdef Py_ssize_t n = out.shape[0]
    check_sizes(n, x.shape[0], count.shape[0], n)
    if n:
        with nogil:
            current().add_counts(&x[0], &count[0], n, &out[0])


def add_vector(const float[::1] x, float[::1] out):
    """out += x.  Both (N,)."""
    cdef Py_ssize_t n = out.shape[0]
    check_sizes(n, x.shape[0], n, n)
    if n:
        with nogil:
            current().add_vector(&x[0], n, &out[0])


def count_spikes(const float[::1] x, float scale, float dial, int16_t[::1] counts):
    """counts = sign(x) floor(|x| / V) with V = scale * mean |x|; returns V.

    x (N,), counts (N,), at most 32767 in size, 0 where |x| / V is below dial >= 1.  Where V is
    below 2 ** -100, all counts and what is returned are 0.
    """
    cdef Py_ssize_t n = counts.shape[0]
    cdef float threshold = 0.0
    check_sizes(n, x.shape[0], n, n)
    if n:
        with nogil:
            threshold = current().count_spikes(&x[0], scale, dial, n, &counts[0])
    return threshold


cdef void check_sizes(Py_ssize_t n, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c) except *:
    if a != n or b != n or c != n:
        raise ValueError(f"vectors must have {n} elements, have {a}, {b} and {c}")
