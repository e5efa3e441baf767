"""Firing rules and their surrogate gradients: when a neuron fires, and how the loss sees it."""

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
