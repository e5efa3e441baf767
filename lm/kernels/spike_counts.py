"""Vectors as signed spike counts of an adaptive threshold: what a spike-driven product reads."""

import torch
from torch import Tensor

import spiketrain.lm.kernels.rwkv as rwkv
from spiketrain.lm.kernels.arrays import array, by_c, state_dtype
from spiketrain.lm.spikes import any_spike, count, priced


def spike_counts_reference(x: Tensor, theta: Tensor, cost: Tensor | None = None) -> Tensor:
    """S V with V = theta mean|x| over the last axis, s = sign(x) floor(|x| / V): 0 where |x| < V.

    x (..., C), theta () > 0.  Gradients come from autograd with the surrogates of
    `spiketrain.lm.spikes`; that of theta is divided by C, lest one scalar outweigh all others
    where gradients are clipped.
    cost (C,): gradient of the loss by each event (s not 0), the way activity regularisation enters.
    """
    theta = theta.detach() + (theta - theta.detach()) / x.shape[-1]
    unit = theta * x.abs().mean(-1, keepdim=True)
    z = x.abs() / torch.where(unit > 0, unit, torch.ones_like(unit))
    return priced(torch.sign(x) * count(z) * unit, any_spike(z), cost)


def spike_counts(x: Tensor, theta: Tensor, cost: Tensor | None = None) -> Tensor:
    """As `spike_counts_reference`, in x's dtype, with means and thresholds in float32."""
    if not by_c(x):
        real = state_dtype(x.dtype)
        return spike_counts_reference(x.to(real), theta.to(real), cost).to(x.dtype)
    cost = theta.new_zeros(x.shape[-1]) if cost is None else cost
    return _SpikeCounts.apply(x.contiguous(), theta, cost.to(state_dtype(x.dtype)).contiguous())


class _SpikeCounts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, theta, cost):
        out = torch.empty_like(x)
        rwkv.counts_forward(theta.item(), array(x.flatten(0, -2)), array(out.flatten(0, -2)))
        ctx.save_for_backward(x, theta, cost)
        return out

    @staticmethod
    def backward(ctx, dout):
        x, theta, cost = ctx.saved_tensors
        dx = torch.empty_like(x)
        rows = (array(y.flatten(0, -2)) for y in (x, dout.contiguous(), dx))
        data, up, down = rows
        dtheta = rwkv.counts_backward(theta.item(), data, array(cost), up, down)
        return dx, torch.full_like(theta, dtheta), None
