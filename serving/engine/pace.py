"""Pace: how many prompt tokens fit into a time, from what earlier ones took. Reads no clock."""

FIRST_TOKENS = 16  # before anything was measured
MIN_TOKENS = 4  # or a slow model would never finish a prompt
_WEIGHT = 0.25  # of a new measurement


class Pace:
    """A running mean of seconds a prompt token."""

    def __init__(self) -> None:
        self._token_s: float | None = None

    def measure(self, tokens: int, seconds: float) -> None:
        """Note that so many tokens took so long."""
        latest_s = seconds / tokens
        if self._token_s is None:
            self._token_s = latest_s
        self._token_s += _WEIGHT * (latest_s - self._token_s)

    def tokens_in(self, seconds: float, most: int) -> int:
        """How many tokens to read so that it takes no longer, at most `most`."""
        if self._token_s is None:
            return min(most, FIRST_TOKENS)
        if self._token_s * most <= seconds:
            return most
        return min(most, max(MIN_TOKENS, int(seconds / self._token_s)))
