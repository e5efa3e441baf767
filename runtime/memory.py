"""The memory of weights while a model runs: one anonymous region on huge pages.

Rows of a matrix start on cache lines and never lie a multiple of a page apart, so the same columns
of many rows do not compete for the same cache sets. Two threads share the time that the system
takes to clear fresh pages: one thread fills a large region from the front, the other thread asks
for its pages from the back.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
import threading
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

CACHE_LINE = 64
PAGE = 4096
HUGE_PAGE = 2 << 20
_MUCH = 256 << 20  # bytes from which a second thread pays
_STEP = 8 << 20
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14, which changes no byte


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
        if nbytes >= _MUCH and sys.platform == "linux":
            beside = threading.Thread(
                target=_take_pages,
                args=(self._memory, weakref.ref(self)),
                name="spiketrain-pages",
                daemon=True,
            )
            beside.start()

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


def _take_pages(memory: NDArray[np.uint8], arena: weakref.ref[Arena]) -> None:
    """Have pages taken and cleared, from the back, up to those that the arena has handed out."""
    advise = ctypes.CDLL(None).madvise  # unlike mmap's, without the GIL
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    end = memory.size
    while (owner := arena()) is not None and end - _STEP > owner._used:
        del owner  # Others may drop the arena meanwhile.
        end -= _STEP
        at = (memory.ctypes.data + end) // PAGE * PAGE
        if advise(at, _STEP, _POPULATE_WRITE):
            return  # an older system: pages are taken when they are written


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
