"""Causal attention to the last keys, with rotary positions; the window's keys go in and come out.

Softmax(q k / sqrt(d)) over the `visible` last keys, the query's own included.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.lm.families.spikingbrain import gpu_kernels

BLOCK = 256  # queries whose scores are made at once


def rotate(x: Tensor, positions: Tensor, rates: Tensor) -> Tensor:
    """Rotary embedding of x (B, T, heads, d) at positions (B, T), halves (i, i + d/2) paired.

    rates (d/2,): radians a token.  Angles are float64, since positions may be large.
    """
    half = x.shape[-1] // 2
    angles = positions[..., None].double() * rates  # (B, T, d/2)
    cos, sin = (f.to(x.dtype).unsqueeze(2) for f in (angles.cos(), angles.sin()))
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    before: Tensor,
    visible: int,
    sinks: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Attention of q (B, T, H, d) over k, v (B, M + T, K, d), M of them older -> (B, T, H, d).

    before (B,): how many of the M older keys, the newest ones, a lane has.  sinks (2, N, K, d):
    keys and values that every query sees.  dtype: that of the model's products, in which flash-attn
    may compute on a GPU; torch computes in q's.
    """
    steps, older = q.shape[1], k.shape[1] - q.shape[1]
    kernel = gpu_kernels.flash_attention() if q.is_cuda and dtype in gpu_kernels.HALVES else None
    if kernel and sinks is None and bool((before >= older).all()):
        return gpu_kernels.attend(kernel, q, k, v, visible, dtype)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, heads, tokens, d)
    outputs = []
    for start in range(0, steps, BLOCK):
        stop = min(steps, start + BLOCK)
        first = max(0, older + start - visible + 1)
        keys, values = k[:, :, first : older + stop], v[:, :, first : older + stop]
        at = torch.arange(older + start, older + stop, device=q.device)[:, None]
        key_positions = torch.arange(first, older + stop, device=q.device)
        mask = (key_positions <= at) & (key_positions > at - visible)  # (t, m)
        mask = mask & (key_positions >= older - before[:, None, None])  # (B, t, m)
        if sinks is not None:
            every = sinks.transpose(1, 2).unsqueeze(1).expand(-1, len(q), -1, -1, -1)
            keys, values = torch.cat([every[0], keys], 2), torch.cat([every[1], values], 2)
            mask = F.pad(mask, (sinks.shape[1], 0), value=True)
        outputs.append(
            F.scaled_dot_product_attention(
                q[:, :, start:stop], keys, values, mask.unsqueeze(1), enable_gqa=True
            )
        )
    return torch.cat(outputs, 2).transpose(1, 2)
