"""Typed doors to fused.c: shapes are checked with the GIL, work is done without it.

bfloat16 arrays come as uint16 views.  Fused types pick the C function at compile time.
"""

from libc.stdint cimport int64_t, uint16_t

ctypedef fused real:
    float
    uint16_t

cdef extern from "fused.h" nogil:
    ctypedef struct egru_shape:
        Py_ssize_t batch
        Py_ssize_t hidden
        float damp
        float support
        float floor
    void egru_forward_f32(egru_shape, const float*, const float*, const float*, const float*,
                          const float*, float*, float*, float*, float*, float*, float*, float*)
    void egru_forward_bf16(egru_shape, const uint16_t*, const uint16_t*, const float*,
                           const float*, const float*, float*, float*, float*, float*, float*,
                           float*, uint16_t*)
    void egru_backward_f32(egru_shape, const float*, const float*, const float*, const float*,
                           const float*, const float*, const float*, const float*, const float*,
                           const float*, float*, float*, float*, float*)
    void egru_backward_bf16(egru_shape, const uint16_t*, const uint16_t*, const float*,
                            const float*, const float*, const float*, const float*, const float*,
                            const float*, const float*, float*, uint16_t*, uint16_t*, float*)
    void softmax_xent_f32(Py_ssize_t, Py_ssize_t, float, const int64_t*, float*, float*)
    void softmax_xent_bf16(Py_ssize_t, Py_ssize_t, float, const int64_t*, uint16_t*, float*)


cdef int _check(name, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t want_rows,
                Py_ssize_t want_columns) except -1:
    if rows != want_rows or columns != want_columns:
        raise ValueError(f"{name} is ({rows}, {columns}), expected ({want_rows}, {want_columns})")
    return 0


def egru_forward(
    const real[:, ::1] xk, const real[:, ::1] yr, const float[::1] d, const float[::1] theta,
    const float[:, ::1] c_prev, float[:, :, ::1] saved, float[:, ::1] c, real[:, ::1] y,
):
    """One EGRU step after its matrix products.

    xk, yr (B, 3H): x K + b and y R, blocks z | r | g; d (3H,), theta (H,), c_prev (B, H).
    saved (5, B, H) receives z, r, g, y R_g + d_g and the cell before reset; c (B, H) the cell
    after reset; y (B, H) the event values.  Raises ValueError on a shape mismatch.
    """
    cdef egru_shape s
    s.batch, s.hidden = c_prev.shape[0], c_prev.shape[1]
    s.damp = s.support = s.floor = 0.0  # not read
    _check("xk", xk.shape[0], xk.shape[1], s.batch, 3 * s.hidden)
    _check("yr", yr.shape[0], yr.shape[1], s.batch, 3 * s.hidden)
    _check("d, theta", d.shape[0], theta.shape[0], 3 * s.hidden, s.hidden)
    _check("saved", saved.shape[0] * saved.shape[1], saved.shape[2], 5 * s.batch, s.hidden)
    _check("c", c.shape[0], c.shape[1], s.batch, s.hidden)
    _check("y", y.shape[0], y.shape[1], s.batch, s.hidden)
    if s.batch == 0 or s.hidden == 0:
        return
    with nogil:
        if real is float:
            egru_forward_f32(
                s, &xk[0, 0], &yr[0, 0], &d[0], &theta[0], &c_prev[0, 0], &saved[0, 0, 0],
                &saved[1, 0, 0], &saved[2, 0, 0], &saved[3, 0, 0], &saved[4, 0, 0], &c[0, 0],
                &y[0, 0])
        else:
            egru_forward_bf16(
                s, &xk[0, 0], &yr[0, 0], &d[0], &theta[0], &c_prev[0, 0], &saved[0, 0, 0],
                &saved[1, 0, 0], &saved[2, 0, 0], &saved[3, 0, 0], &saved[4, 0, 0], &c[0, 0],
                &y[0, 0])


def egru_backward(
    float damp, float support, float floor, const real[:, ::1] dy_out,
    const real[:, ::1] dy_rec, const float[::1] event_cost, const float[::1] theta,
    const float[:, ::1] c_prev, const float[:, :, ::1] saved, float[:, ::1] dc,
    real[:, ::1] dxk, real[:, ::1] dyr, float[::1] dtheta,
):
    """Backward of egru_forward with the triangular pseudo-derivative of the event.

    dy_out, dy_rec (B, H): gradients of y from above and from the next step; event_cost (H,):
    gradient of the loss by each unit's event, from activity regularisation; dc (B, H): gradient of
    the cell after reset, replaced by that of c_prev; floor: least event value the surrogate is
    multiplied by; dxk, dyr (B, 3H) out; dtheta (H,) added to.
    """
    cdef egru_shape s
    s.batch, s.hidden = c_prev.shape[0], c_prev.shape[1]
    s.damp, s.support, s.floor = damp, support, floor
    _check("dy_out", dy_out.shape[0], dy_out.shape[1], s.batch, s.hidden)
    _check("dy_rec", dy_rec.shape[0], dy_rec.shape[1], s.batch, s.hidden)
    _check("event_cost, theta", event_cost.shape[0], theta.shape[0], s.hidden, s.hidden)
    _check("saved", saved.shape[0] * saved.shape[1], saved.shape[2], 5 * s.batch, s.hidden)
    _check("dc", dc.shape[0], dc.shape[1], s.batch, s.hidden)
    _check("dxk", dxk.shape[0], dxk.shape[1], s.batch, 3 * s.hidden)
    _check("dyr", dyr.shape[0], dyr.shape[1], s.batch, 3 * s.hidden)
    _check("dtheta", dtheta.shape[0], 1, s.hidden, 1)
    if s.batch == 0 or s.hidden == 0:
        return
    with nogil:
        if real is float:
            egru_backward_f32(
                s, &dy_out[0, 0], &dy_rec[0, 0], &event_cost[0], &theta[0], &c_prev[0, 0],
                &saved[0, 0, 0], &saved[1, 0, 0], &saved[2, 0, 0], &saved[3, 0, 0],
                &saved[4, 0, 0], &dc[0, 0], &dxk[0, 0], &dyr[0, 0], &dtheta[0])
        else:
            egru_backward_bf16(
                s, &dy_out[0, 0], &dy_rec[0, 0], &event_cost[0], &theta[0], &c_prev[0, 0],
                &saved[0, 0, 0], &saved[1, 0, 0], &saved[2, 0, 0], &saved[3, 0, 0],
                &saved[4, 0, 0], &dc[0, 0], &dxk[0, 0], &dyr[0, 0], &dtheta[0])


def softmax_xent(float scale, const int64_t[::1] target, real[:, ::1] logits, float[::1] nll):
    """Negative log-likelihood in nats per row; logits (N, V) become their gradient times scale.

    target (N,) in [0, V), nll (N,) out.  Raises ValueError on a bad shape or target.
    """
    cdef Py_ssize_t i, rows = logits.shape[0], vocab = logits.shape[1]
    _check("target, nll", target.shape[0], nll.shape[0], rows, rows)
    for i in range(rows):
        if not 0 <= target[i] < vocab:
            raise ValueError(f"target[{i}] is {target[i]}, vocabulary has {vocab}")
    if rows == 0:
        return
    with nogil:
        if real is float:
            softmax_xent_f32(rows, vocab, scale, &target[0], &logits[0, 0], &nll[0])
        else:
            softmax_xent_bf16(rows, vocab, scale, &target[0], &logits[0, 0], &nll[0])
