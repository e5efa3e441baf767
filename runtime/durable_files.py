"""Files and folders that reach the disk whole, or not at all; errors name the file and its rule."""

import os
import shutil
from pathlib import Path

from spiketrain.runtime.errors import PackageError


def read_all(path: Path) -> bytes:
    """Content of a file; PackageError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise PackageError(f"{path}: must be readable, got {error.strerror}") from None


def write_file(path: Path, content: bytes) -> None:
    """Write a new file, down to the disk; PackageError if it cannot be."""
    try:
        with open(path, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise PackageError(f"{path}: must be writable, got {error.strerror}") from None


def sync_directory(path: Path) -> None:
    """Have the names in a folder reach the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(draft: Path, target: Path) -> None:
    """Rename the draft to the target; what was there before is removed only after that."""
    old = draft.with_suffix(".old")
    try:
        if os.path.lexists(target):
            os.rename(target, old)
        os.rename(draft, target)
    except BaseException:  # an interrupt must not leave the target away
        if os.path.lexists(old) and not os.path.lexists(target):
            os.rename(old, target)
        raise
    finally:
        if os.path.lexists(target):
            shutil.rmtree(old, ignore_errors=True)
    sync_directory(target.parent)
