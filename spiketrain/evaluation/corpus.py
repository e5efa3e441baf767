"""A text file as a stream of documents: one in memory at a time, hashed and counted on the way.

A document ends at a line that says `<|endoftext|>`. The newline before that line belongs to the
separator, as in training: a document is encoded alone and followed by one end-of-text id, which
stands for the newline, the separator line and its own newline. What follows the last separator is
a document without end. Bytes and words are those of the raw text, separators included: the
separator line is one word, and 15 bytes with both of its newlines.

Other forms of files: `jsonl`, where each line is an object with a string `text`, a document of
exactly that text, followed by an end-of-text id; and `articles`, WikiText's, where a document
begins with a line ` = Title = ` between empty lines and is followed by nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from spiketrain.runtime.errors import DataError
from spiketrain.runtime.xz_file import open_xz

SEPARATOR = "<|endoftext|>"
MAX_DOCUMENT_BYTES = 64 << 20

FORMS = ("text", "jsonl", "articles")

_TITLE = re.compile(rb" ?= [^=].* = ?\n")
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

    def __init__(
        self,
        path: Path,
        on_progress: Callable[[int, int], None] | None = None,
        form: str = "text",
    ) -> None:
        self.path = path
        self._split = {
            "text": self._documents,
            "jsonl": self._objects,
            "articles": self._articles,
        }[form]
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
                stream = open_xz(self.path, file) if packed else file
                for document in self._split(stream):
                    yield document
                    if self._on_progress:
                        self._on_progress(file.tell(), size)
        except OSError as error:
            raise DataError(f"{self.path}: must be readable, got {error.strerror}") from None
        if not self._position:
            raise DataError(f"{self.path}: must have text, is empty")

    def _lines(self, stream: IO[bytes]) -> Iterator[bytes]:
        """Lines, hashed; one that no document could hold is cut."""
        while line := stream.readline(MAX_DOCUMENT_BYTES + len(_SEPARATOR_LINES[1])):
            self._digest.update(line)
            yield line

    def _documents(self, stream: IO[bytes]) -> Iterator[Document]:
        lines: list[bytes] = []
        held = 0
        for line in self._lines(stream):
            if line in _SEPARATOR_LINES and (not lines or lines[-1].endswith(b"\n")):
                yield self._document(lines, line)
                lines, held = [], 0
                continue
            lines.append(line)
            held += len(line)
            self._check_size(held)
        if lines:
            yield self._document(lines, b"")

    def _articles(self, stream: IO[bytes]) -> Iterator[Document]:
        lines: list[bytes] = []
        held = 0
        for line in self._lines(stream):
            if not line.strip() and len(lines) > 2 and _is_title(lines[-2:]):
                yield self._document(lines[:-2], b"")
                lines = lines[-2:]
                held = sum(map(len, lines))
            lines.append(line)
            held += len(line)
            self._check_size(held)
        if lines:
            yield self._document(lines, b"")

    def _objects(self, stream: IO[bytes]) -> Iterator[Document]:
        for number, line in enumerate(self._lines(stream), 1):
            self._check_size(len(line))
            if not line.strip():
                self._position += len(line)
                continue
            self._decode(line)
            try:
                record = json.loads(line)
                text = record["text"]
                size = len(text.encode())
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise DataError(
                    f"{self.path}: line {number} must be a JSON object with a string 'text', "
                    f"got {line[:60]!r}"
                ) from None
            self._position += len(line)
            yield Document(text, True, size, len(text.split()))

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > MAX_DOCUMENT_BYTES:
            raise DataError(
                f"{self.path}: a document must have at most {MAX_DOCUMENT_BYTES} bytes, "
                f"the one at byte {self._position} has more"
            )

    def _document(self, lines: list[bytes], separator: bytes) -> Document:
        raw = b"".join(lines)
        text = self._decode(raw[:-1] if separator and raw else raw)
        num_bytes = len(raw) + len(separator)
        self._position += num_bytes
        return Document(text, bool(separator), num_bytes, len(text.split()) + bool(separator))

    def _decode(self, data: bytes) -> str:
        """The text that `data`, at the present position, holds."""
        at, rule = data.find(b"\0"), "text"
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            at, rule = error.start, "UTF-8"
        if at >= 0:
            raise DataError(
                f"{self.path}: must be {rule}, got byte 0x{data[at]:02x} "
                f"at byte {self._position + at}"
            )
        return text


def _is_title(lines: list[bytes]) -> bool:
    """Whether the last of two lines is a title after an empty line."""
    return not lines[0].strip() and _TITLE.fullmatch(lines[1]) is not None
