"""The recurrent state of one sequence: constant size, copied and stored as a whole.

A stored state is a header, the arrays (little endian, in the order of the family's Spec) and a
sha256 over both. It names the package by its fingerprint, and neither the instruction set nor the
number of threads. A blob from outside is checked to the last value before it becomes a State.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.dial import NO_DIAL, as_number
from spiketrain.runtime.errors import StateError

MAGIC = b"SPKSTATE"
FORMAT_VERSION = 1
MAX_POSITION = (1 << 63) - 1

# Beyond this, sums of squares of a state's numbers may leave float32.
MAX_NUMBER = 1e15

# magic, format version, bytes of the header, family, fingerprint, position, bytes of the arrays
_HEADER = struct.Struct("<8sHH20s32sQQ")
_CHECKSUM_BYTES = 32
_MAX_BITS = int(np.float32(MAX_NUMBER).view(np.uint32)) >> 16  # as a bfloat16
_FAMILY_BYTES = 20
_FINGERPRINT_PREFIX = "sha256:"


@dataclass(frozen=True, slots=True, eq=False)
class StateArray:
    """One named array in a state's buffer: `offset` in bytes, values in [low, high].

    Bounds may be arrays with one for each element; `initial` fills a new state. What a model makes
    of a state within its bounds is within them again, unless the package's own numbers are extreme.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    low: float | NDArray[Any]
    high: float | NDArray[Any]
    initial: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Whose states these are and what they hold.

    check: what is wrong with arrays that are each within their bounds, None if nothing is.
    """

    family: str
    fingerprint: str
    nbytes: int
    arrays: tuple[StateArray, ...]
    check: Callable[[Mapping[str, NDArray[Any]]], str | None] | None = None


class State:
    """One sequence's state.

    `position` counts tokens read. `events`, `neurons` and `weight_bytes` (what this sequence alone
    would touch) are running totals for reports; they are copied but not stored.
    """

    __slots__ = ("buffer", "events", "layout", "neurons", "position", "weight_bytes")

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.buffer: NDArray[np.uint8] = np.zeros(layout.nbytes, np.uint8)
        for array in layout.arrays:
            if array.initial:
                _view(self.buffer, array)[...] = array.initial
        self.position = 0
        self.events = 0
        self.neurons = 0
        self.weight_bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return int(self.buffer.nbytes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Named views; writing to them writes to the state."""
        return {array.name: _view(self.buffer, array) for array in self.layout.arrays}

    @property
    def dial(self) -> float:
        """How far this sequence's thresholds are raised; see spiketrain.runtime.dial."""
        dial = self.arrays().get("dial")
        return NO_DIAL if dial is None else as_number(dial[0])

    def check(self) -> None:
        """StateError unless `state_from_bytes` would take what `to_bytes` gives."""
        for array in self.layout.arrays:
            _check_values(array, _view(self.buffer, array))
        wrong = None if self.layout.check is None else self.layout.check(self.arrays())
        if wrong is not None:
            raise StateError(f"state: {wrong}")

    def copy(self) -> State:
        """An independent state that continues like this one."""
        twin = State(self.layout)
        twin.buffer[:] = self.buffer
        twin.position = self.position
        twin.events = self.events
        twin.neurons = self.neurons
        twin.weight_bytes = self.weight_bytes
        return twin

    def to_bytes(self) -> bytes:
        """The stored form."""
        payload = _swapped(self.buffer, self.layout).tobytes()
        header = _HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            _HEADER.size,
            self.layout.family.encode("ascii"),
            _digest_of(self.layout.fingerprint),
            self.position,
            len(payload),
        )
        return header + payload + hashlib.sha256(header + payload).digest()


def state_from_bytes(blob: bytes | bytearray | memoryview, layout: Layout) -> State:
    """The state stored in `blob`; StateError says what is wrong with it."""
    data = _as_bytes(blob)
    position = _check_header(data, layout)
    payload = data[_HEADER.size : -_CHECKSUM_BYTES]
    if hashlib.sha256(data[:-_CHECKSUM_BYTES]).digest() != data[-_CHECKSUM_BYTES:]:
        raise StateError("state: checksum must match the content, the blob is damaged")
    state = State(layout)
    state.position = position
    state.buffer[:] = np.frombuffer(payload, np.uint8)
    state.buffer[:] = _swapped(state.buffer, layout)
    state.check()
    return state


def _as_bytes(blob: Any) -> bytes:
    if not isinstance(blob, (bytes, bytearray, memoryview)):
        raise StateError(f"state: must be bytes, got {type(blob).__name__}")
    return bytes(blob)


def _check_header(data: bytes, layout: Layout) -> int:
    """Check all that the header says, longest lengths first; return the position."""
    least = _HEADER.size + _CHECKSUM_BYTES
    if len(data) < least:
        raise StateError(f"state: must have at least {least} bytes, got {len(data)}")
    magic, version, header_bytes, family, digest, position, nbytes = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise StateError(f"state: must begin with {MAGIC!r}, got {magic!r}")
    if version != FORMAT_VERSION:
        raise StateError(f"state: format version must be {FORMAT_VERSION}, got {version}")
    if header_bytes != _HEADER.size:
        raise StateError(f"state: header must have {_HEADER.size} bytes, got {header_bytes}")
    if family.rstrip(b"\0") != layout.family.encode("ascii"):
        raise StateError(
            f"state: family must be {layout.family!r}, got {family.rstrip(bytes(1))!r}"
        )
    if digest != _digest_of(layout.fingerprint):
        raise StateError(
            f"state: fingerprint must be {layout.fingerprint}, got sha256:{digest.hex()}"
        )
    if nbytes != layout.nbytes or len(data) != least + nbytes:
        raise StateError(
            f"state: must have {layout.nbytes} bytes of arrays, {least + layout.nbytes} in all, "
            f"got {nbytes} and {len(data)}"
        )
    if position > MAX_POSITION:
        raise StateError(f"state: position must be at most {MAX_POSITION}, got {position}")
    return int(position)


def _check_values(array: StateArray, values: NDArray[Any]) -> None:
    values = values.reshape(-1)
    good = (values >= array.low) & (values <= array.high)
    if array.dtype == "uint16":  # the bits of bfloat16
        good &= (values & 0x7FFF) <= _MAX_BITS
    if not good.all():
        at = int(np.argmin(good))
        low, high = (np.broadcast_to(x, values.shape)[at] for x in (array.low, array.high))
        raise StateError(
            f"state: {array.name}[{at}] must be in [{low:g}, {high:g}], got {values[at]}"
        )


def _view(buffer: NDArray[np.uint8], array: StateArray) -> NDArray[Any]:
    dtype = np.dtype(array.dtype)
    size = int(np.prod(array.shape)) * dtype.itemsize
    return buffer[array.offset : array.offset + size].view(dtype).reshape(array.shape)


def _swapped(buffer: NDArray[np.uint8], layout: Layout) -> NDArray[np.uint8]:
    """Native to little endian and back."""
    if sys.byteorder == "little":
        return buffer
    copy = buffer.copy()
    for array in layout.arrays:
        view = _view(copy, array)
        view[...] = view.byteswap()
    return copy


def _digest_of(fingerprint: str) -> bytes:
    return bytes.fromhex(fingerprint.removeprefix(_FINGERPRINT_PREFIX))
