"""Leaky integrate-and-fire units over token time: a plain loop, and a fused scan with gradients."""

import torch
from torch import Tensor

import spiketrain.lm.kernels.rwkv as rwkv
from spiketrain.lm.kernels.arrays import array, by_c, state_dtype
from spiketrain.lm.spikes import heaviside_atan, priced


def lif_reference(
    x: Tensor,
    v: Tensor,
    scale: Tensor,
    threshold: Tensor,
    cost: Tensor | None = None,
    *,
    tau: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """H = v + (scale x - v) / tau; s = 1 where h >= threshold; v = h (1 - s): hard reset to 0.

    x (T, B, C), v (B, C), scale and threshold (C,) -> spikes (T, B, C), membranes (B, C), both in
    the dtype of v.  Gradients come from autograd with the ATan surrogate, the reset included.
    cost (C,): gradient of the loss by each spike, the way activity regularisation enters.
    """
    spikes = []
    for current in x.to(v.dtype):
        h = v + (scale * current - v) / tau
        s = heaviside_atan(h - threshold)
        v = h * (1.0 - s)
        spikes.append(s)
    stacked = torch.stack(spikes)
    return priced(stacked, stacked, cost), v


def lif(
    x: Tensor,
    v: Tensor,
    scale: Tensor,
    threshold: Tensor,
    cost: Tensor | None = None,
    *,
    tau: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """As `lif_reference`, with a hand-written backward through time.

    Membranes are float32 (float64 beside float64).  No gradient enters or leaves them.
    """
    if not by_c(x):
        spikes, after = lif_reference(x, v.detach(), scale, threshold, cost, tau=tau)
        return spikes, after.detach()
    real = state_dtype(x.dtype)
    cost = torch.zeros_like(threshold) if cost is None else cost
    units = (y.to(real).contiguous() for y in (scale, threshold, cost))
    return _LIF.apply(x.contiguous(), v.detach().to(real), *units, tau)


class _LIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, v, scale, threshold, cost, tau):
        after, spikes = v.clone(), torch.empty(x.shape, dtype=v.dtype)
        steps = x.shape[0] if any(ctx.needs_input_grad) else 0
        h = torch.empty(steps, *v.shape, dtype=v.dtype)
        rwkv.lif_forward(tau, *map(array, (x, scale, threshold, after, h, spikes)))
        ctx.save_for_backward(x, scale, threshold, h, cost)
        ctx.tau = tau
        ctx.mark_non_differentiable(after)
        return spikes, after

    @staticmethod
    def backward(ctx, dspikes, _):
        x, scale, threshold, h, cost = ctx.saved_tensors
        dx, dscale, dthreshold = (torch.empty_like(y) for y in (x, scale, threshold))
        scratch = torch.empty_like(h[0])
        arrays = (x, scale, threshold, h, cost, dspikes.contiguous(), dx, dscale, dthreshold)
        rwkv.lif_backward(ctx.tau, *map(array, (*arrays, scratch)))
        return dx, None, dscale, dthreshold, None, None
