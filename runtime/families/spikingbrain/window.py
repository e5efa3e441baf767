"""What one sequence's state holds: its position, linear states, and rings of keys and values.

A ring has tiles of 64 positions, position p in tile p / 64 modulo their number: room for the window
and for the tokens that enter together before the first of them looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from spiketrain.runtime.dial import NO_DIAL
from spiketrain.runtime.formats import FLOATS, FORMATS
from spiketrain.runtime.kernels.networks.spikingbrain import ENTRY_TOKENS
from spiketrain.runtime.state import MAX_NUMBER, StateArray

TILE = 64
CACHES = {name: FORMATS[name].dtype for name in (*FLOATS, "int8")}
MAX_POSITION = 1 << 31  # rotation is exact to float32 up to here

_MIN_SCALE, _MAX_SCALE = 0.0, 1e4


@dataclass(frozen=True, slots=True)
class StateShape:
    """Sizes that a state depends on; visible: keys that a query of each window layer sees.

    max_dial: above 1, the state holds its sequence's dial.
    """

    shared_heads: int
    head_dim: int
    cache: str
    linear: tuple[int, ...]
    visible: Mapping[int, int]
    max_dial: float = NO_DIAL

    def tiles(self, layer: int) -> int:
        """Tiles of a window layer's rings."""
        return -(-(self.visible[layer] + TILE - 1) // TILE) + ENTRY_TOKENS // TILE - 1

    def arrays(self) -> tuple[StateArray, ...]:
        """The arrays in order, each on a cache line."""
        found, offset = [], 0
        for name, dtype, shape, low, high in self._entries():
            initial = NO_DIAL if name == "dial" else 0.0
            found.append(StateArray(name, dtype, shape, offset, low, high, initial))
            offset += -(-prod(shape) * np.dtype(dtype).itemsize // TILE) * TILE
        return tuple(found)

    @property
    def nbytes(self) -> int:
        """Bytes of a state."""
        last = self.arrays()[-1]
        size = prod(last.shape) * np.dtype(last.dtype).itemsize
        return last.offset + -(-size // TILE) * TILE

    def _entries(self) -> Any:
        heads, size = self.shared_heads, self.head_dim
        yield "position", "int64", (1,), 0, MAX_POSITION
        if self.max_dial > NO_DIAL:
            yield "dial", "float32", (1,), NO_DIAL, self.max_dial
        for layer in self.linear:
            yield f"state.{layer}", "float32", (heads, size, size), -MAX_NUMBER, MAX_NUMBER
        dtype = CACHES[self.cache]
        low, high = {
            "float32": (-MAX_NUMBER, MAX_NUMBER),
            "uint16": (0, 65535),
            "int8": (-128, 127),
        }[dtype]
        for layer in sorted(self.visible):
            tiles = self.tiles(layer)
            yield f"keys.{layer}", dtype, (tiles, heads, size, TILE), low, high
            yield f"values.{layer}", dtype, (tiles, heads, TILE, size), low, high
            if self.cache == "int8":
                for name in ("key_scales", "value_scales"):
                    shape = (tiles, heads, TILE)
                    yield f"{name}.{layer}", "float32", shape, _MIN_SCALE, _MAX_SCALE
