"""Values of a GGUF file's keys, as they stand in the file.

A scalar becomes int, float or bool, a text stays bytes, an array of numbers becomes a NumPy array,
an array of texts a `Texts`.  So nothing here takes more memory than its bytes in the file, apart
from a constant for each key.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spiketrain.lm.sources.gguf.cursor import LENGTH, Cursor

_NUMBERS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 10: "<u8", 11: "<i8",
    12: "<f8",
}  # fmt: skip
_BOOL, _STRING, _ARRAY = 7, 8, 9


@dataclass(frozen=True, slots=True)
class Texts:
    """An array of `count` texts, each after its length, as the file has them."""

    data: bytes
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        """The texts, decoded one at a time.  Raises UnicodeDecodeError."""
        start = 0
        for _ in range(self.count):
            start += LENGTH.size
            end = start + LENGTH.unpack_from(self.data, start - LENGTH.size)[0]
            yield self.data[start:end].decode("utf-8")
            start = end


def read_value(cursor: Cursor, key: str) -> Any:
    """The value of `key`, its type first.  Raises GgufError."""
    kind = cursor.u32(f"the value type of {key}")
    if kind in _NUMBERS:
        return _number(cursor.take(np.dtype(_NUMBERS[kind]).itemsize, key), _NUMBERS[kind])
    if kind == _BOOL:
        return bool(_flags(cursor, key, 1)[0])
    if kind == _STRING:
        return cursor.string(key)
    if kind == _ARRAY:
        return _array(cursor, key)
    raise cursor.error(f"the value type of {key}", "be 0 to 12", kind)


def _number(data: bytes, dtype: str) -> int | float:
    """A float32 becomes the shortest decimal that rounds to it: 1e-5, not 9.99999974e-06."""
    value = np.frombuffer(data, dtype)[0]
    return float(str(value)) if dtype == "<f4" else value.item()  # type: ignore[no-any-return]


def _flags(cursor: Cursor, key: str, count: int) -> npt.NDArray[np.uint8]:
    flags = np.frombuffer(cursor.take(count, key), np.uint8)
    if count and flags.max() > 1:
        raise cursor.error(key, "be 0 or 1, as a bool is", int(flags.max()))
    return flags


def _array(cursor: Cursor, key: str) -> Any:
    kind = cursor.u32(f"the element type of {key}")
    if kind in _NUMBERS:
        dtype = np.dtype(_NUMBERS[kind])
        count = cursor.count(f"the length of {key}", dtype.itemsize)
        return np.frombuffer(cursor.take(count * dtype.itemsize, key), dtype)
    if kind == _BOOL:
        return _flags(cursor, key, cursor.count(f"the length of {key}", 1)).view(bool)
    if kind == _STRING:
        return _texts(cursor, key, cursor.count(f"the length of {key}", LENGTH.size))
    if kind == _ARRAY:
        raise cursor.error(f"the element type of {key}", "not be an array", kind)
    raise cursor.error(f"the element type of {key}", "be 0 to 12", kind)


def _texts(cursor: Cursor, key: str, count: int) -> Texts:
    start = cursor.position
    for _ in range(count):
        cursor.skip(cursor.u64(f"the length of a text in {key}"), key)
    return Texts(cursor.since(start), count)
