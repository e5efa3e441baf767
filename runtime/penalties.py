"""Penalties on recent tokens: logits in, logits out, no state of the model.

A token counts while it is among the last `window` tokens of prompt and completion, so memory does
not grow with the text. Each logit depends on its own count alone, so no order of sums matters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.errors import RequestError

DEFAULT_WINDOW = 64
MAX_WINDOW = 1024


@dataclass(frozen=True, slots=True)
class Penalties:
    """How seen tokens lose; checked at birth, RequestError names the field.

    A logit l of a token seen c > 0 times becomes l / repetition if l > 0, else l * repetition
    (Keskar et al., 2019), less frequency * c + presence.
    """

    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_window: int = DEFAULT_WINDOW  # tokens

    def __post_init__(self) -> None:
        if not 0.01 <= self.repetition_penalty <= 100:  # logits stay finite
            rule = "be a number in [0.01, 100]"
            raise RequestError("repetition_penalty", rule, self.repetition_penalty)
        for name in ("frequency_penalty", "presence_penalty"):
            value = getattr(self, name)
            if not -100 <= value <= 100:
                raise RequestError(name, "be a number in [-100, 100]", value)
        if not 1 <= self.penalty_window <= MAX_WINDOW:
            rule = f"be from 1 to {MAX_WINDOW} tokens"
            raise RequestError("penalty_window", rule, self.penalty_window)

    def __bool__(self) -> bool:
        return (self.repetition_penalty, self.frequency_penalty, self.presence_penalty) != (1, 0, 0)

    def apply(self, logits: NDArray[np.float32], recent: RecentTokens) -> None:
        """Change logits (V,) in place."""
        ids, counts = recent.counts()
        seen = logits[ids].astype(np.float64)
        seen = np.where(seen > 0, seen / self.repetition_penalty, seen * self.repetition_penalty)
        seen -= self.frequency_penalty * counts + self.presence_penalty
        logits[ids] = seen


class RecentTokens:
    """The last tokens of a text, at most `window`, and how often each occurs among them."""

    def __init__(self, window: int, tokens: Iterable[int] = ()) -> None:
        self._window = window
        self._tokens: deque[int] = deque()
        self._counts: dict[int, int] = {}
        for token in tokens:
            self.push(token)

    def push(self, token: int) -> None:
        """Take a token; the one before the window is forgotten."""
        self._tokens.append(token)
        self._counts[token] = self._counts.get(token, 0) + 1
        if len(self._tokens) > self._window:
            oldest = self._tokens.popleft()
            self._counts[oldest] -= 1
            if self._counts[oldest] == 0:
                del self._counts[oldest]

    def tokens(self) -> tuple[int, ...]:
        """Oldest first."""
        return tuple(self._tokens)

    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids (N,), each once, and their counts (N,)."""
        size = len(self._counts)
        ids = np.fromiter(self._counts.keys(), np.int64, size)
        return ids, np.fromiter(self._counts.values(), np.int64, size)
