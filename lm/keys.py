"""Compares a checkpoint's tensors with a model's; one error lists all differences."""

from collections.abc import Mapping

import torch
from torch import Tensor

from spiketrain.runtime.errors import SpiketrainError


def check_keys(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """Raise ValueError listing every missing, unknown and misshapen key; shapes: name -> shape."""
    wrong = [f"{name} is missing" for name in shapes.keys() - tensors.keys()]
    wrong += [f"{name} is unknown" for name in tensors.keys() - shapes.keys()]
    wrong += [
        f"{name} is {tuple(tensors[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise ValueError(f"keys do not fit {what}: " + "; ".join(sorted(wrong)))


def finite(values: Tensor, name: str, first: int = 0) -> Tensor:
    """The values (N, ...) of the tensor `name` from row `first` on.

    Raises SpiketrainError, a ValueError, naming the first that is not finite.
    """
    good = torch.isfinite(values)
    if not bool(good.all()):
        at = tuple(int(axis) for axis in (~good).nonzero()[0])
        where = (first + at[0], *at[1:])
        raise SpiketrainError(f"{name} at {where} must be finite, got {values[at].item()}")
    return values
