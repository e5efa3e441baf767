"""Kernels of other libraries for tensors on a GPU, used where they are installed.

Gated linear attention by flash-linear-attention (Triton), window attention by flash-attn. Both are
optional; without them, and on a CPU, torch's own operations do the same. Shapes as in
linear_attention.py and window_attention.py.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

HALVES = (torch.bfloat16, torch.float16)  # what flash-attn computes in


@cache
def chunk_gla() -> Callable[..., Any] | None:
    """flash-linear-attention's kernel; None where it is missing or puts heads before time.

    Releases before 0.3 take (B, H, T, d) unless told otherwise, and would mix the two silently.
    """
    try:
        from fla.ops import gla
    except ImportError:
        return None
    from fla import __version__

    major, minor = (int(part) for part in __version__.split(".")[:2])
    kernel: Callable[..., Any] = gla.chunk_gla
    return kernel if (major, minor) >= (0, 3) else None


@cache
def flash_attention() -> Callable[..., Any] | None:
    """flash-attn's kernel; None where it is missing."""
    try:
        from flash_attn import flash_attn_func
    except ImportError:
        return None
    kernel: Callable[..., Any] = flash_attn_func
    return kernel


def scan(
    kernel: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """linear_attention.chunked by chunk_gla, which wants a state for each query head.

    q (B, T, K, G, d); k, v, g (B, T, K, d); state (B, K, d, d). The G states of a group are the
    same, of which the first is returned.
    """
    group = q.shape[3]
    k, v, g = (x.repeat_interleave(group, 2) for x in (k, v, g))
    out, after = kernel(
        q.flatten(2, 3),
        k,
        v,
        g,
        scale=1.0,
        initial_state=state.repeat_interleave(group, 1),
        output_final_state=True,
    )
    return out.unflatten(2, (-1, group)).to(q.dtype), after[:, ::group].to(state.dtype)


def attend(
    kernel: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, visible: int, dtype: torch.dtype
) -> Tensor:
    """window_attention.attend by flash-attn, in `dtype`: every lane has all of the older keys.

    q (B, T, H, d); k, v (B, M + T, K, d). The last query stands at the last key.
    """
    out = kernel(q.to(dtype), k.to(dtype), v.to(dtype), causal=True, window_size=(visible - 1, 0))
    return out.to(q.dtype)
