"""The region of the weights: what is placed in it stays as it was, however its pages are taken."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from spiketrain.runtime import memory
from spiketrain.runtime.memory import CACHE_LINE, PAGE, Arena, matrix_bytes, row_bytes

ROWS, COLUMNS, MATRICES = 96, 5000, 24


@pytest.fixture(params=["whole", "in steps of a page", "not at all"])
def arena(request, monkeypatch):
    """An arena of MATRICES matrices whose pages a second thread takes, in one way or another."""
    if request.param != "not at all":
        monkeypatch.setattr(memory, "_MUCH", 0)
    if request.param == "in steps of a page":
        monkeypatch.setattr(memory, "_STEP", PAGE)
    else:
        monkeypatch.setattr(memory, "_STEP", 1 << 20)
    return Arena(MATRICES * ROWS * row_bytes(COLUMNS, 1))


def page_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "spiketrain-pages"]


def test_what_is_placed_stays_while_another_thread_takes_the_pages(arena):
    matrices = [
        np.random.default_rng(seed).integers(0, 256, (ROWS, COLUMNS), np.uint8)
        for seed in range(MATRICES)
    ]
    placed = [arena.place(matrix) for matrix in matrices]
    for thread in page_threads():
        thread.join(60)
        assert not thread.is_alive()
    for matrix, copy in zip(matrices, placed, strict=True):
        np.testing.assert_array_equal(copy, matrix)
        assert copy.ctypes.data % CACHE_LINE == 0
        assert copy.strides[0] % CACHE_LINE == 0
        assert copy.strides[0] % PAGE


def test_pages_of_an_arena_that_is_given_up_are_no_longer_taken(monkeypatch):
    monkeypatch.setattr(memory, "_MUCH", 0)
    arena = Arena(1 << 32)
    del arena
    for thread in page_threads():
        thread.join(60)
        assert not thread.is_alive()


def test_a_matrix_takes_what_was_counted_for_it():
    array = np.zeros((7, 4096), np.uint8)
    arena = Arena(matrix_bytes(array) + matrix_bytes(array))
    first, second = arena.place(array), arena.place(array + 1)
    assert second.ctypes.data - first.ctypes.data == matrix_bytes(array)
    assert not first.any()
    assert (second == 1).all()
