"""Logits to a token: greedy, or drawn at a temperature from the top_k and top_p most likely.

The draw depends on the logits, the parameters and the position alone: the random number is Philox
keyed by the seed with the position as its counter, ties are won by the lower id, and sums run in a
fixed order. Neither other sequences of the batch nor earlier draws have any influence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.errors import RequestError, SpiketrainError

_FIRST_GUESS = 256  # candidates looked at before all are sorted for top_p


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose the next token; checked at birth, RequestError names the field."""

    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: all tokens
    top_p: float = 1.0  # 1: all tokens
    seed: int = 0

    def __post_init__(self) -> None:
        if not (_is_number(self.temperature) and 0 <= self.temperature < math.inf):
            raise RequestError("temperature", "be a finite number of at least 0", self.temperature)
        if not (_is_whole(self.top_k) and self.top_k >= 0):
            raise RequestError("top_k", "be a whole number of at least 0", self.top_k)
        if not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise RequestError("top_p", "be a number in (0, 1]", self.top_p)
        if not (_is_whole(self.seed) and 0 <= self.seed < 1 << 64):
            raise RequestError("seed", "be a whole number in [0, 2**64)", self.seed)


def sample(logits: NDArray[np.float32], params: SamplingParams, position: int) -> int:
    """The token drawn at `position` (>= 0) from logits (V,), which may hold -inf but not NaN.

    top_k is applied first, then top_p to what is left, at the temperature.
    """
    best = int(np.argmax(logits))  # the first of several; NaN and +inf win
    if not math.isfinite(logits[best]):
        raise SpiketrainError(f"logits must be finite, got {logits[best]} for token {best}")
    if params.temperature == 0 or params.top_k == 1:
        return best
    ids = None
    if 0 < params.top_k < logits.size:
        ids = _most_likely(logits, params.top_k)
        logits = logits[ids]
    weights = _weights(logits, params.temperature)
    if params.top_p < 1:
        kept = _nucleus(weights, params.top_p)
        ids = kept if ids is None else ids[kept]
        weights = weights[kept]
    drawn = _draw(weights, uniform(params.seed, position))
    return drawn if ids is None else int(ids[drawn])


def uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) of one request at one position."""
    stream = np.random.Philox(key=seed, counter=[0, position, 0, 0])
    return (int(stream.random_raw()) >> 11) * 2.0**-53


def _weights(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Unnormalised probabilities, 1 for the most likely token."""
    with np.errstate(over="ignore"):
        scaled = (logits.astype(np.float64) - float(logits.max())) / temperature
    return np.asarray(np.exp(scaled), np.float64)


def _most_likely(values: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """Indices, ascending, of the `count` greatest values; of equal ones the first."""
    border = np.partition(values, values.size - count)[values.size - count]
    above = values > border
    missing = count - int(np.count_nonzero(above))
    above[np.flatnonzero(values == border)[:missing]] = True
    return np.flatnonzero(above)


def _nucleus(weights: NDArray[np.float64], top_p: float) -> NDArray[np.intp]:
    """Indices of the fewest greatest weights that hold at least `top_p` of the sum."""
    wanted = top_p * float(weights.sum())
    count = min(_FIRST_GUESS, weights.size)
    while True:
        ids = _most_likely(weights, count)
        ids = ids[np.argsort(-weights[ids], kind="stable")]
        mass = np.cumsum(weights[ids])
        if mass[-1] >= wanted or count == weights.size:
            return ids[: int(np.searchsorted(mass, wanted)) + 1]
        count = min(8 * count, weights.size)


def _draw(weights: NDArray[np.float64], random: float) -> int:
    """The index at which the running sum passes `random` of the total."""
    mass = np.cumsum(weights)
    index = int(np.searchsorted(mass, random * mass[-1], side="right"))
    return min(index, int(np.flatnonzero(weights)[-1]))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
