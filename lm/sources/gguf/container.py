"""The container of a GGUF file: its keys, and where each tensor is.

A GGUF file comes from strangers.  Every count, length and offset is compared with the file's size,
in Python's integers, before it is used.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spiketrain.lm.sources.gguf.cursor import Cursor
from spiketrain.lm.sources.gguf.entries import Entry, placed_entries, read_entries
from spiketrain.lm.sources.gguf.error import GgufError, Unquoted
from spiketrain.lm.sources.gguf.metadata import Metadata
from spiketrain.lm.sources.gguf.values import read_value

VERSIONS = (2, 3)
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
_MAGIC = b"GGUF"
_MIN_KEY_BYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8
_ALIGNMENT = "general.alignment"
_MAX_ALIGNMENT = 1 << 16


@dataclass(frozen=True, slots=True)
class Container:
    """A file's keys and tensors; `stamp` tells whether the file is still the same."""

    file: Path
    version: int
    metadata: Metadata
    entries: Mapping[str, Entry]
    stamp: tuple[int, ...]

    def rows(self, entry: Entry, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Bytes of rows `start` to `stop` of a tensor, (rows, bytes of a row).

        Raises GgufError if the file has changed since it was opened.
        """
        row_bytes = entry.num_bytes // entry.rows
        data = np.empty((stop - start, row_bytes), np.uint8)
        try:
            with self.file.open("rb", buffering=0) as stream:
                same = _stamp(os.fstat(stream.fileno())) == self.stamp
                stream.seek(entry.start + start * row_bytes)
                whole = same and _fill(stream, data)
        except OSError as error:
            raise _unreadable(self.file, error) from error
        if not whole:
            raise GgufError(self.file, entry.name, "be read from an unchanged file", _CHANGED)
        return data


_CHANGED = Unquoted("a file that has changed since it was opened")


def read_container(path: str | os.PathLike[str]) -> Container:
    """Keys and tensors of the file at `path`; no byte of a tensor is read.  Raises GgufError."""
    file = Path(path)
    try:
        status = file.stat()  # first, since opening a pipe would wait
        if not stat.S_ISREG(status.st_mode):
            raise GgufError(file, "the path", "be a file", Unquoted("something else"))
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            return _container(Cursor(stream, status.st_size, file), _stamp(status))
    except OSError as error:
        raise _unreadable(file, error) from error


def _container(cursor: Cursor, stamp: tuple[int, ...]) -> Container:
    version = _version(cursor)
    num_tensors = cursor.count("the tensor count", _MIN_TENSOR_BYTES)
    num_keys = cursor.count("the key count", _MIN_KEY_BYTES)
    for name, count, most in (
        ("the tensor count", num_tensors, MAX_TENSORS),
        ("the key count", num_keys, MAX_KEYS),
    ):
        if count > most:
            raise cursor.error(name, f"be at most {most}", count)
    metadata = Metadata(cursor.file, _keys(cursor, num_keys))
    _check_parts(metadata)
    alignment = _alignment(metadata)
    entries = read_entries(cursor, num_tensors)
    start = _padded(cursor.position, alignment)
    placed = placed_entries(cursor, entries, start, alignment)
    return Container(cursor.file, version, metadata, placed, stamp)


def _version(cursor: Cursor) -> int:
    magic = cursor.take(min(len(_MAGIC), cursor.left), "the magic")
    if magic != _MAGIC:
        raise cursor.error("the file", f"begin with {_MAGIC!r}", magic)
    version = cursor.u32("the version")
    if version in VERSIONS:
        return version
    if int.from_bytes(version.to_bytes(4, "little"), "big") in range(1, 256):
        raise cursor.error("the byte order", "be little-endian", Unquoted("a big-endian file"))
    raise cursor.error("the version", "be 2 or 3", version)


def _keys(cursor: Cursor, count: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for i in range(count):
        key = cursor.name(f"the name of key {i}")
        if key in values:
            raise cursor.error(key, "be there once", Unquoted("the key twice"))
        values[key] = read_value(cursor, key)
    return values


def _check_parts(metadata: Metadata) -> None:
    parts = metadata.integer("split.count", 1)
    if parts > 1:
        raise metadata.error(
            "split.count", "be 1, since a file of several parts is not read", parts
        )


def _alignment(metadata: Metadata) -> int:
    alignment = metadata.integer(_ALIGNMENT, 32)
    if not 1 <= alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        rule = f"be a power of two from 1 to {_MAX_ALIGNMENT}"
        raise metadata.error(_ALIGNMENT, rule, alignment)
    return alignment


def _padded(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _fill(stream: Any, data: npt.NDArray[np.uint8]) -> bool:
    """Fill `data` from the stream; whether there were bytes enough."""
    view = data.reshape(-1).data
    while len(view):
        count = stream.readinto(view)
        if not count:
            return False
        view = view[count:]
    return True


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _unreadable(file: Path, error: OSError) -> GgufError:
    return GgufError(file, "the path", "be a readable file", Unquoted(error.strerror or str(error)))
