"""What an interrupted evaluation leaves: finished documents as JSON lines, and where to go on.

Beside the lines stands `<name>.progress`, one JSON object, replaced as a whole. It says how many
bytes of the lines count, so that a line cut short by a crash does no harm.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from runtime.errors import DataError

VERSION = 1


class ProgressFile:
    """The lines of one evaluation; `identity` is all that its results depend on, as JSON."""

    def __init__(self, path: Path, identity: dict[str, Any], resume: bool) -> None:
        self.path = path
        self.beside = path.with_name(path.name + ".progress")
        self._identity = identity
        self.found: dict[str, Any] | None = None
        if resume and self.beside.exists():
            self.found = self._read()
        elif path.exists() and path.stat().st_size:
            raise DataError(
                f"{path}: must not exist, or hold an interrupted evaluation to go on with "
                f"(--resume), got a file of {path.stat().st_size} bytes"
            )
        self._file = path.open("r+b" if path.exists() else "w+b")
        size = self.found["bytes"] if self.found else 0
        if path.stat().st_size < size:
            raise DataError(f"{path}: must have the {size} bytes that {self.beside} counts")
        self._file.truncate(size)

    def records(self) -> list[dict[str, Any]]:
        """The documents finished so far."""
        self._file.seek(0)
        try:
            return [json.loads(line) for line in self._file]
        except ValueError as error:
            raise DataError(f"{self.path}: must be JSON lines, got {error}") from None

    def write(self, record: dict[str, Any]) -> None:
        """Append one document."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(record).encode() + b"\n")

    def keep(self, progress: dict[str, Any]) -> None:
        """All lines so far count, and the evaluation goes on from `progress`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.seek(0, os.SEEK_END)
        content = {"version": VERSION, "identity": self._identity, "bytes": size, **progress}
        partial = self.beside.with_name(self.beside.name + ".partial")
        partial.write_text(json.dumps(content))
        os.replace(partial, self.beside)

    def close(self) -> None:
        """No more lines."""
        self._file.close()

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.beside.read_text())
            identity, version = found["identity"], found["version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.beside}: must be a progress file, got {error!r}") from None
        if version != VERSION:
            raise DataError(f"{self.beside}: version must be {VERSION}, got {version!r:.80}")
        for key, value in self._identity.items():
            if identity.get(key) != value:
                raise DataError(
                    f"{self.beside}: {key} must be {value!r} as in this call, "
                    f"got {identity.get(key)!r:.200}"
                )
        return found
