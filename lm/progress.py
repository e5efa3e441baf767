"""Callbacks that report the progress of long work."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]  # parts done, parts in all


def silent(done: int, total: int) -> None:
    """Tell nobody."""
