"""The EGRU recurrence over time: a plain autograd loop, and a fused scan with its own backward.

Both compute the equations of EvNN's EGRU layer (arXiv 2206.06178 as implemented): gates z, r, g,
graded events y = o c~ with o = H(c~ - theta), reset c = c~ - o theta.  Input products arrive
batched over time; only the recurrent product is made step by step.
"""

import torch
from torch import Tensor

import spiketrain.lm.kernels.fused as fused
from spiketrain.lm.spikes import PUBLISHED_FLOOR, graded, heaviside, triangle

Scan = tuple[Tensor, Tensor]


def scan_reference(
    xk: Tensor,
    y: Tensor,
    c: Tensor,
    kernel: Tensor,
    bias: Tensor,
    theta: Tensor,
    *,
    damp: float = 0.7,
    support: float = 1.0,
    floor: float = PUBLISHED_FLOOR,
    zoneout: float = 0.0,
    training: bool = False,
) -> Scan:
    """Plain loop: xk (T, B, 3H) = x K + b, y, c (B, H), kernel R (H, 3H), bias d (3H,), theta (H,).

    Returns the event values (T, B, H) and the last cell (B, H).  Gradients come from autograd with
    the triangular surrogate, see `spiketrain.lm.spikes.graded` for its floor.  Zoneout with
    probability `zoneout`: a random mask keeps the old cell in training, the expectation is used
    in evaluation.
    """
    out = []
    for x in xk:
        xz, xr, xg = x.chunk(3, -1)
        yz, yr, yg = (y @ kernel + bias).chunk(3, -1)
        z, r = torch.sigmoid(xz + yz), torch.sigmoid(xr + yr)
        g = torch.tanh(xg + r * yg)
        updated = z * c + (1.0 - z) * g
        if zoneout and training:
            updated = c + torch.bernoulli(torch.full_like(c, 1.0 - zoneout)) * (updated - c)
        elif zoneout:
            updated = zoneout * c + (1.0 - zoneout) * updated
        o = heaviside(updated - theta, damp, support)
        y, c = graded(o, updated, floor), updated - o * theta
        out.append(y)
    return torch.stack(out), c


def scan(
    xk: Tensor,
    y: Tensor,
    c: Tensor,
    kernel: Tensor,
    bias: Tensor,
    theta: Tensor,
    event_cost: Tensor | None = None,
    *,
    damp: float = 0.7,
    support: float = 1.0,
    floor: float = PUBLISHED_FLOOR,
) -> Scan:
    """As `scan_reference` without zoneout, with a hand-written backward through time.

    Runs in xk's dtype for matrix products (float32, bfloat16; float64 for tests) and float32 (or
    float64) for cells.  event_cost (H,): gradient of the loss by each event of a unit, the way
    activity regularisation enters; it reaches cells through the surrogate only.
    """
    if event_cost is None:
        event_cost = torch.zeros_like(theta)
    return _Scan.apply(xk, y, c, kernel, bias, theta, event_cost, damp, support, floor)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, xk, y0, c0, kernel, bias, theta, event_cost, damp, support, floor):
        steps, batch, width = xk.shape
        hidden = width // 3
        weight = kernel.to(xk.dtype)
        real = torch.promote_types(xk.dtype, torch.float32)
        bias, theta = bias.to(real).contiguous(), theta.to(real).contiguous()
        xk = xk.contiguous()
        saved = torch.empty(steps, 5, batch, hidden, dtype=real, device=xk.device)
        y = torch.empty(steps + 1, batch, hidden, dtype=xk.dtype, device=xk.device)
        y[0] = y0
        c = c0.to(real).contiguous()
        product = torch.empty_like(xk[0])
        step = _forward_step(xk)
        for t in range(steps):
            torch.mm(y[t], weight, out=product)
            c = step(xk[t], product, bias, theta, c, saved[t], y[t + 1])
        ctx.save_for_backward(y, c0.to(real), weight, theta, event_cost.to(real), saved)
        ctx.damp, ctx.support, ctx.floor = damp, support, floor
        ctx.dtypes = kernel.dtype, bias.dtype
        return y[1:], c

    @staticmethod
    def backward(ctx, dy, dc_last):
        y, c0, weight, theta, event_cost, saved = ctx.saved_tensors
        steps, _, batch, hidden = saved.shape
        dy = dy.to(y.dtype).contiguous()
        dc = dc_last.to(saved.dtype).clone()
        dxk = torch.empty(steps, batch, 3 * hidden, dtype=y.dtype, device=y.device)
        dyr = torch.empty_like(dxk)
        dtheta = torch.zeros_like(theta)
        back = torch.zeros(batch, hidden, dtype=y.dtype, device=y.device)
        transposed = weight.t().contiguous()
        step = _backward_step(y)
        for t in reversed(range(steps)):
            before = c0 if t == 0 else _cell_after_reset(saved[t - 1, 4], theta)
            dc = step(
                ctx.damp, ctx.support, ctx.floor, dy[t], back, event_cost, theta, before, saved[t],
                dc, dxk[t], dyr[t], dtheta,
            )  # fmt: skip
            torch.mm(dyr[t], transposed, out=back)
        flat = dyr.flatten(0, 1)
        dkernel = (y[:-1].flatten(0, 1).t() @ flat).to(ctx.dtypes[0])
        dbias = flat.sum(0, dtype=saved.dtype).to(ctx.dtypes[1])
        return dxk, back, dc, dkernel, dbias, dtheta, None, None, None, None


def _cell_after_reset(c_tilde: Tensor, theta: Tensor) -> Tensor:
    return c_tilde - (c_tilde > theta) * theta


def _forward_step(like: Tensor):
    return _forward_fused if _fused_takes(like) else _forward_torch


def _backward_step(like: Tensor):
    return _backward_fused if _fused_takes(like) else _backward_torch


def _fused_takes(like: Tensor) -> bool:
    return like.device.type == "cpu" and like.dtype in (torch.float32, torch.bfloat16)


def _view(x: Tensor):
    """A NumPy view for the C kernels; NumPy has no bfloat16, so its bits travel as uint16."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).detach().numpy()


def _forward_fused(xk, product, bias, theta, c, saved, y):
    after = torch.empty_like(c)
    fused.egru_forward(*map(_view, (xk, product, bias, theta, c, saved, after, y)))
    return after


def _forward_torch(xk, product, bias, theta, c, saved, y):
    xz, xr, xg = xk.to(c.dtype).chunk(3, -1)
    yz, yr, q = (product.to(c.dtype) + bias).chunk(3, -1)
    z, r = torch.sigmoid(xz + yz), torch.sigmoid(xr + yr)
    g = torch.tanh(xg + r * q)
    c_tilde = z * c + (1.0 - z) * g
    o = (c_tilde - theta > 0).to(c.dtype)
    torch.stack((z, r, g, q, c_tilde), out=saved)
    y.copy_(o * c_tilde)
    return c_tilde - o * theta


def _backward_fused(
    damp, support, floor, dy, back, cost, theta, before, saved, dc, dxk, dyr, dtheta
):
    arrays = map(_view, (dy, back, cost, theta, before, saved, dc, dxk, dyr, dtheta))
    fused.egru_backward(damp, support, floor, *arrays)
    return dc


def _backward_torch(
    damp, support, floor, dy, back, cost, theta, before, saved, dc, dxk, dyr, dtheta
):
    z, r, g, q, c_tilde = saved
    v = c_tilde - theta
    o = (v > 0).to(v.dtype)
    dy = dy.to(v.dtype) + back.to(v.dtype)
    dv = (dy * c_tilde.clamp_min(floor) - dc * theta + cost) * triangle(v, damp, support)
    dct = dy * o + dc + dv
    dtheta -= (dv + dc * o).sum(0)
    dz = dct * (before - g) * z * (1.0 - z)
    dg = dct * (1.0 - z) * (1.0 - g * g)
    dr = dg * q * r * (1.0 - r)
    dxk.copy_(torch.cat((dz, dr, dg), -1))
    dyr.copy_(torch.cat((dz, dr, dg * r), -1))
    return dct * z
