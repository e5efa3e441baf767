"""Documents as one stream of tokens, a stretch of which is in memory at a time. Pure Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Stream:
    """Tokens of texts one after the other; place 0 is the first token of the first text.

    A prefix, if any, stands at place -1. Texts are drawn as they are needed.
    """

    def __init__(self, texts: Iterable[list[int]], prefix: int | None = None) -> None:
        self._texts: Iterator[list[int]] = iter(texts)
        self._held: list[int] = [] if prefix is None else [prefix]
        self.begin = 0 if prefix is None else -1
        self._from = self.begin

    def reach(self, place: int) -> int:
        """Hold tokens before `place`, or to the end; returns the place after the last one held."""
        while self._from + len(self._held) < place:
            ids = next(self._texts, None)
            if ids is None:
                break
            self._held.extend(ids)
        return self._from + len(self._held)

    def tokens(self, begin: int, end: int) -> list[int]:
        """The tokens held in [begin, end)."""
        return self._held[begin - self._from : end - self._from]

    def drop(self, place: int) -> None:
        """Forget the tokens before `place`."""
        del self._held[: place - self._from]
        self._from = place
