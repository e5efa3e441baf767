"""A corpus of documents as token streams: read, encode once, cut into lanes.

A document ends at a line that says `<|endoftext|>`; each is encoded alone and followed by one
end-of-text id.  Lanes are contiguous stretches of the stream, so that truncated backpropagation
can carry its state from chunk to chunk.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spiketrain.runtime.durable_files import new_file
from spiketrain.runtime.errors import DataError, WriteError
from spiketrain.runtime.xz_file import open_xz

DOCUMENT_END = "<|endoftext|>"


def read_text(path: Path) -> str:
    """UTF-8 text of a plain or `.xz` file; DataError names the file if it is none.

    An `.xz` file may unpack to 100 times its size, see `spiketrain.runtime.xz_file`.
    """
    try:
        with path.open("rb") as file:
            raw = open_xz(path, file).read() if path.suffix == ".xz" else file.read()
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be UTF-8, is not at byte {error.start}") from error
    except OSError as error:
        raise DataError(f"{path}: must be readable, got {error.strerror}") from error


def documents(text: str) -> list[str]:
    """Split at lines that say `<|endoftext|>`; the line and its two newlines are dropped."""
    parts = text.split("\n" + DOCUMENT_END + "\n")
    last = parts[-1].removesuffix("\n" + DOCUMENT_END)
    return [part for part in (*parts[:-1], last) if part]


def encode_corpus(
    path: Path, encode: Callable[[str], list[int]], eos_id: int, cache: Path | None, key: str
) -> np.ndarray:
    """All documents as one int32 stream, each followed by eos_id.

    With `cache`, the stream is kept there under a name made of the text's and the tokenizer's
    digests (`key`), and read back from it.
    """
    raw = read_text(path)
    digest = hashlib.sha256(key.encode() + b"\0" + raw.encode()).hexdigest()[:16]
    stored = cache / f"{path.name.split('.')[0]}-{digest}.npy" if cache else None
    if stored and (ids := _cached(stored)) is not None:
        return ids
    parts = [np.asarray([*encode(text), eos_id], dtype=np.int32) for text in documents(raw)]
    if not parts:
        raise DataError(f"{path}: must have text, is empty")
    stream = np.concatenate(parts)
    if stored:
        _keep(stored, stream)
    return stream


def _cached(stored: Path) -> np.ndarray | None:
    """The stream kept in a file, None if there is none or the file is damaged."""
    try:
        ids = np.load(stored, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype == np.int32
    return ids if whole else None


def _keep(stored: Path, stream: np.ndarray) -> None:
    """Write a stream as .npy. Raises WriteError."""
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError.of(stored, error) from error
    with new_file(stored) as file:  # np.save to a file says nothing of why it failed
        header = np.lib.format.header_data_from_array_1_0(stream)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(stream.data)


class Lanes:
    """`batch` parallel readers of one stream, `steps` tokens a chunk, endlessly in epochs.

    Each epoch starts the lanes at another offset, so that chunk borders fall elsewhere.
    """

    def __init__(self, stream: np.ndarray, batch: int, steps: int) -> None:
        self.chunks = (len(stream) // batch - 1) // steps
        if self.chunks < 1:
            raise DataError(
                f"{len(stream)} tokens are too few for batch {batch} of {steps} steps and a target"
            )
        self._stream, self._batch, self._steps = stream, batch, steps

    def chunk(self, index: int) -> tuple[np.ndarray, np.ndarray, bool]:
        """Inputs and targets (B, T) int64 of chunk `index`, and whether an epoch begins with it."""
        epoch, at = divmod(index, self.chunks)
        stride = len(self._stream) // self._batch
        rotated = (epoch * 7919) % stride
        starts = (np.arange(self._batch) * stride + rotated + at * self._steps)[:, None]
        positions = (starts + np.arange(self._steps + 1)) % len(self._stream)
        window = self._stream[positions].astype(np.int64)
        return window[:, :-1], window[:, 1:], at == 0
