"""Tensors as arrays for the C kernels, and which tensors those take."""

import torch
from torch import Tensor

BY_C = (torch.float32, torch.bfloat16, torch.float64)


def by_c(like: Tensor) -> bool:
    """Whether the C kernels take data like this: in main memory, of a dtype they know."""
    return like.device.type == "cpu" and like.dtype in BY_C


def array(x: Tensor):
    """A NumPy view; NumPy has no bfloat16, so its bits travel as uint16."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).detach().numpy()


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """What is summed or kept over time beside data of `dtype`: float32, or float64."""
    return torch.promote_types(dtype, torch.float32)
