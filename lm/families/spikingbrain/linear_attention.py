"""Gated linear attention of grouped heads: token by token, and a chunk at once.

    S <- diag(exp(g)) S + k v^T,   o = q^T S        (arXiv 2312.06635)

One state S (d, d) for each key/value head, rows by key channel, serves the G queries of its group.
q (B, T, K, G, d); k, v and the log decays g <= 0 (B, T, K, d); S (B, K, d, d).
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from spiketrain.lm.families.spikingbrain import gpu_kernels

CHUNK = 32
FACTORS = 40.0  # |exponent| up to which both halves of a decay and their product fit float32

Scanned = tuple[Tensor, Tensor]


def scan(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor) -> Scanned:
    """O (B, T, K, G, d) and the state after the last token, the quickest way there is."""
    if q.shape[1] == 1:
        return recurrent(q, k, v, g, state)
    kernel = gpu_kernels.chunk_gla() if q.is_cuda else None
    return gpu_kernels.scan(kernel, q, k, v, g, state) if kernel else chunked(q, k, v, g, state)


def recurrent(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor) -> Scanned:
    """O (B, T, K, G, d) and the state after the last token, one token after the other."""
    decay, outputs = g.exp(), []
    for t in range(q.shape[1]):
        state = decay[:, t, :, :, None] * state + k[:, t, :, :, None] * v[:, t, :, None]
        outputs.append(q[:, t] @ state)
    return torch.stack(outputs, 1), state


def chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, size: int = CHUNK
) -> Scanned:
    """The same, `size` tokens at once: products within a chunk, one pass of states between them.

    Within a chunk exp(b_t - b_s), b the running sum of g, is a product of two factors; where these
    would leave float32's range it is made for each pair instead.
    """
    steps = q.shape[1]
    pad = -steps % size
    q = F.pad(q, (0, 0, 0, 0, 0, 0, 0, pad)).unflatten(1, (-1, size))  # (B, N, C, K, G, d)
    k, v, g = (F.pad(x, (0, 0, 0, 0, 0, pad)).unflatten(1, (-1, size)) for x in (k, v, g))
    q = q.permute(0, 1, 3, 4, 2, 5)  # (B, N, K, G, C, d)
    k, v, g = (x.permute(0, 1, 3, 2, 4) for x in (k, v, g))  # (B, N, K, C, d)
    b = g.cumsum(-2)
    last = b[..., -1:, :]
    states, state = _between(k * (last - b).exp(), v, last.squeeze(-2).exp(), state)
    weights = _within(q, k, b)  # (B, N, K, G, C, C)
    out = weights @ v.unsqueeze(3)
    out = out + (q * b.exp().unsqueeze(3)) @ states.unsqueeze(3)
    return out.permute(0, 1, 4, 2, 3, 5).flatten(1, 2)[:, :steps], state


def _between(k: Tensor, v: Tensor, decay: Tensor, state: Tensor) -> Scanned:
    """The states (B, N, K, d, d) that chunks start from, and the last.  decay (B, N, K, d)."""
    added = k.transpose(-1, -2) @ v
    starts = []
    for n in range(k.shape[1]):
        starts.append(state)
        state = decay[:, n, :, :, None] * state + added[:, n]
    return torch.stack(starts, 1), state


def _within(q: Tensor, k: Tensor, b: Tensor) -> Tensor:
    """sum_c q_tc k_sc exp(b_tc - b_sc) for s <= t, else 0: (B, N, K, G, C, C)."""
    size = b.shape[-2]
    middle = b[..., size // 2 : size // 2 + 1, :]
    away = b - middle
    if float(away.detach().abs().max()) < FACTORS:
        weights = (q * away.exp().unsqueeze(3)) @ (k * (-away).exp()).transpose(-1, -2).unsqueeze(3)
        return weights.tril()
    pairs = b.unsqueeze(-2) - b.unsqueeze(-3)  # (B, N, K, t, s, d)
    keys = k.unsqueeze(-3) * pairs.clamp(max=0.0).exp()
    return torch.einsum("bnkgtd,bnktsd->bnkgts", q, keys).tril()
