"""Typed doors to rwkv.c: shapes are checked with the GIL, work is done without it.

bfloat16 arrays come as uint16 views.  What is summed or kept over time (`acc`) is float32, or
float64 beside float64 data; another pairing is a TypeError.  Time-major: (T, B, C).
"""

from libc.stdint cimport uint16_t

ctypedef fused real:
    float
    uint16_t
    double

ctypedef fused acc:
    float
    double

cdef extern from "rwkv.h" nogil:
    ctypedef struct rwkv_shape:
        Py_ssize_t steps
        Py_ssize_t batch
        Py_ssize_t width
    void mix_forward_f32(rwkv_shape, Py_ssize_t, const float*, const float*, const float*, float*)
    void mix_forward_bf16(rwkv_shape, Py_ssize_t, const float*, const float*, const float*,
                          uint16_t*)
    void mix_forward_f64(rwkv_shape, Py_ssize_t, const double*, const double*, const double*,
                         double*)
    void mix_backward_f32(rwkv_shape, Py_ssize_t, const float*, const float*, const float*,
                          const float*, float*, float*)
    void mix_backward_bf16(rwkv_shape, Py_ssize_t, const float*, const float*, const float*,
                           const uint16_t*, float*, float*)
    void mix_backward_f64(rwkv_shape, Py_ssize_t, const double*, const double*, const double*,
                          const double*, double*, double*)
    void wkv_forward_f32(rwkv_shape, const float*, const float*, const float*, const float*,
                         const float*, float*, float*, float*, float*, float*)
    void wkv_forward_bf16(rwkv_shape, const uint16_t*, const uint16_t*, const uint16_t*,
                          const float*, const float*, float*, float*, float*, float*, uint16_t*)
    void wkv_forward_f64(rwkv_shape, const double*, const double*, const double*, const double*,
                         const double*, double*, double*, double*, double*, double*)
    void wkv_backward_f32(rwkv_shape, const float*, const float*, const float*, const float*,
                          const float*, const float*, const float*, float*, float*, float*, float*,
                          float*, float*)
    void wkv_backward_bf16(rwkv_shape, const uint16_t*, const uint16_t*, const uint16_t*,
                           const float*, const float*, const float*, const uint16_t*, float*,
                           uint16_t*, uint16_t*, uint16_t*, float*, float*)
    void wkv_backward_f64(rwkv_shape, const double*, const double*, const double*, const double*,
                          const double*, const double*, const double*, double*, double*, double*,
                          double*, double*, double*)
    void lif_forward_f32(rwkv_shape, float, const float*, const float*, const float*, float*,
                         float*, float*)
    void lif_forward_bf16(rwkv_shape, float, const uint16_t*, const float*, const float*, float*,
                          float*, float*)
    void lif_forward_f64(rwkv_shape, double, const double*, const double*, const double*, double*,
                         double*, double*)
    void lif_backward_f32(rwkv_shape, float, const float*, const float*, const float*,
                          const float*, const float*, const float*, float*, float*, float*, float*)
    void lif_backward_bf16(rwkv_shape, float, const uint16_t*, const float*, const float*,
                           const float*, const float*, const float*, float*, uint16_t*, float*,
                           float*)
    void lif_backward_f64(rwkv_shape, double, const double*, const double*, const double*,
                          const double*, const double*, const double*, double*, double*, double*,
                          double*)
    void counts_forward_f32(rwkv_shape, float, const float*, float*)
    void counts_forward_bf16(rwkv_shape, float, const uint16_t*, uint16_t*)
    void counts_forward_f64(rwkv_shape, double, const double*, double*)
    double counts_backward_f32(rwkv_shape, float, const float*, const float*, const float*, float*)
    double counts_backward_bf16(rwkv_shape, float, const uint16_t*, const float*, const uint16_t*,
                                uint16_t*)
    double counts_backward_f64(rwkv_shape, double, const double*, const double*, const double*,
                               double*)
    void relu2_forward_f32(Py_ssize_t, const float*, float*)
    void relu2_forward_bf16(Py_ssize_t, const uint16_t*, uint16_t*)
    void relu2_forward_f64(Py_ssize_t, const double*, double*)
    void relu2_backward_f32(Py_ssize_t, const float*, const float*, float*)
    void relu2_backward_bf16(Py_ssize_t, const uint16_t*, const uint16_t*, uint16_t*)
    void relu2_backward_f64(Py_ssize_t, const double*, const double*, double*)


cdef rwkv_shape _shape(Py_ssize_t steps, Py_ssize_t batch, Py_ssize_t width) noexcept nogil:
    cdef rwkv_shape s
    s.steps, s.batch, s.width = steps, batch, width
    return s


cdef int _check(name, const Py_ssize_t* have, Py_ssize_t ndim, wanted) except -1:
    found = tuple([have[i] for i in range(ndim)])
    if found != wanted:
        raise ValueError(f"{name} is {found}, expected {wanted}")
    return 0


cdef int _pairing() except -1:
    raise TypeError("float64 data goes with float64 state, float32 and bfloat16 with float32")


def mix_forward(
    const acc[:, :, ::1] y, const acc[:, ::1] prev, const acc[:, ::1] mu, real[:, :, :, ::1] out,
):
    """out[m] = y * mu[m] + before * (1 - mu[m]), before = y one step earlier.

    y (T, B, C), prev (B, C): the step before the first, mu (M, C), out (M, T, B, C).
    """
    cdef Py_ssize_t M = mu.shape[0]
    cdef rwkv_shape s = _shape(y.shape[0], y.shape[1], y.shape[2])
    _check("prev", &prev.shape[0], 2, (s.batch, s.width))
    _check("mu", &mu.shape[0], 2, (M, s.width))
    _check("out", &out.shape[0], 4, (M, s.steps, s.batch, s.width))
    if M * s.steps * s.batch * s.width == 0:
        return
    if real is float and acc is float:
        with nogil:
            mix_forward_f32(s, M, &y[0, 0, 0], &prev[0, 0], &mu[0, 0], &out[0, 0, 0, 0])
    elif real is uint16_t and acc is float:
        with nogil:
            mix_forward_bf16(s, M, &y[0, 0, 0], &prev[0, 0], &mu[0, 0], &out[0, 0, 0, 0])
    elif real is double and acc is double:
        with nogil:
            mix_forward_f64(s, M, &y[0, 0, 0], &prev[0, 0], &mu[0, 0], &out[0, 0, 0, 0])
    else:
        _pairing()


def mix_backward(
    const acc[:, :, ::1] y, const acc[:, ::1] prev, const acc[:, ::1] mu,
    const real[:, :, :, ::1] dout, acc[:, :, ::1] dy, acc[:, ::1] dmu,
):
    """Backward of mix_forward: dout (M, T, B, C) -> dy (T, B, C), dmu (M, C); prev gets none."""
    cdef Py_ssize_t M = mu.shape[0]
    cdef rwkv_shape s = _shape(y.shape[0], y.shape[1], y.shape[2])
    _check("prev", &prev.shape[0], 2, (s.batch, s.width))
    _check("mu", &mu.shape[0], 2, (M, s.width))
    _check("dout", &dout.shape[0], 4, (M, s.steps, s.batch, s.width))
    _check("dy", &dy.shape[0], 3, (s.steps, s.batch, s.width))
    _check("dmu", &dmu.shape[0], 2, (M, s.width))
    if M * s.steps * s.batch * s.width == 0:
        return
    if real is float and acc is float:
        with nogil:
            mix_backward_f32(s, M, &y[0, 0, 0], &prev[0, 0], &mu[0, 0], &dout[0, 0, 0, 0],
                             &dy[0, 0, 0], &dmu[0, 0])
    elif real is uint16_t and acc is float:
        with nogil:
            mix_backward_bf16(s, M, &y[0, 0, 0], &prev[0, 0], &mu[0, 0], &dout[0, 0, 0, 0],
                              &dy[0, 0, 0], &dmu[0, 0])
    elif real is double and acc is double:
        with nogil:
            mix_backward_f64(s, M, &y[0, 0, 0], &prev[0, 0], &mu[0, 0], &dout[0, 0, 0, 0],
                             &dy[0, 0, 0], &dmu[0, 0])
    else:
        _pairing()


def wkv_forward(
    const real[:, :, ::1] k, const real[:, :, ::1] v, const real[:, :, ::1] r,
    const acc[::1] w, const acc[::1] u, acc[:, :, ::1] state, acc[:, :, :, ::1] saved,
    real[:, :, ::1] out,
):
    """out = sigmoid(r) * wkv.  k, v, r, out (T, B, C); w < 0, u (C,).

    state (3, B, C): p, q, o, replaced by those after the last step; saved (T, 3, B, C) gets those
    before each step, or nothing if its T is 0.
    """
    cdef rwkv_shape s = _shape(k.shape[0], k.shape[1], k.shape[2])
    _check("v", &v.shape[0], 3, (s.steps, s.batch, s.width))
    _check("r", &r.shape[0], 3, (s.steps, s.batch, s.width))
    _check("out", &out.shape[0], 3, (s.steps, s.batch, s.width))
    _check("w", &w.shape[0], 1, (s.width,))
    _check("u", &u.shape[0], 1, (s.width,))
    _check("state", &state.shape[0], 3, (3, s.batch, s.width))
    if saved.shape[0]:
        _check("saved", &saved.shape[0], 4, (s.steps, 3, s.batch, s.width))
    if s.steps * s.batch * s.width == 0:
        return
    cdef acc* keep = &saved[0, 0, 0, 0] if saved.shape[0] else NULL
    if real is float and acc is float:
        with nogil:
            wkv_forward_f32(s, &k[0, 0, 0], &v[0, 0, 0], &r[0, 0, 0], &w[0], &u[0],
                            &state[0, 0, 0], &state[1, 0, 0], &state[2, 0, 0], keep,
                            &out[0, 0, 0])
    elif real is uint16_t and acc is float:
        with nogil:
            wkv_forward_bf16(s, &k[0, 0, 0], &v[0, 0, 0], &r[0, 0, 0], &w[0], &u[0],
                             &state[0, 0, 0], &state[1, 0, 0], &state[2, 0, 0], keep,
                             &out[0, 0, 0])
    elif real is double and acc is double:
        with nogil:
            wkv_forward_f64(s, &k[0, 0, 0], &v[0, 0, 0], &r[0, 0, 0], &w[0], &u[0],
                            &state[0, 0, 0], &state[1, 0, 0], &state[2, 0, 0], keep,
                            &out[0, 0, 0])
    else:
        _pairing()


def wkv_backward(
    const real[:, :, ::1] k, const real[:, :, ::1] v, const real[:, :, ::1] r,
    const acc[::1] w, const acc[::1] u, const acc[:, :, :, ::1] saved,
    const real[:, :, ::1] dout, real[:, :, ::1] dk, real[:, :, ::1] dv, real[:, :, ::1] dr,
    acc[::1] dw, acc[::1] du, acc[:, :, ::1] scratch,
):
    """Backward of wkv_forward with what it saved; no gradient enters or leaves the state.

    dout (T, B, C) -> dk, dv, dr (T, B, C), dw, du (C,); scratch (2, B, C).
    """
    cdef rwkv_shape s = _shape(k.shape[0], k.shape[1], k.shape[2])
    for name, same in (("v", v), ("r", r), ("dout", dout), ("dk", dk), ("dv", dv), ("dr", dr)):
        if same.shape[0] != s.steps or same.shape[1] != s.batch or same.shape[2] != s.width:
            raise ValueError(f"{name} is not ({s.steps}, {s.batch}, {s.width})")
    _check("w", &w.shape[0], 1, (s.width,))
    _check("u", &u.shape[0], 1, (s.width,))
    _check("saved", &saved.shape[0], 4, (s.steps, 3, s.batch, s.width))
    _check("dw", &dw.shape[0], 1, (s.width,))
    _check("du", &du.shape[0], 1, (s.width,))
    _check("scratch", &scratch.shape[0], 3, (2, s.batch, s.width))
    if s.steps * s.batch * s.width == 0:
        return
    if real is float and acc is float:
        with nogil:
            wkv_backward_f32(s, &k[0, 0, 0], &v[0, 0, 0], &r[0, 0, 0], &w[0], &u[0],
                             &saved[0, 0, 0, 0], &dout[0, 0, 0], &scratch[0, 0, 0], &dk[0, 0, 0],
                             &dv[0, 0, 0], &dr[0, 0, 0], &dw[0], &du[0])
    elif real is uint16_t and acc is float:
        with nogil:
            wkv_backward_bf16(s, &k[0, 0, 0], &v[0, 0, 0], &r[0, 0, 0], &w[0], &u[0],
                              &saved[0, 0, 0, 0], &dout[0, 0, 0], &scratch[0, 0, 0],
                              &dk[0, 0, 0], &dv[0, 0, 0], &dr[0, 0, 0], &dw[0], &du[0])
    elif real is double and acc is double:
        with nogil:
            wkv_backward_f64(s, &k[0, 0, 0], &v[0, 0, 0], &r[0, 0, 0], &w[0], &u[0],
                             &saved[0, 0, 0, 0], &dout[0, 0, 0], &scratch[0, 0, 0], &dk[0, 0, 0],
                             &dv[0, 0, 0], &dr[0, 0, 0], &dw[0], &du[0])
    else:
        _pairing()


def lif_forward(
    double tau, const real[:, :, ::1] x, const acc[::1] scale, const acc[::1] threshold,
    acc[:, ::1] v, acc[:, :, ::1] h, acc[:, :, ::1] spikes,
):
    """h = v + (scale x - v) / tau; spikes = h >= threshold; v = 0 where it fired, else h.

    x, spikes (T, B, C), scale, threshold (C,), v (B, C) in and out; h (T, B, C) gets the membranes
    before reset, or nothing if its T is 0.
    """
    cdef rwkv_shape s = _shape(x.shape[0], x.shape[1], x.shape[2])
    _check("spikes", &spikes.shape[0], 3, (s.steps, s.batch, s.width))
    _check("scale", &scale.shape[0], 1, (s.width,))
    _check("threshold", &threshold.shape[0], 1, (s.width,))
    _check("v", &v.shape[0], 2, (s.batch, s.width))
    if h.shape[0]:
        _check("h", &h.shape[0], 3, (s.steps, s.batch, s.width))
    if s.steps * s.batch * s.width == 0:
        return
    cdef acc* keep = &h[0, 0, 0] if h.shape[0] else NULL
    if real is float and acc is float:
        with nogil:
            lif_forward_f32(s, <float> tau, &x[0, 0, 0], &scale[0], &threshold[0], &v[0, 0], keep,
                            &spikes[0, 0, 0])
    elif real is uint16_t and acc is float:
        with nogil:
            lif_forward_bf16(s, <float> tau, &x[0, 0, 0], &scale[0], &threshold[0], &v[0, 0], keep,
                             &spikes[0, 0, 0])
    elif real is double and acc is double:
        with nogil:
            lif_forward_f64(s, tau, &x[0, 0, 0], &scale[0], &threshold[0], &v[0, 0], keep,
                            &spikes[0, 0, 0])
    else:
        _pairing()


def lif_backward(
    double tau, const real[:, :, ::1] x, const acc[::1] scale, const acc[::1] threshold,
    const acc[:, :, ::1] h, const acc[::1] cost, const acc[:, :, ::1] dspikes,
    real[:, :, ::1] dx, acc[::1] dscale, acc[::1] dthreshold, acc[:, ::1] scratch,
):
    """Backward of lif_forward, surrogate 1 / (1 + (pi z)^2); nothing enters or leaves the state.

    dspikes (T, B, C), cost (C,): gradient of each spike from activity regularisation ->
    dx (T, B, C), dscale, dthreshold (C,); scratch (B, C).
    """
    cdef rwkv_shape s = _shape(x.shape[0], x.shape[1], x.shape[2])
    _check("h", &h.shape[0], 3, (s.steps, s.batch, s.width))
    _check("dspikes", &dspikes.shape[0], 3, (s.steps, s.batch, s.width))
    _check("dx", &dx.shape[0], 3, (s.steps, s.batch, s.width))
    _check("scale", &scale.shape[0], 1, (s.width,))
    _check("threshold", &threshold.shape[0], 1, (s.width,))
    _check("cost", &cost.shape[0], 1, (s.width,))
    _check("dscale", &dscale.shape[0], 1, (s.width,))
    _check("dthreshold", &dthreshold.shape[0], 1, (s.width,))
    _check("scratch", &scratch.shape[0], 2, (s.batch, s.width))
    if s.steps * s.batch * s.width == 0:
        return
    scratch[:, :] = 0
    if real is float and acc is float:
        with nogil:
            lif_backward_f32(s, <float> tau, &x[0, 0, 0], &scale[0], &threshold[0], &h[0, 0, 0],
                             &cost[0], &dspikes[0, 0, 0], &scratch[0, 0], &dx[0, 0, 0], &dscale[0],
                             &dthreshold[0])
    elif real is uint16_t and acc is float:
        with nogil:
            lif_backward_bf16(s, <float> tau, &x[0, 0, 0], &scale[0], &threshold[0], &h[0, 0, 0],
                              &cost[0], &dspikes[0, 0, 0], &scratch[0, 0], &dx[0, 0, 0],
                              &dscale[0], &dthreshold[0])
    elif real is double and acc is double:
        with nogil:
            lif_backward_f64(s, tau, &x[0, 0, 0], &scale[0], &threshold[0], &h[0, 0, 0], &cost[0],
                             &dspikes[0, 0, 0], &scratch[0, 0], &dx[0, 0, 0], &dscale[0],
                             &dthreshold[0])
    else:
        _pairing()


def counts_forward(double theta, const real[:, ::1] x, real[:, ::1] out):
    """out = sign(x) floor(|x| / unit) unit, unit = theta * mean|x| of the row; x, out (N, C)."""
    cdef rwkv_shape s = _shape(x.shape[0], 1, x.shape[1])
    _check("out", &out.shape[0], 2, (s.steps, s.width))
    if s.steps * s.width == 0:
        return
    with nogil:
        if real is float:
            counts_forward_f32(s, <float> theta, &x[0, 0], &out[0, 0])
        elif real is uint16_t:
            counts_forward_bf16(s, <float> theta, &x[0, 0], &out[0, 0])
        else:
            counts_forward_f64(s, theta, &x[0, 0], &out[0, 0])


def counts_backward(
    double theta, const real[:, ::1] x, const acc[::1] cost, const real[:, ::1] dout,
    real[:, ::1] dx,
):
    """Backward of counts_forward: writes dx (N, C), returns the gradient of theta over C.

    cost (C,): gradient of each event (a count that is not 0) from activity regularisation.
    """
    cdef double dtheta = 0.0
    cdef rwkv_shape s = _shape(x.shape[0], 1, x.shape[1])
    _check("dout", &dout.shape[0], 2, (s.steps, s.width))
    _check("dx", &dx.shape[0], 2, (s.steps, s.width))
    _check("cost", &cost.shape[0], 1, (s.width,))
    if s.steps * s.width == 0:
        return 0.0
    if real is float and acc is float:
        with nogil:
            dtheta = counts_backward_f32(s, <float> theta, &x[0, 0], &cost[0], &dout[0, 0],
                                         &dx[0, 0])
    elif real is uint16_t and acc is float:
        with nogil:
            dtheta = counts_backward_bf16(s, <float> theta, &x[0, 0], &cost[0], &dout[0, 0],
                                          &dx[0, 0])
    elif real is double and acc is double:
        with nogil:
            dtheta = counts_backward_f64(s, theta, &x[0, 0], &cost[0], &dout[0, 0], &dx[0, 0])
    else:
        _pairing()
    return dtheta


def relu2_forward(const real[::1] x, real[::1] out):
    """out = relu(x)^2, both (N,)."""
    cdef Py_ssize_t n = x.shape[0]
    _check("out", &out.shape[0], 1, (n,))
    if n == 0:
        return
    with nogil:
        if real is float:
            relu2_forward_f32(n, &x[0], &out[0])
        elif real is uint16_t:
            relu2_forward_bf16(n, &x[0], &out[0])
        else:
            relu2_forward_f64(n, &x[0], &out[0])


def relu2_backward(const real[::1] x, const real[::1] dout, real[::1] dx):
    """dx = 2 relu(x) dout, all (N,)."""
    cdef Py_ssize_t n = x.shape[0]
    _check("dout", &dout.shape[0], 1, (n,))
    _check("dx", &dx.shape[0], 1, (n,))
    if n == 0:
        return
    with nogil:
        if real is float:
            relu2_backward_f32(n, &x[0], &dout[0], &dx[0])
        elif real is uint16_t:
            relu2_backward_bf16(n, &x[0], &dout[0], &dx[0])
        else:
            relu2_backward_f64(n, &x[0], &dout[0], &dx[0])
