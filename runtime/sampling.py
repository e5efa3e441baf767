"""Logits to a token: greedy, or drawn at a temperature from the likely ones.

The draw depends on the logits, the parameters and the position alone: the random number is Philox
keyed by the seed with the position as its counter, ties are won by the lower id, and sums run in a
fixed order. Neither other sequences of the batch nor earlier draws have any influence.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.errors import RequestError, SpiketrainError

_GROUP = 16  # values of which the greatest stands for all in a first look
_BLOCK = 64  # weights summed at once
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose the next token; checked at birth, RequestError names the field."""

    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: all tokens
    top_p: float = 1.0  # 1: all tokens
    seed: int = 0
    min_p: float = 0.0  # 0: all tokens
    typical_p: float = 1.0  # 1: all tokens
    index: int = 0  # of several completions of one prompt with one seed

    def __post_init__(self) -> None:
        if not (_is_number(self.temperature) and 0 <= self.temperature <= sys.float_info.max):
            raise RequestError("temperature", "be a finite number of at least 0", self.temperature)
        if not (_is_whole(self.top_k) and self.top_k >= 0):
            raise RequestError("top_k", "be a whole number of at least 0", self.top_k)
        if not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise RequestError("top_p", "be a number in (0, 1]", self.top_p)
        if not (_is_whole(self.seed) and 0 <= self.seed < 1 << 64):
            raise RequestError("seed", "be a whole number in [0, 2**64)", self.seed)
        if not (_is_number(self.min_p) and 0 <= self.min_p <= 1):
            raise RequestError("min_p", "be a number in [0, 1]", self.min_p)
        if not (_is_number(self.typical_p) and 0 < self.typical_p <= 1):
            raise RequestError("typical_p", "be a number in (0, 1]", self.typical_p)
        if not (_is_whole(self.index) and 0 <= self.index < 1 << 64):
            raise RequestError("index", "be a whole number in [0, 2**64)", self.index)


def sample(logits: NDArray[np.float32], params: SamplingParams, position: int) -> int:
    """The token drawn at `position` (>= 0) from logits (V,), which may hold -inf but not NaN.

    At the temperature, top_k is applied first, then top_p to what is left, then min_p, then
    typical_p.
    """
    best = int(np.argmax(logits))  # the first of several; NaN and +inf win
    greatest = float(logits[best])
    if not math.isfinite(greatest):
        raise SpiketrainError(f"logits must be finite, got {greatest} for token {best}")
    if params.temperature == 0 or params.top_k == 1:
        return best
    ids = None
    if 0 < params.top_k < logits.size:
        ids = _most_likely(logits, params.top_k)
        logits = logits[ids]
    weights = _weights(logits, greatest, params.temperature)
    for keep, share, everything in (
        (_nucleus, params.top_p, 1),
        (_near_the_likeliest, params.min_p, 0),
        (_typical, params.typical_p, 1),
    ):
        if share != everything:
            kept = keep(weights, share)
            ids = kept if ids is None else ids[kept]
            weights = weights[kept]
    drawn = _draw(weights, uniform(params.seed, position, params.index))
    return drawn if ids is None else int(ids[drawn])


def uniform(seed: int, position: int, index: int = 0) -> float:
    """The random number in [0, 1) of completion `index` of one request at one position.

    The first output of Philox4x64-10 (Salmon et al., 2011) with the key (seed, index) and the
    counter (1, position, 0, 0), as NumPy's Philox has it, whose construction alone takes twice as
    long.
    """
    a, b, c, d = 1, position, 0, 0
    key, other_key = seed, index
    for _ in range(10):
        product, other_product = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b = other_product >> 64 ^ b ^ key, other_product & _MASK
        c, d = product >> 64 ^ d ^ other_key, product & _MASK
        key = key + 0x9E3779B97F4A7C15 & _MASK
        other_key = other_key + 0xBB67AE8584CAA73B & _MASK
    return (a >> 11) * 2.0**-53


def _weights(
    logits: NDArray[np.float32], greatest: float, temperature: float
) -> NDArray[np.float64]:
    """Unnormalised probabilities, 1 for the most likely token, whose logit is `greatest`."""
    weights = logits.astype(np.float64)
    weights -= greatest
    with np.errstate(over="ignore"):
        weights /= temperature
    return np.exp(weights, out=weights)


def _most_likely(values: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """Indices, ascending, of the `count` greatest values; of equal ones the first."""
    groups = values.size // _GROUP
    if count > groups:
        return _greatest(values, count)
    # `count` groups have a maximum of at least `least`: no smaller value is wanted.
    maxima = values[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    least = np.partition(maxima, groups - count)[groups - count]
    ids = np.flatnonzero(values >= least)
    return ids[_greatest(values[ids], count)]


def _greatest(values: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """What `_most_likely` says, by looking at every value."""
    border = np.partition(values, values.size - count)[values.size - count]
    above = values > border
    missing = count - int(np.count_nonzero(above))
    above[np.flatnonzero(values == border)[:missing]] = True
    return np.flatnonzero(above)


def _nucleus(weights: NDArray[np.float64], top_p: float) -> NDArray[np.intp]:
    """Indices, ascending, of the fewest greatest weights that hold at least `top_p` of the sum."""
    total = float(weights.sum())
    # Together, weights below the mean of what may be left out are less than may be left out.
    ids = np.flatnonzero(weights >= (1 - top_p) * total / weights.size)
    weights = weights[ids]
    mass = np.cumsum(np.sort(weights)[::-1])
    count = min(int(np.searchsorted(mass, top_p * total)) + 1, weights.size)
    return ids[_greatest(weights, count)]


def _near_the_likeliest(weights: NDArray[np.float64], min_p: float) -> NDArray[np.intp]:
    """Indices of the weights of at least `min_p` times the greatest one."""
    return np.flatnonzero(weights >= min_p * weights.max())


def _typical(weights: NDArray[np.float64], typical_p: float) -> NDArray[np.intp]:
    """Indices, ascending, of the fewest that hold `typical_p` of the sum, most typical first.

    Typical is a token whose information is near the mean: |-log p - H|, H the entropy (Meister et
    al., 2022); of equally typical ones the first.
    """
    ids = np.flatnonzero(weights)
    shares = weights[ids] / weights[ids].sum()
    information = -np.log(shares)
    order = np.argsort(np.abs(information - np.sum(shares * information)), kind="stable")
    mass = np.cumsum(shares[order])
    count = min(int(np.searchsorted(mass, typical_p * mass[-1])) + 1, ids.size)
    return np.sort(ids[order[:count]])


def _draw(weights: NDArray[np.float64], random: float) -> int:
    """The index at which the running sum, taken block by block, passes `random` of the total."""
    blocks = np.cumsum(np.add.reduceat(weights, np.arange(0, weights.size, _BLOCK)))
    wanted = random * blocks[-1]
    block = _passed(blocks, wanted)
    start = block * _BLOCK
    before = blocks[block - 1] if block else 0.0
    return start + _passed(np.cumsum(weights[start : start + _BLOCK]), wanted - before)


def _passed(sums: NDArray[np.float64], wanted: float) -> int:
    """The first index with a running sum above `wanted`; if rounding leaves none, the last rise."""
    index = int(np.searchsorted(sums, wanted, side="right"))
    return index if index < sums.size else int(np.searchsorted(sums, sums[-1]))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
