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

from spiketrain.lm.sources.gguf.blocks import FORMATS, Format, type_name
from spiketrain.lm.sources.gguf.cursor import Cursor
from spiketrain.lm.sources.gguf.error import GgufError, Unquoted
from spiketrain.lm.sources.gguf.metadata import Metadata
from spiketrain.lm.sources.gguf.values import read_value

VERSIONS = (2, 3)
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
_MAGIC = b"GGUF"
_MAX_NAME_BYTES = 1024
_MAX_DIMENSIONS = 4
_LEAST_KEY_BYTES = 8 + 1 + 4 + 1
_LEAST_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8
_ALIGNMENT = "general.alignment"
_MAX_ALIGNMENT = 1 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its shape slowest axis first, as in torch, and its bytes, from `start`."""

    name: str
    format: Format
    shape: tuple[int, ...]
    start: int
    num_bytes: int

    @property
    def rows(self) -> int:
        """The size of the slowest axis."""
        return self.shape[0]


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
    num_tensors = cursor.count("the tensor count", _LEAST_TENSOR_BYTES)
    num_keys = cursor.count("the key count", _LEAST_KEY_BYTES)
    for name, count, most in (
        ("the tensor count", num_tensors, MAX_TENSORS),
        ("the key count", num_keys, MAX_KEYS),
    ):
        if count > most:
            raise cursor.error(name, f"be at most {most}", count)
    metadata = Metadata(cursor.file, _keys(cursor, num_keys))
    _check_parts(metadata)
    alignment = _alignment(metadata)
    entries = _entries(cursor, num_tensors)
    start = _padded(cursor.position, alignment)
    placed = {name: _placed(cursor, entry, start, alignment) for name, entry in entries.items()}
    _check_overlaps(cursor, placed)
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
        key = _name(cursor, f"the name of key {i}")
        if key in values:
            raise cursor.error(key, "be there once", Unquoted("the key twice"))
        values[key] = read_value(cursor, key)
    return values


def _name(cursor: Cursor, what: str) -> str:
    data = cursor.string(what, _MAX_NAME_BYTES)
    try:
        name = data.decode("utf-8")
    except UnicodeDecodeError:
        raise cursor.error(what, "be UTF-8", data) from None
    if not name:
        raise cursor.error(what, "have at least one character", name)
    return name


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


def _entries(cursor: Cursor, count: int) -> dict[str, Entry]:
    """Tensors with offsets as `start`, counted from the data."""
    entries: dict[str, Entry] = {}
    for i in range(count):
        name = _name(cursor, f"the name of tensor {i}")
        if name in entries:
            raise cursor.error(name, "be there once", Unquoted("the tensor twice"))
        sizes = _sizes(cursor, name)
        kind = cursor.u32(f"the type of {name}")
        if kind not in FORMATS:
            known = ", ".join(known.name for known in FORMATS.values())
            raise cursor.error(
                f"the type of {name}", f"be one of {known}", Unquoted(type_name(kind))
            )
        offset = cursor.u64(f"the offset of {name}")
        num_bytes = _num_bytes(cursor, name, sizes, FORMATS[kind])
        entries[name] = Entry(name, FORMATS[kind], sizes[::-1], offset, num_bytes)
    return entries


def _sizes(cursor: Cursor, name: str) -> tuple[int, ...]:
    """Sizes of a tensor's axes, fastest first."""
    dimensions = cursor.u32(f"the dimensions of {name}")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise cursor.error(f"the dimensions of {name}", f"be 1 to {_MAX_DIMENSIONS}", dimensions)
    sizes = tuple(cursor.u64(f"the shape of {name}") for _ in range(dimensions))
    if 0 in sizes:
        raise cursor.error(f"the shape of {name}", "have sizes of at least 1", sizes[::-1])
    return sizes


def _num_bytes(cursor: Cursor, name: str, sizes: tuple[int, ...], kind: Format) -> int:
    if sizes[0] % kind.width:
        rule = f"have rows of whole blocks of {kind.width}, as {kind.name} has"
        raise cursor.error(f"the shape of {name}", rule, sizes[::-1])
    num_bytes = sizes[0] // kind.width * kind.num_bytes
    for size in sizes[1:]:
        num_bytes *= size
    return num_bytes


def _placed(cursor: Cursor, entry: Entry, start: int, alignment: int) -> Entry:
    """The entry with its start counted from the beginning of the file."""
    if entry.start % alignment:
        rule = f"be a multiple of the alignment {alignment}"
        raise cursor.error(f"the offset of {entry.name}", rule, entry.start)
    end = start + entry.start + entry.num_bytes
    size = cursor.position + cursor.left
    if end > size:
        raise cursor.error(entry.name, f"end within the file's {size} bytes", end)
    return Entry(entry.name, entry.format, entry.shape, start + entry.start, entry.num_bytes)


def _check_overlaps(cursor: Cursor, entries: Mapping[str, Entry]) -> None:
    last: Entry | None = None
    for entry in sorted(entries.values(), key=lambda entry: entry.start):
        if last is not None and entry.start < last.start + last.num_bytes:
            raise cursor.error(entry.name, f"begin after the end of {last.name}", entry.start)
        last = entry


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
