"""Reading .xz files whose author is unknown: memory and output stay in proportion to the file."""

from __future__ import annotations

import io
import lzma
import os
from pathlib import Path
from typing import IO

from spiketrain.runtime.errors import DataError

# A decoder needs its dictionary, which `xz -9` makes 64 MiB and a hostile header 4 GiB.
DECODER_BYTES = 256 << 20
# Text becomes three to ten times smaller, repeated text some fifty times; zeros 7,000 times.
FREE_BYTES, MAX_RATIO = 64 << 20, 100
_PIECE = 1 << 16


def open_xz(path: Path, file: IO[bytes]) -> io.BufferedReader:
    """The unpacked content of `file`, an open .xz file; `path` is its name in errors.

    Reading raises DataError on a file that is damaged, cut short, needs more than DECODER_BYTES, or
    unpacks to more than FREE_BYTES and MAX_RATIO times its size.
    """
    return io.BufferedReader(_Unpacked(path, file), _PIECE)


class _Unpacked(io.RawIOBase):
    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._most = FREE_BYTES + MAX_RATIO * os.fstat(file.fileno()).st_size
        self._bytes = 0
        self._decoder: lzma.LZMADecompressor | None = _decoder()

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Unpack into the buffer; the number of bytes, 0 at the end."""
        data = b""
        while not data and self._decoder is not None:
            data = self._next(self._decoder, len(buffer))
        self._bytes += len(data)
        if self._bytes > self._most:
            raise DataError(
                f"{self._path}: must unpack to at most {self._most} bytes, {FREE_BYTES} and "
                f"{MAX_RATIO} times its size, unpacks to more (unpacked it has no such limit)"
            )
        buffer[: len(data)] = data
        return len(data)

    def _next(self, decoder: lzma.LZMADecompressor, most: int) -> bytes:
        """Further bytes, maybe none yet; the decoder is gone after the last ones."""
        try:
            if decoder.eof:
                return self._next_stream(decoder.unused_data)
            piece = self._file.read(_PIECE) if decoder.needs_input else b""
            if decoder.needs_input and not piece:
                raise lzma.LZMAError("the file is cut short")
            return decoder.decompress(piece, most)
        except lzma.LZMAError as error:
            raise DataError(
                f"{self._path}: must be an intact .xz file that takes at most {DECODER_BYTES} "
                f"bytes to unpack, got {error}"
            ) from None

    def _next_stream(self, rest: bytes) -> bytes:
        """Begin with the stream after one that has ended, if there is one; no bytes yet."""
        while not (rest := rest.lstrip(b"\0")):  # streams may have zeros between them
            rest = self._file.read(_PIECE)
            if not rest:
                self._decoder = None
                return b""
        self._decoder = _decoder()
        return self._decoder.decompress(rest, 0)


def _decoder() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=DECODER_BYTES)
