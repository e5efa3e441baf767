"""Integer codes for weights: symmetric int8, one scale per output."""

import torch
from torch import Tensor


def quantize_int8(weight: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """Codes in [-127, 127] (int8, weight's shape) and float32 scales, weight ~ codes * scale.

    One scale for all values along `dim`: max|w| / 127, or 1 where they are all zero; rounding is
    half to even.  Raises ValueError on a weight that is not finite.
    """
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("weight has values that are not finite")
    weight = weight.detach().to(torch.float32)
    scale = weight.abs().amax(dim) / 127.0
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = torch.round(weight / scale.unsqueeze(dim)).clamp_(-127, 127).to(torch.int8)
    return codes, scale
