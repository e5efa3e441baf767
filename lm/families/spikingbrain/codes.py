"""Spike counts as trains of events: exact expansions in time, and back.

Only event hardware needs them: a product with a train is the product with its count.  Step t of T
counts 2^(T - t) in a bitwise code, 1 in the others.
"""

import torch
from torch import Tensor


def binary(counts: Tensor) -> Tensor:
    """Counts >= 0 (...) as trains of 0 and 1 (T, ...): as many ones as the count, first; T = max.

    Raises ValueError on a negative count.
    """
    if bool((counts < 0).any()):
        raise ValueError(f"counts must be at least 0, got {counts.min().item()}")
    return ternary(counts)


def ternary(counts: Tensor) -> Tensor:
    """Counts (...) as trains of -1, 0 and 1 (T, ...): the sign, |count| times; T = max|count|."""
    steps = torch.arange(int(counts.abs().max()), device=counts.device)
    fires = counts.abs() > steps.view(-1, *[1] * counts.ndim)
    return torch.sign(counts) * fires


def bitwise(counts: Tensor) -> Tensor:
    """Counts (...) as trains of -1, 0 and 1 (T, ...): sign times bit, the most significant first.

    T = max(1, ceil(log2(max|count| + 1))).
    """
    bits = max(1, int(counts.abs().max()).bit_length())
    return torch.sign(counts) * _bits(counts.abs().long(), bits).to(counts.dtype)


def twos_complement(counts: Tensor) -> Tensor:
    """Counts (...) as trains of 0 and 1 (T, ...): the bits of count mod 2^T, sign bit first.

    T = max(2, ceil(log2(max|count| + 1)) + 1).
    """
    bits = max(2, int(counts.abs().max()).bit_length() + 1)
    return _bits(counts.long() % (1 << bits), bits).to(counts.dtype)


def from_train(train: Tensor) -> Tensor:
    """The counts (...) of a binary or ternary train (T, ...)."""
    return train.sum(0)


def from_bits(train: Tensor, twos: bool = False) -> Tensor:
    """The counts (...) of a bitwise train (T, ...); twos: of two's complement."""
    steps = train.shape[0]
    weights = 2.0 ** torch.arange(steps - 1, -1, -1, dtype=train.dtype, device=train.device)
    counts = torch.tensordot(weights, train, 1)
    return counts - 2.0**steps * train[0] if twos else counts


def _bits(values: Tensor, bits: int) -> Tensor:
    """Bits (T, ...) of values >= 0 (...), the most significant first."""
    places = torch.arange(bits - 1, -1, -1, device=values.device).view(-1, *[1] * values.ndim)
    return values >> places & 1
