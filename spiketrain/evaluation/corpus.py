"""A text file as a stream of documents: one in memory at a time, hashed and counted on the way.

A document ends at a line that says `<|endoftext|>`. The newline before that line belongs to the
separator, as in training: a document is encoded alone and followed by one end-of-text id, which
stands for the newline, the separator line and its own newline. What follows the last separator is
a document without end. Bytes and words are those of the raw text, separators included: the
separator line is one word, and 15 bytes with both of its newlines.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runtime.errors import DataError

SEPARATOR = "<|endoftext|>"
MAX_DOCUMENT_BYTES = 64 << 20

_SEPARATOR_LINES = (SEPARATOR.encode(), SEPARATOR.encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be encoded, and what it takes up in the file."""

    text: str
    ended: bool  # a separator line follows
    num_bytes: int
    num_words: int


class Corpus:
    """The documents of one UTF-8 file, plain or `.xz`. Iterate once; DataError names the file."""

    def __init__(self, path: Path, on_progress: Callable[[int, int], None] | None = None) -> None:
        self.path = path
        self._on_progress = on_progress
        self._digest = hashlib.sha256()
        self._position = 0

    @property
    def hash(self) -> str:
        """`sha256:` of the text read so far, uncompressed."""
        return f"sha256:{self._digest.hexdigest()}"

    def __iter__(self) -> Iterator[Document]:
        try:
            with self.path.open("rb") as file:
                size = self.path.stat().st_size
                packed = self.path.suffix == ".xz"
                stream = lzma.LZMAFile(file) if packed else file  # noqa: SIM115 (file is closed)
                for document in self._documents(stream):
                    yield document
                    if self._on_progress:
                        self._on_progress(file.tell(), size)
        except (lzma.LZMAError, EOFError) as error:
            raise DataError(f"{self.path}: must be an intact .xz file, got {error}") from None
        except OSError as error:
            raise DataError(f"{self.path}: must be readable, got {error.strerror}") from None
        if not self._position:
            raise DataError(f"{self.path}: must have text, is empty")

    def _documents(self, stream: IO[bytes]) -> Iterator[Document]:
        lines: list[bytes] = []
        held = 0
        while line := stream.readline(MAX_DOCUMENT_BYTES + len(_SEPARATOR_LINES[1])):
            self._digest.update(line)
            if line in _SEPARATOR_LINES and (not lines or lines[-1].endswith(b"\n")):
                yield self._document(lines, line)
                lines, held = [], 0
                continue
            lines.append(line)
            held += len(line)
            if held > MAX_DOCUMENT_BYTES:
                raise DataError(
                    f"{self.path}: a document must have at most {MAX_DOCUMENT_BYTES} bytes, "
                    f"the one at byte {self._position} has more"
                )
        if lines:
            yield self._document(lines, b"")

    def _document(self, lines: list[bytes], separator: bytes) -> Document:
        raw = b"".join(lines)
        body = raw[:-1] if separator and raw else raw
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}: must be UTF-8, got byte 0x{body[error.start]:02x} "
                f"at byte {self._position + error.start}"
            ) from None
        num_bytes = len(raw) + len(separator)
        self._position += num_bytes
        return Document(text, bool(separator), num_bytes, len(text.split()) + bool(separator))
