"""A package as a contender: its decode and prefill, by whichever name its runtime is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import runtime_module

WORDS = 1000  # tokens are drawn from the first so many


class Packaged:
    """A loaded package with the state of one sequence; `prepare` makes that state."""

    def __init__(
        self, path: Path, threads: int, prepare: Callable[[Any], Any] | None = None
    ) -> None:
        self._model = runtime_module().load_model(path, threads=threads)
        self._state = prepare(self._model) if prepare else self._model.new_state()
        self._words = min(WORDS, self._model.vocab_size)

    def decode(self, tokens: int) -> None:
        """Read tokens one by one, after those before."""
        for token in self._tokens(tokens):
            self._model.step([self._state], [token])

    def prefill(self, tokens: int) -> None:
        """Read a prompt from a new state, for the logits of its last token."""
        self._model.forward(self._model.new_state(), self._tokens(tokens), last_only=True)

    def _tokens(self, count: int) -> list[int]:
        return [7 * number % self._words for number in range(count)]
