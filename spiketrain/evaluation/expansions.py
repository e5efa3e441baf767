"""Whole-number spike counts as trains of simple spikes: how many time steps, how many spikes.

binary: |c| spikes of 0 or 1, so max|c| steps. ternary: the same with a sign on each spike.
bitwise: the bits of |c|, so as many steps as the largest count has bits, and as many spikes as a
count has ones. A sign costs binary and bitwise trains a second wire, which is counted as a bit.

The bit budget sets time steps beside the bits of an activation: a train of T binary spikes carries
at most T bits (ternary: T log2 3), whatever it is used for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Expansion:
    """One way to write counts as spikes; rates are of a unit and time step."""

    name: str
    steps: int
    spikes_per_unit: float
    firing_rate: float
    bit_budget: float


def expand(counts: NDArray[np.int32]) -> tuple[Expansion, ...]:
    """The three expansions of counts (T, H)."""
    size = np.abs(counts.astype(np.int64))
    largest = int(size.max(initial=0))
    signed = int((counts < 0).any())
    ones = sum(int(((size >> bit) & 1).sum()) for bit in range(largest.bit_length()))
    total = int(size.sum())
    rows = (
        ("binary", largest, total, largest + signed),
        ("ternary", largest, total, largest * math.log2(3)),
        ("bitwise", largest.bit_length(), ones, largest.bit_length() + signed),
    )
    return tuple(
        Expansion(
            name,
            steps,
            spikes / counts.size if counts.size else 0.0,
            spikes / (counts.size * steps) if counts.size * steps else 0.0,
            float(bits),
        )
        for name, steps, spikes, bits in rows
    )
