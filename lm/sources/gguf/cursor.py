"""Bytes of a file in order, never more than the file still has."""

import os
import struct
from pathlib import Path
from typing import BinaryIO

from spiketrain.lm.sources.gguf.error import GgufError, Unquoted

_U32 = struct.Struct("<I")
MAX_NAME_BYTES = 1024
LENGTH = struct.Struct("<Q")


class Cursor:
    """A place in an open file of `size` bytes.  Each read names the part that it reads.

    Counts and lengths are compared with the bytes that are left before anything is allocated.
    Every method raises GgufError.
    """

    def __init__(self, stream: BinaryIO, size: int, file: Path) -> None:
        self._stream = stream
        self.file = file
        self.position = 0
        self._size = size

    @property
    def left(self) -> int:
        """Bytes from here to the end of the file."""
        return self._size - self.position

    def take(self, count: int, name: str) -> bytes:
        """The next `count` bytes."""
        if count > self.left:
            raise self.error(name, f"fit the {self.left} bytes that are left", count)
        self.position += count
        return self._read(count)

    def skip(self, count: int, name: str) -> None:
        """Pass over the next `count` bytes."""
        if count > self.left:
            raise self.error(name, f"fit the {self.left} bytes that are left", count)
        self.position += count
        self._stream.seek(count, os.SEEK_CUR)

    def since(self, start: int) -> bytes:
        """The bytes from `start` to here, once more."""
        self._stream.seek(start)
        return self._read(self.position - start)

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            rule = "stay as it is while it is read"
            raise self.error("the file", rule, Unquoted("a shorter one"))
        return data

    def u32(self, name: str) -> int:
        """The next four bytes as a number."""
        number: int = _U32.unpack(self.take(_U32.size, name))[0]
        return number

    def u64(self, name: str) -> int:
        """The next eight bytes as a number."""
        number: int = LENGTH.unpack(self.take(LENGTH.size, name))[0]
        return number

    def count(self, name: str, least: int) -> int:
        """The next eight bytes as a count of things of at least `least` bytes each."""
        count = self.u64(name)
        if count * least > self.left:
            rule = f"be a count of parts of {least} bytes or more in the {self.left} bytes left"
            raise self.error(name, rule, count)
        return count

    def string(self, name: str, most: int | None = None) -> bytes:
        """A length and as many bytes, at most `most` where that is given."""
        length = self.u64(f"the length of {name}")
        if most is not None and length > most:
            raise self.error(name, f"have at most {most} bytes", length)
        return self.take(length, name)

    def name(self, what: str) -> str:
        """A string that is the name of something; `what` says of what."""
        data = self.string(what, MAX_NAME_BYTES)
        try:
            name = data.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(what, "be UTF-8", data) from None
        if not name:
            raise self.error(what, "have at least one character", name)
        return name

    def error(self, name: str, rule: str, value: object) -> GgufError:
        """The error that says which part of which file breaks which rule."""
        return GgufError(self.file, name, rule, value)
