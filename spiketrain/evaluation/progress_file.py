"""The files of an interrupted evaluation: finished documents as JSON lines, and its progress.

Beside the lines stands `<name>.progress`, one JSON object, replaced as a whole. It says how many
bytes of the lines count, so that a line cut short by a crash does no harm. Both are hashed: what
was changed since is refused by name.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

from spiketrain.runtime.durable_files import append_whole, replace_file
from spiketrain.runtime.errors import DataError, WriteError

VERSION = 2


class ProgressFile:
    """The lines of one evaluation; `identity` is all that its results depend on, as JSON."""

    def __init__(self, path: Path, identity: dict[str, Any], resume: bool) -> None:
        self.path = path
        self.beside = path.with_name(path.name + ".progress")
        self._identity = identity
        self.progress: dict[str, Any] | None = None
        if resume and self.beside.exists():
            self.progress = self._read()
        else:
            for old in (path, self.beside):
                if old.exists() and old.stat().st_size:
                    raise DataError(
                        f"{old}: must not exist, or be of an interrupted evaluation to go on with "
                        f"(--resume), got {old.stat().st_size} bytes"
                    )
        counted = self._counted()
        self._digest = hashlib.sha256(counted)  # of the lines
        try:
            self._file = io.FileIO(path, "r+" if path.exists() else "w+")
            self._file.truncate(len(counted))
        except OSError as error:
            raise WriteError.of(path, error) from error

    def records(self) -> list[dict[str, Any]]:
        """The documents finished so far."""
        return [json.loads(line) for line in self.path.read_bytes().split(b"\n") if line]

    def write(self, record: dict[str, Any]) -> None:
        """Append one document, or nothing if the system does not take it: WriteError."""
        line = json.dumps(record).encode() + b"\n"
        append_whole(self.path, self._file, line)
        self._digest.update(line)

    def keep(self, progress: dict[str, Any]) -> None:
        """All lines so far count, and the evaluation goes on from `progress`. Raises WriteError."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise WriteError.of(self.path, error) from error
        content = {
            "identity": self._identity,
            "bytes": self._file.seek(0, os.SEEK_END),
            "lines": self._digest.hexdigest(),
            **progress,
        }
        whole = {"version": VERSION, "sha256": _hash(content), "content": content}
        replace_file(self.beside, json.dumps(whole).encode())

    def close(self) -> None:
        """No more lines."""
        self._file.close()

    def _read(self) -> dict[str, Any]:
        """The progress kept, if it is undamaged and of this evaluation."""
        try:
            whole = json.loads(self.beside.read_text())
            version = whole["version"]
            progress: dict[str, Any] = whole["content"] if version == VERSION else {}
            undamaged = version != VERSION or _hash(progress) == whole["sha256"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{self.beside}: must be a progress file, got {error!r}") from None
        if version != VERSION:
            raise DataError(f"{self.beside}: version must be {VERSION}, got {version!r:.80}")
        if not undamaged:
            raise DataError(f"{self.beside}: must have the content that its sha256 is of")
        for key, value in self._identity.items():
            if progress["identity"].get(key) != value:
                raise DataError(
                    f"{self.beside}: {key} must be {value!r} as in this call, "
                    f"got {progress['identity'].get(key)!r:.200}"
                )
        return progress

    def _counted(self) -> bytes:
        """The lines that count, which must be those that were written."""
        if self.progress is None:
            return b""
        size = self.progress["bytes"]
        lines = self.path.read_bytes()[:size] if self.path.exists() else b""
        if hashlib.sha256(lines).hexdigest() != self.progress["lines"]:
            raise DataError(
                f"{self.path}: must begin with the {size} bytes that {self.beside} counts"
            )
        return lines


def _hash(content: dict[str, Any]) -> str:
    """`sha256:` of the content as it stands in the file."""
    return f"sha256:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"
