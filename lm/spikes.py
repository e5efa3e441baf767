"""Firing rules and their surrogate gradients: when a neuron fires, and how the loss sees it."""

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
