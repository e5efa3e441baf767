"""Parts of a decoder's layers: RMS norm, rotation, spike counts, gated linear and window attention.

Sums over a vector have sixteen partial sums in a fixed order, sums over keys and channels go in
ascending order, so all builds give the same bits.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint16_t

from spiketrain.runtime.kernels.isa.checks cimport check_size
from spiketrain.runtime.kernels.isa.dispatch cimport current

cdef extern from "kernels.h" nogil:
    enum:
        ST_TILE_KEYS

cdef extern from "functions.h" nogil:
    void st_sincos(double x, float *sine, float *cosine)

TILE = ST_TILE_KEYS


def rms_norm(const float[::1] x, const float[::1] weight, float epsilon, float[::1] out):
    """out = x / sqrt(mean(x ** 2) + epsilon) * weight.  All (N,)."""
    cdef Py_ssize_t n = out.shape[0]
    check_size("x", x.shape[0], n)
    check_size("weight", weight.shape[0], n)
    if n:
        with nogil:
            current().rms_norm(&x[0], &weight[0], epsilon, n, &out[0])


def sincos(const double[::1] x, float[::1] sine, float[::1] cosine):
    """Sine and cosine of angles in [0, 2 ** 31), rounded from float64.  All (N,)."""
    cdef Py_ssize_t i
    check_size("sine", sine.shape[0], x.shape[0])
    check_size("cosine", cosine.shape[0], x.shape[0])
    for i in range(x.shape[0]):
        st_sincos(x[i], &sine[i], &cosine[i])


def rotate(const float[::1] cosine, const float[::1] sine, float[::1] x):
    """Turn the pairs (x[i], x[N + i]) by the angles of cosine (N,) and sine (N,).  x (2 N,)."""
    cdef Py_ssize_t half = cosine.shape[0]
    check_size("sine", sine.shape[0], half)
    check_size("x", x.shape[0], 2 * half)
    if half:
        with nogil:
            current().rotate(&cosine[0], &sine[0], half, &x[0])


def silu_product(const float[::1] gate, const float[::1] up, float[::1] out):
    """out = gate * sigmoid(gate) * up.  All (N,)."""
    cdef Py_ssize_t n = out.shape[0]
    check_size("gate", gate.shape[0], n)
    check_size("up", up.shape[0], n)
    if n:
        with nogil:
            current().silu_product(&gate[0], &up[0], n, &out[0])


def decay(const float[::1] x, float normalizer, float[::1] out):
    """out = sigmoid(x) ** (1 / normalizer).  Both (N,)."""
    cdef Py_ssize_t n = out.shape[0]
    check_size("x", x.shape[0], n)
    if n:
        with nogil:
            current().decay(&x[0], normalizer, n, &out[0])


def spike_values(const float[::1] x, float k, float dead_zone, float[::1] out):
    """out = s V with V = max(mean |x| / k, 1e-5) and s = round(x / V); returns V.  Both (N,).

    Half to even; s is 0 where |x / V| is below dead_zone.
    """
    cdef Py_ssize_t n = out.shape[0]
    cdef float threshold = 0.0
    check_size("x", x.shape[0], n)
    if n:
        with nogil:
            threshold = current().spike_values(&x[0], k, dead_zone, n, &out[0])
    return threshold


def spike_list(
    const float[::1] x, float k, float dead_zone, int32_t most, int32_t[::1] index,
    int16_t[::1] value
):
    """Indices and counts s of spike_values that are not 0, one beyond most in several entries.

    Returns (entries, V, inputs that have any).  index and value need room for every entry and 16
    more: N + 16 + N (k + 1) / most is enough.
    """
    cdef Py_ssize_t n = x.shape[0], count = 0
    cdef float threshold = 0.0
    cdef int64_t fired = 0
    room = n + 16 + int(n * (k + 1) / most)
    if index.shape[0] < room or value.shape[0] < room:
        raise ValueError(f"index and value must have room for {room}, have {index.shape[0]}")
    if n:
        with nogil:
            count = current().spike_list(
                &x[0], k, dead_zone, n, most, &index[0], &value[0], &threshold, &fired
            )
    return count, threshold, fired


def gla(
    const float[::1] decay, const float[::1] k, const float[::1] v, const float[:, ::1] q,
    float[:, ::1] state, float[:, ::1] out
):
    """One token of gated linear attention of a key/value head and its queries.

    state = decay[i] state[i] + k[i] v, rows i by key channel; out[h] = sum of q[h, i] state[i].
    decay, k, v (N,); state (N, N); q, out (G, N).
    """
    cdef Py_ssize_t n = decay.shape[0], heads = q.shape[0]
    check_size("k", k.shape[0], n)
    check_size("v", v.shape[0], n)
    check_size("state rows", state.shape[0], n)
    check_size("state columns", state.shape[1], n)
    check_size("q columns", q.shape[1], n)
    check_size("out rows", out.shape[0], heads)
    check_size("out columns", out.shape[1], n)
    if n and heads:
        with nogil:
            current().gla(
                &decay[0], &k[0], &v[0], &q[0, 0], heads, n, &state[0, 0], &out[0, 0]
            )


def window_tile(
    const float[:, ::1] keys, const float[:, ::1] values, const float[:, ::1] q,
    Py_ssize_t first, Py_ssize_t last, float[::1] most, float[::1] total, float[:, ::1] sums
):
    """Add the keys first .. last of a tile to the softmax of queries q (G, N).

    keys (N, 64) by channel, values (64, N); most, total (G,) and sums (G, N): the greatest score so
    far, the sum of e ** (score - most) and of that times values.
    """
    cdef Py_ssize_t n = q.shape[1], heads = q.shape[0]
    check_size("keys rows", keys.shape[0], n)
    check_size("keys columns", keys.shape[1], ST_TILE_KEYS)
    check_size("values rows", values.shape[0], ST_TILE_KEYS)
    check_size("values columns", values.shape[1], n)
    check_size("most", most.shape[0], heads)
    check_size("total", total.shape[0], heads)
    check_size("sums rows", sums.shape[0], heads)
    check_size("sums columns", sums.shape[1], n)
    if not 0 <= first < last <= ST_TILE_KEYS:
        raise ValueError(f"keys must be some of {ST_TILE_KEYS}, got {first} .. {last}")
    if n and heads:
        with nogil:
            current().window_tile(
                &keys[0, 0], &values[0, 0], &q[0, 0], heads, n, first, last, &most[0], &total[0],
                &sums[0, 0]
            )


def widen_bfloat16(const uint16_t[::1] x, float[::1] out):
    """out = the float32 whose upper half is x.  Both (N,)."""
    check_size("x", x.shape[0], out.shape[0])
    if x.shape[0]:
        with nogil:
            current().widen_bfloat16(&x[0], x.shape[0], &out[0])


def widen_keys(const int8_t[:, ::1] codes, const float[::1] scale, float[:, ::1] out):
    """out = codes * scale[t] for keys t in columns.  codes, out (N, 64), scale (64,)."""
    check_size("scale", scale.shape[0], ST_TILE_KEYS)
    check_size("codes columns", codes.shape[1], ST_TILE_KEYS)
    check_size("out", out.shape[0] * out.shape[1], codes.shape[0] * ST_TILE_KEYS)
    if codes.shape[0]:
        with nogil:
            current().widen_keys(&codes[0, 0], &scale[0], codes.shape[0], &out[0, 0])


def widen_values(const int8_t[:, ::1] codes, const float[::1] scale, float[:, ::1] out):
    """out = codes * scale[t] for values t in rows.  codes, out (64, N), scale (64,)."""
    check_size("scale", scale.shape[0], ST_TILE_KEYS)
    check_size("codes rows", codes.shape[0], ST_TILE_KEYS)
    check_size("out", out.shape[0] * out.shape[1], codes.shape[1] * ST_TILE_KEYS)
    if codes.shape[1]:
        with nogil:
            current().widen_values(&codes[0, 0], &scale[0], codes.shape[1], &out[0, 0])
