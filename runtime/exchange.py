"""Swaps two names of a folder in one step, so that each name always has a file.

Linux has renameat2 with RENAME_EXCHANGE, since 3.15, on ext4, XFS, Btrfs, tmpfs and others.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_ABSENT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # an old kernel, or another file system


def exchange(first: Path, second: Path) -> bool:
    """Swap what two paths of one file system name; False where system or file system cannot.

    Raises OSError, as where one of them does not exist.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:  # a C library from before 2018
        return False
    names = os.fsencode(first), os.fsencode(second)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _ABSENT:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))
