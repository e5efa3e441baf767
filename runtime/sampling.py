"""Logits to a token: greedy, or drawn at a temperature from the likely ones.

The draw depends on the logits, the parameters and the position alone: the random number is Philox
keyed by the seed with the position as its counter, ties are won by the lower id, and sums run in a
fixed order. Neither other sequences of the batch nor earlier draws have any influence.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import spiketrain.runtime.kernels.vectors.sampling as kernel
from spiketrain.runtime.errors import RequestError, SpiketrainError

_THREAD = threading.local()


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
    typical_p. Raises SpiketrainError where the greatest logit is not finite.
    """
    (token,) = sample_rows([np.ascontiguousarray(logits)], [params], [position])
    if token < 0:
        best = int(np.argmax(logits))
        raise SpiketrainError(f"logits must be finite, got {logits[best]} for token {best}")
    return token


def sample_rows(
    rows: list[NDArray[np.float32]], params: Sequence[SamplingParams], positions: Sequence[int]
) -> list[int]:
    """`sample` for each of several rows of logits (V,); -1 where the greatest is not finite."""
    size = rows[0].size
    choices = np.array(
        [
            (
                chosen.temperature,
                min(chosen.top_k, size),
                chosen.top_p,
                chosen.min_p,
                chosen.typical_p,
                kernel.uniform(chosen.seed, position, chosen.index),
            )
            for chosen, position in zip(params, positions, strict=True)
        ],
        np.float64,
    )
    tokens = np.empty(len(rows), np.int64)
    _drawer(size).draw(rows, choices, tokens)
    ids: list[int] = tokens.tolist()
    return ids


def uniform(seed: int, position: int, index: int = 0) -> float:
    """The random number in [0, 1) of completion `index` of one request at one position."""
    number: float = kernel.uniform(seed, position, index)
    return number


def _drawer(size: int) -> kernel.Drawer:
    """This thread's, for rows of `size` logits."""
    drawer = getattr(_THREAD, "drawer", None)
    if drawer is None or drawer.size != size:
        drawer = _THREAD.drawer = kernel.Drawer(size)
    return drawer


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
