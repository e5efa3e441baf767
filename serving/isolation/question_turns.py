"""Turns of questions at a limited process: how many run at once, how many wait, and whose."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from spiketrain.serving.errors import TooManyQuestions


class QuestionTurns:
    """What all callers may ask at once, and a caller with a name at most half of it. Any thread."""

    def __init__(self, most_running: int, most_waiting: int) -> None:
        self._most_running = most_running
        self._most_waiting = most_waiting
        self._running: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, caller: str) -> Iterator[None]:
        """Wait for a place, and have it while the context lasts. Raises TooManyQuestions."""
        self._enter(caller)
        try:
            yield
        finally:
            with self._changed:
                _remove(self._running, caller)
                self._changed.notify_all()

    @property
    def num_running(self) -> int:
        """Questions that are being answered."""
        return self._running.total()

    @property
    def num_waiting(self) -> int:
        """Questions that wait for a place."""
        return self._waiting.total()

    def _enter(self, caller: str) -> None:
        with self._changed:
            if self._is_full(self._running, caller, self._most_running):
                self._wait(caller)
            self._running[caller] += 1

    def _wait(self, caller: str) -> None:
        if self._is_full(self._waiting, caller, self._most_waiting):
            raise TooManyQuestions(_most(caller, self._most_waiting))
        self._waiting[caller] += 1
        try:
            while self._is_full(self._running, caller, self._most_running):
                self._changed.wait()
        finally:
            _remove(self._waiting, caller)

    @staticmethod
    def _is_full(counts: Counter[str], caller: str, most: int) -> bool:
        return counts.total() >= most or (counts[caller] >= _most(caller, most))


def _most(caller: str, most: int) -> int:
    """How many of `most` a caller may have; nobody's name is in ''."""
    return max(most // 2, 1) if caller else most


def _remove(counts: Counter[str], caller: str) -> None:
    counts[caller] -= 1
    if not counts[caller]:
        del counts[caller]
