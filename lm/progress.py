"""How far long work is, told as it goes on."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]  # parts done, parts in all


def silent(done: int, total: int) -> None:
    """Tell nobody."""
