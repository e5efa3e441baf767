"""Gives memory that large requests have freed back to the system, where glibc keeps it."""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any

PAUSE_S = 0.2  # between requests that end and the memory they leave
LARGE_BYTES = 1 << 20  # of a budget: what less has left is not worth a look
MAX_ARENAS = 2  # of glibc, whose arenas but the first keep what is at their ends
_M_ARENA_MAX = -8


def keep_few_arenas() -> None:
    """Let the threads of this process share their memory, before they are started."""
    mallopt = _of_c_library("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, MAX_ARENAS)


def _of_c_library(name: str) -> Any:
    """A function of the C library; None where it has none of this name."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):
        return None


class Trimming:
    """Has memory given back a moment after large requests have ended. Used on one event loop."""

    def __init__(self, trim: Callable[[int], object] | None = None) -> None:
        """trim: in place of the C library's `malloc_trim`."""
        self._trim = trim or _of_c_library("malloc_trim")
        self._due: asyncio.TimerHandle | None = None

    def freed(self, nbytes: int) -> None:
        """Take note that a request has given back so many bytes of a budget."""
        if nbytes >= LARGE_BYTES and self._trim is not None and self._due is None:
            self._due = asyncio.get_running_loop().call_later(PAUSE_S, self._start)

    def _start(self) -> None:
        self._due = None
        asyncio.get_running_loop().run_in_executor(None, self._trim, 0)
