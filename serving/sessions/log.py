"""SessionLog keeps changes that no transaction has yet, in order, in files that the system has.

If callers do not wait for the disk, a journal appends each change here before the call returns.
A change that the system has outlives the process: a server that is killed loses nothing. Only a
crash of the machine may lose changes that have not reached the disk. A group of changes has a file
of its own, `changes-<number>.log`, which is removed once its transaction is on disk.

A file begins with MAGIC, its number, and number and bytes of the previous file. A record has the
length of its rest, their CRC-32, the length of its JSON, then the rest: JSON (session id, bytes of
its record or null, bytes of each snapshot by key or null), the record, the snapshots.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger()

MAGIC = b"SPKLOG1\0"
_FILE = struct.Struct("<8sQQQ")
_RECORD = struct.Struct("<II")  # bytes after this, and their CRC-32
_TEXT = struct.Struct("<I")  # bytes of the JSON


@dataclass(frozen=True, slots=True)
class Change:
    """A session as it became, None for deleted, and snapshots by key, None for gone."""

    session_id: str
    record: bytes | None
    snapshots: Mapping[str, bytes | None]


class SessionLog:
    """Appends to the logs in `folder`. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0  # of the open file
        self._descriptor: int | None = None
        self._bytes = 0
        self._broken = False  # no later change is logged without an earlier one

    def append(self, number: int, change: Change) -> None:
        """Log a change of the group of this number.

        What the system does not take is not logged, nor is anything after it until the group is on
        disk: that a full disk keeps nothing is the journal's to say.
        """
        if self._broken:
            return
        try:
            if number != self._number:
                self._begin(number)
            assert self._descriptor is not None
            data = _to_bytes(change)
            if os.write(self._descriptor, data) < len(data):
                raise OSError("only a part of a change was taken")
            self._bytes += len(data)
        except OSError as error:
            self._broken = True
            log.warning("changes of sessions are not logged", error=str(error))

    def drop(self, number: int) -> None:
        """Remove the logs of this group and those before: they are on disk."""
        if number >= self._number:
            self._broken = False
            self.close()
            self._number = 0
            self._bytes = 0
        remove_logs(self._folder, number)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _begin(self, number: int) -> None:
        before = self._number, self._bytes
        self.close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(_path(self._folder, number), flags, 0o600)
        self._number, self._bytes = number, _FILE.size
        os.write(self._descriptor, _FILE.pack(MAGIC, number, *before))


def remove_logs(folder: Path, number: int | None = None) -> None:
    """Remove the logs of the groups up to this number, or all."""
    for found, path in _files(folder):
        if number is None or found <= number:
            path.unlink(missing_ok=True)


def logged(folder: Path, done: int) -> Iterator[tuple[int, list[Change]]]:
    """The changes of each group after `done`, in order, as far as none is missing."""
    before = None
    for number, path in _files(folder):
        if number <= done:
            continue
        data = path.read_bytes()
        if len(data) < _FILE.size:
            return
        magic, stated, *previous = _FILE.unpack_from(data)
        follows = previous[0] <= done if before is None else previous == before
        if magic != MAGIC or stated != number or not follows:
            return
        changes, whole = _changes(data)
        yield number, changes
        if not whole:
            return
        before = [number, len(data)]


def _changes(data: bytes) -> tuple[list[Change], bool]:
    """The changes up to the first that is damaged or cut short, and whether that was the end."""
    found: list[Change] = []
    at = _FILE.size
    while at < len(data):
        if at + _RECORD.size > len(data):
            return found, False
        size, check = _RECORD.unpack_from(data, at)
        body = data[at + _RECORD.size : at + _RECORD.size + size]
        if len(body) < size or zlib.crc32(body) != check:
            return found, False
        found.append(_change(body))
        at += _RECORD.size + size
    return found, True


def _to_bytes(change: Change) -> bytes:
    sizes = {key: None if data is None else len(data) for key, data in change.snapshots.items()}
    record = None if change.record is None else len(change.record)
    text = json.dumps([change.session_id, record, sizes]).encode()
    parts = [
        _TEXT.pack(len(text)),
        text,
        change.record or b"",
        *(data or b"" for data in change.snapshots.values()),
    ]
    body = b"".join(parts)
    return _RECORD.pack(len(body), zlib.crc32(body)) + body


def _change(body: bytes) -> Change:
    at = _TEXT.size + _TEXT.unpack_from(body)[0]
    session_id, record, sizes = json.loads(body[_TEXT.size : at])
    parts: list[bytes | None] = []
    for size in (record, *sizes.values()):
        parts.append(None if size is None else body[at : at + size])
        at += size or 0
    return Change(session_id, parts[0], dict(zip(sizes, parts[1:], strict=True)))


def _path(folder: Path, number: int) -> Path:
    return folder / f"changes-{number:016x}.log"


def _files(folder: Path) -> list[tuple[int, Path]]:
    """Number and path of each log, in order."""
    return sorted((int(path.stem[8:], 16), path) for path in folder.glob("changes-*.log"))
