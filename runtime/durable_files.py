"""Files and folders that reach the disk whole, or not at all; errors name the file and its rule."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from spiketrain.runtime.draft_folder import ASIDE, beside, draft_folder, lock_folder
from spiketrain.runtime.errors import PackageError, WriteError
from spiketrain.runtime.exchange import exchange


def read_all(path: Path) -> bytes:
    """Content of a file; PackageError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise PackageError(f"{path}: must be readable, got {error.strerror}") from None


def write_file(path: Path, content: bytes) -> None:
    """Write a new file, down to the disk; PackageError if it cannot be, and nothing is left."""
    try:
        with open(path, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        if not isinstance(error, FileExistsError):
            path.unlink(missing_ok=True)
        raise PackageError(f"{path}: must be writable, got {error.strerror}") from None


def replace_file(target: Path, content: bytes) -> None:
    """`new_file` of this content."""
    with new_file(target) as stream:
        stream.write(content)


@contextmanager
def new_file(target: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of `target` as a whole when the block ends.

    On any error `target` is as it was and nothing is left beside it. Errors of the system become a
    WriteError that names `target`, also if a library hid them behind an error of its own. A device
    or a pipe is written to directly.
    """
    place = Path(os.path.realpath(target))
    raw: _Watched | None = None
    try:
        with _draft_of(place) as path, _Watched(path, "wb") as raw:
            with io.BufferedWriter(raw) as stream:  # type: ignore[type-var, unused-ignore]
                yield stream
                stream.flush()
                if path != place:
                    os.fsync(raw.fileno())
            if path != place:
                os.replace(path, place)
                sync_directory(place.parent)
    except Exception as error:
        hidden = raw.failure if raw is not None else None
        cause = error if isinstance(error, OSError) else hidden
        if cause is None:
            raise
        raise WriteError.of(target, cause) from error


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `target` when the block ends; see `new_file`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(target) as folder:
            yield folder
            for file in folder.rglob("*"):
                _sync(file)
            put_in_place(folder, target)
    except OSError as error:
        raise WriteError.of(target, error) from error


def append_whole(path: Path, stream: io.FileIO, data: bytes) -> None:
    """Add `data` to the end of the unbuffered file, or nothing: WriteError names `path`."""
    size = stream.seek(0, os.SEEK_END)
    try:
        while data:  # a write may end early, as at the last byte of a disk
            data = data[stream.write(data) :]
    except OSError as error:
        stream.truncate(size)
        raise WriteError.of(path, error) from error


def sync_directory(path: Path) -> None:
    """Have the names in a folder reach the disk."""
    _sync(path)


def put_in_place(draft: Path, target: Path) -> None:
    """Give the folder `draft` the name `target`; what had that name is removed after that.

    Where the system can swap names, `target` is never away. Else it is for an instant, and a writer
    that is killed in it leaves the old folder beside, see `draft_folder.recover`. Raises OSError;
    then `target` is as it was.
    """
    if not os.path.lexists(target):
        os.rename(draft, target)
        sync_directory(target.parent)
    elif exchange(draft, target):
        try:
            sync_directory(target.parent)
        except BaseException:
            exchange(draft, target)
            raise
        shutil.rmtree(draft, ignore_errors=True)
    else:
        _replace_by_renames(draft, target)


def _replace_by_renames(draft: Path, target: Path) -> None:
    old = beside(target, ASIDE)
    lock = lock_folder(target, wait=True)  # nobody is to move it back meanwhile
    try:
        os.rename(target, old)
        os.rename(draft, target)
        sync_directory(target.parent)
    except BaseException:  # an interrupt must not leave the target away
        if os.path.lexists(old) and not os.path.lexists(target):
            os.rename(old, target)
        raise
    finally:
        if os.path.lexists(target):
            shutil.rmtree(old, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def _draft_of(place: Path) -> Iterator[Path]:
    """The path to write to: in a draft folder, or the place of a device or pipe itself."""
    if place.exists() and not place.is_file() and not place.is_dir():
        yield place
        return
    with draft_folder(place) as folder:
        yield folder / place.name


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Watched(io.FileIO):
    """A file that remembers why a write failed."""

    failure: OSError | None = None

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]
        """As FileIO does."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise
