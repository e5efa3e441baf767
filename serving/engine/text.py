"""Turn sampled tokens into text that may be shown: whole characters, stop sequences cut off.

Text that could be the beginning of a stop sequence is held back until it is decided.
"""

from typing import Protocol


class Detokenizer(Protocol):
    """Joins tokens into text, whole characters only (the runtime's Detokenizer)."""

    def push(self, token: int) -> str:
        """Text that this token completes."""
        ...

    def flush(self) -> str:
        """What an unfinished character leaves behind."""
        ...


class StopMatcher:
    """Finds the first stop sequence in text that arrives in pieces."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.matched = ""

    def push(self, text: str) -> str:
        """Take new text, give back what can be shown. Once `matched` is set, text is over."""
        if not self._stops:
            return text
        held = self._held + text
        matches = [(held.find(stop), stop) for stop in self._stops if stop in held]
        if matches:
            start, self.matched = min(matches, key=lambda pair: pair[0])
            self._held = ""
            return held[:start]
        keep = self._undecided(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """Give back what was held: no more text will come."""
        held, self._held = self._held, ""
        return held

    def _undecided(self, text: str) -> int:
        """Length of the longest ending of `text` that a stop sequence begins with."""
        longest = max(len(stop) for stop in self._stops) - 1
        for length in range(min(longest, len(text)), 0, -1):
            ending = text[-length:]
            if any(stop.startswith(ending) for stop in self._stops):
                return length
        return 0


class CompletionText:
    """Tokens in, showable text out. Without a detokenizer there is no text at all."""

    def __init__(self, detokenizer: Detokenizer | None, stops: tuple[str, ...]) -> None:
        self._detokenizer = detokenizer
        self._matcher = StopMatcher(stops)

    @property
    def stop_sequence(self) -> str:
        """The stop sequence that was met, or ''."""
        return self._matcher.matched

    def push(self, token: int) -> str:
        """Take a token, give back the text that can be shown now."""
        if self._detokenizer is None:
            return ""
        return self._matcher.push(self._detokenizer.push(token))

    def flush(self) -> str:
        """End the text: give back what was held, still cut at a stop sequence."""
        if self._detokenizer is None:
            return ""
        shown = self._matcher.push(self._detokenizer.flush())
        return shown if self._matcher.matched else shown + self._matcher.flush()
