"""Draft folders hold files beside their target; drafts of killed writers are removed.

The draft of `name` is `.name.<16 hex digits>.tmp`. Its writer holds a lock on the folder (flock),
which the system drops when the process ends. A draft that can be locked has no writer, and the next
writer of the same target removes the draft. A file system without locks keeps such drafts.

`.name.<16 hex digits>.old` is a target that was moved aside, where the system cannot swap two
names. If the writer is killed before the new target takes its place, `recover` moves it back.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFT, ASIDE = "tmp", "old"


def beside(target: Path, kind: str) -> Path:
    """A new name beside a target, of DRAFT or ASIDE."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.{kind}")


@contextmanager
def draft_folder(target: Path) -> Iterator[Path]:
    """A new locked folder beside `target`; what has its name at the end is removed.

    Drafts of `target` whose writers were killed are removed first. Raises OSError.
    """
    tidy(target)
    folder, lock = _new_folder(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def tidy(target: Path) -> None:
    """Remove what killed writers of `target` left, after `recover`."""
    recover(target)
    for leftover in _leftovers(target.parent, re.escape(target.name), f"{DRAFT}|{ASIDE}"):
        _remove_unless_locked(leftover)


def tidy_all(folder: Path) -> None:
    """Remove what killed writers of any target in `folder` left; what was moved aside stays."""
    for leftover in _leftovers(folder, ".+", DRAFT):
        _remove_unless_locked(leftover)


def recover(target: Path) -> None:
    """Move back what was moved aside for a target that never came. Raises OSError."""
    if os.path.lexists(target):
        return
    for old in _leftovers(target.parent, re.escape(target.name), ASIDE):
        with locked(old, wait=True):  # a writer that is alive moves the new one in first
            if os.path.lexists(old) and not os.path.lexists(target):
                os.rename(old, target)


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Whether the folder is locked in the block; False if its writer lives, or it is gone."""
    try:
        descriptor = lock_folder(folder, wait)
    except BlockingIOError:
        descriptor = None
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def lock_folder(folder: Path, wait: bool = False) -> int | None:
    """A descriptor that locks `folder` until it is closed, under whatever name.

    None if the folder is gone or its file system has no locks. Raises BlockingIOError if another
    holds the lock, unless it is to `wait`.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _lock(descriptor, wait) and _is_at(descriptor, folder):
            return descriptor
    except BlockingIOError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _new_folder(target: Path) -> tuple[Path, int]:
    """A new draft folder and the descriptor that locks it, if the file system has locks."""
    while True:
        folder = beside(target, DRAFT)
        os.mkdir(folder)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # tidied by another writer before it was locked
            continue
        _lock(descriptor, wait=True)
        if _is_at(descriptor, folder):
            return folder, descriptor
        os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> bool:
    """Whether there is a lock; False on a file system without. Raises BlockingIOError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open folder still has that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _leftovers(folder: Path, name: str, kinds: str) -> list[Path]:
    """Folders with the name of a draft of `name`, a pattern."""
    pattern = re.compile(rf"\.{name}\.[0-9a-f]{{16}}\.({kinds})", re.DOTALL)
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:  # no such folder, or not ours to list: nothing to do
        return []


def _remove_unless_locked(folder: Path) -> None:
    with locked(folder) as mine:
        if mine:
            shutil.rmtree(folder, ignore_errors=True)
