"""Where weights live while a model runs: one anonymous region on huge pages.

Rows of a matrix start on cache lines and never lie a multiple of a page apart, so that the same
columns of many rows do not compete for the same cache sets.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

CACHE_LINE = 64
PAGE = 4096
HUGE_PAGE = 2 << 20


def row_bytes(columns: int, itemsize: int) -> int:
    """Bytes from one row to the next."""
    size = -(-columns * itemsize // CACHE_LINE) * CACHE_LINE
    return size + CACHE_LINE if size % PAGE == 0 else size


def matrix_bytes(array: NDArray[Any]) -> int:
    """Bytes that a matrix takes here."""
    rows, columns = array.shape
    return rows * row_bytes(columns, array.itemsize)


class Arena:
    """A region of `nbytes`, handed out from the front; freed with the last array in it."""

    def __init__(self, nbytes: int) -> None:
        memory = _region(nbytes + HUGE_PAGE, "MADV_HUGEPAGE")
        start = -memory.ctypes.data % HUGE_PAGE
        self._memory = memory[start : start + nbytes]
        self._used = 0

    def place(self, array: NDArray[Any]) -> NDArray[Any]:
        """A copy of a matrix with its rows padded; columns beyond the last are zero."""
        placed = self.room(array.shape, array.dtype)
        placed[...] = array
        return placed

    def room(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """A matrix of zeros with its rows padded."""
        rows, columns = shape
        item = np.dtype(dtype).itemsize
        stride = row_bytes(columns, item)
        part = self._memory[self._used : self._used + rows * stride].view(dtype)
        self._used += rows * stride
        return part.reshape(rows, stride // item)[:, :columns]


def zeros_on_demand(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A float32 array of zeros; a small page of memory is taken when one is first written."""
    return _region(4 * shape[0] * shape[1], "MADV_NOHUGEPAGE").view(np.float32).reshape(shape)


def _region(nbytes: int, advice: str) -> NDArray[np.uint8]:
    """Anonymous memory, zero, with advice on page size where the system takes any."""
    region = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, advice):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            region.madvise(getattr(mmap, advice))
    return np.frombuffer(region, np.uint8)
