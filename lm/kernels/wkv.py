"""RWKV-4's recurrence over time: a plain autograd loop, and a fused scan with its own backward."""

import torch
from torch import Tensor

import spiketrain.lm.kernels.rwkv as rwkv
from spiketrain.lm.kernels.arrays import array, by_c, state_dtype

Sums = tuple[Tensor, Tensor, Tensor]
NOTHING_YET = -1e38  # exponent of the empty sums


def gated_wkv_reference(
    k: Tensor, v: Tensor, r: Tensor, w: Tensor, u: Tensor, sums: Sums
) -> tuple[Tensor, Sums]:
    """sigmoid(r) wkv, wkv_t = (sum of e^((t-1-s)w + k_s) v_s, s < t, + e^(u+k_t) v_t) / (no v).

    k, v, r (T, B, C), w < 0 and u (C,); sums: numerator p and denominator q over e^o, and o, each
    (B, C).  Returns (T, B, C) in k's dtype and the sums after the last step.
    """
    p, q, o = sums
    real, out = state_dtype(k.dtype), []
    for key, value, gate in zip(k.to(real), v.to(real), r.to(real), strict=True):
        n = torch.maximum(o, u + key).detach()
        old, new = torch.exp(o - n), torch.exp(u + key - n)
        out.append(torch.sigmoid(gate) * (old * p + new * value) / (old * q + new))
        n = torch.maximum(o + w, key).detach()
        old, new = torch.exp(o + w - n), torch.exp(key - n)
        p, q, o = old * p + new * value, old * q + new, n
    return torch.stack(out).to(k.dtype), (p, q, o)


def gated_wkv(
    k: Tensor, v: Tensor, r: Tensor, w: Tensor, u: Tensor, sums: Sums
) -> tuple[Tensor, Sums]:
    """As `gated_wkv_reference`, with a hand-written backward through time.

    Sums are float32 (float64 beside float64).  No gradient enters or leaves them: backpropagation
    ends where a chunk begins.
    """
    if not by_c(k):
        out, after = gated_wkv_reference(k, v, r, w, u, sums)
        return out, tuple(x.detach() for x in after)
    real = state_dtype(k.dtype)
    stacked = torch.stack([x.detach().to(real) for x in sums])
    args = (k.contiguous(), v.contiguous(), r.contiguous(), w.to(real), u.to(real), stacked)
    out, after = _GatedWKV.apply(*args)
    return out, tuple(after.unbind())


class _GatedWKV(torch.autograd.Function):
    @staticmethod
    def forward(ctx, k, v, r, w, u, stacked):
        after, out = stacked.clone(), torch.empty_like(k)
        steps = k.shape[0] if any(ctx.needs_input_grad) else 0
        saved = torch.empty(steps, *stacked.shape, dtype=stacked.dtype)
        w, u = w.contiguous(), u.contiguous()
        rwkv.wkv_forward(*map(array, (k, v, r, w, u, after, saved, out)))
        ctx.save_for_backward(k, v, r, w, u, saved)
        ctx.mark_non_differentiable(after)
        return out, after

    @staticmethod
    def backward(ctx, dout, _):
        k, v, r, w, u, saved = ctx.saved_tensors
        gradients = [torch.empty_like(x) for x in (k, v, r, w, u)]
        scratch = torch.empty_like(saved[0, :2])
        arrays = (k, v, r, w, u, saved, dout.contiguous(), *gradients, scratch)
        rwkv.wkv_backward(*map(array, arrays))
        return *gradients, None
