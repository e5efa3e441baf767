"""Firing rules and their surrogate gradients."""

import math

import torch
from torch import Tensor


def triangle(v: Tensor, damp: float, support: float) -> Tensor:
    """Pseudo-derivative damp * max(0, 1 - support * |v|) of the Heaviside step at v (any shape)."""
    return damp * (1.0 - support * v.abs()).clamp_min(0.0)


class _Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v: Tensor, damp: float, support: float) -> Tensor:
        ctx.save_for_backward(v)
        ctx.damp, ctx.support = damp, support
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (v,) = ctx.saved_tensors
        return grad * triangle(v, ctx.damp, ctx.support), None, None


def heaviside(v: Tensor, damp: float = 1.0, support: float = 1.0) -> Tensor:
    """1 where v > 0, else 0 (strict: nothing fires at equality), with the triangular surrogate.

    v: distance of the membrane potential from its threshold, any shape and float dtype.
    EGRU, arXiv 2206.06178; `damp` is the surrogate's height, 1/`support` its half-width.
    """
    return _Heaviside.apply(v, damp, support)


PUBLISHED_FLOOR = -math.inf  # an event's gradient is multiplied by the cell whatever its sign


class _Graded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, o: Tensor, c: Tensor, floor: float) -> Tensor:
        ctx.save_for_backward(o, c)
        ctx.floor = floor
        return o * c

    @staticmethod
    def backward(ctx, grad: Tensor):
        o, c = ctx.saved_tensors
        return grad * c.clamp_min(ctx.floor), grad * o, None


def graded(o: Tensor, c: Tensor, floor: float = PUBLISHED_FLOOR) -> Tensor:
    """Event values y = o * c of cells c at events o (one shape), dy/do = max(c, floor).

    The exact dy/do is c (EGRU, arXiv 2206.06178).  Below its threshold near zero c is negative:
    through the surrogate of o, a loss that asks for more of y then drives the cell further down.
    A floor of 0 takes that away; above 0, silent cells are pulled up where more of y is wanted.
    """
    y: Tensor = _Graded.apply(o, c, floor)
    return y


class _HeavisideAtan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v >= 0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (v,) = ctx.saved_tensors
        return grad / (1.0 + (math.pi * v).square())


def heaviside_atan(v: Tensor) -> Tensor:
    """1 where v >= 0, else 0 (fires at equality), with the surrogate 1 / (1 + (pi v)^2).

    v: distance of the membrane potential from its threshold, any shape and float dtype.
    SpikeGPT's rule (SpikingJelly's ATan, alpha 2) for membranes and for the binary embedding.
    """
    return _HeavisideAtan.apply(v)


class _Floor(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.floor()

    @staticmethod
    def backward(ctx, grad: Tensor):
        (z,) = ctx.saved_tensors
        return grad * z.clamp_max(1.0)


def count(z: Tensor) -> Tensor:
    """Spikes in a drive of z >= 0 thresholds: floor(z), so one spike at equality, none below 1.

    The surrogate slope is 1 where there are spikes and z in the dead zone below 1: what is far from
    its first spike is hardly moved by what that spike would do.
    """
    return _Floor.apply(z)


class _AnySpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return (z >= 1).to(z.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (z,) = ctx.saved_tensors
        return grad * triangle(z - 1.0, 1.0, 1.0)


def any_spike(z: Tensor) -> Tensor:
    """1 where a drive of z >= 0 thresholds gives a spike, else 0, with the triangular surrogate."""
    return _AnySpike.apply(z)


class _Priced(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, events: Tensor, cost: Tensor) -> Tensor:
        ctx.save_for_backward(cost)
        return values.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        (cost,) = ctx.saved_tensors
        return grad, cost.expand_as(grad), None


def priced(values: Tensor, events: Tensor, cost: Tensor | None) -> Tensor:
    """`values` themselves; their backward adds cost (width,) to the gradient of each event.

    The way activity regularisation enters: as if the loss held sum(cost * events).
    """
    return values if cost is None else _Priced.apply(values, events, cost)
