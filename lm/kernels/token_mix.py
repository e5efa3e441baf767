"""RWKV's token shift: mixtures of each token's vector and the one before it."""

import torch
from torch import Tensor

import spiketrain.lm.kernels.rwkv as rwkv
from spiketrain.lm.kernels.arrays import array, by_c


def token_mix_reference(y: Tensor, before: Tensor, mu: Tensor, dtype: torch.dtype) -> Tensor:
    """out[m] = y mu[m] + y⁻ (1 - mu[m]), y⁻ = y one step earlier, `before` at the first step.

    y (T, B, C), before (B, C), mu (M, C) -> (M, T, B, C) in `dtype`.
    """
    shifted = torch.cat((before[None], y[:-1]))
    mu = mu[:, None, None]
    return (y * mu + shifted * (1.0 - mu)).to(dtype)


def token_mix(y: Tensor, before: Tensor, mu: Tensor, dtype: torch.dtype) -> Tensor:
    """As `token_mix_reference` in one pass; `before` gets no gradient."""
    if by_c(y) and (y.dtype == torch.float64) == (dtype == torch.float64):
        return _TokenMix.apply(y.contiguous(), before.contiguous(), mu.contiguous(), dtype)
    return token_mix_reference(y, before.detach(), mu, dtype)


class _TokenMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, before, mu, dtype):
        out = torch.empty(len(mu), *y.shape, dtype=dtype)
        rwkv.mix_forward(*map(array, (y, before, mu, out)))
        ctx.save_for_backward(y, before, mu)
        return out

    @staticmethod
    def backward(ctx, dout):
        y, before, mu = ctx.saved_tensors
        dy, dmu = torch.empty_like(y), torch.empty_like(mu)
        rwkv.mix_backward(*map(array, (y, before, mu, dout.contiguous(), dy, dmu)))
        return dy, None, dmu, None
