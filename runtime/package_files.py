"""The files of a package: opened if they are regular and inside the package, read up to a limit.

JSON is read strictly: UTF-8, one object at the top, no duplicate keys, no NaN or infinity.
Links are followed only to targets inside the package directory, so a package cannot make a
reader open anything else; pipes and devices are refused before they can block.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from spiketrain.runtime.draft_folder import recover
from spiketrain.runtime.errors import PackageError


def package_root(path: str | os.PathLike[str]) -> Path:
    """The resolved directory of a package. PackageError when it is not a directory."""
    try:
        recover(Path(path).resolve())
        root = Path(path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise PackageError(f"{path}: must be a package directory, got {_reason(error)}") from None
    if not root.is_dir():
        raise PackageError(f"{path}: must be a package directory, got a file")
    return root


def check_file_name(where: str, name: object) -> str:
    """A name which stays in the directory it is joined to, as a string."""
    plain = (
        isinstance(name, str)
        and 0 < len(name) <= 255
        and not name.startswith(".")
        and not any(c in "/\\" or ord(c) < 32 or ord(c) == 127 for c in name)
    )
    if not plain:
        raise PackageError(f"{where}: must be a plain file name, got {name!r}")
    return str(name)


def has_file(root: Path, name: str) -> bool:
    """Whether the package has an entry of that name, readable or not."""
    return os.path.lexists(root / name)


def open_file(root: Path, name: str) -> BinaryIO:
    """Open `name` of the package directory `root` for reading."""
    path = root / check_file_name(str(root), name)
    try:
        target = path.resolve(strict=True)
        if not target.is_relative_to(root):
            raise PackageError(f"{path}: must stay inside the package, links to {target}")
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        descriptor = os.open(target, flags)
    except (OSError, RuntimeError) as error:
        raise PackageError(f"{path}: must be readable, got {_reason(error)}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PackageError(f"{path}: must be a regular file")
    return os.fdopen(descriptor, "rb")


def read_limited(root: Path, name: str, limit: int) -> bytes:
    """The whole file, of at most `limit` bytes."""
    with open_file(root, name) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            raise PackageError(f"{root / name}: must have at most {limit} bytes, got {size}")
        return stream.read(limit)


def read_json(root: Path, name: str, limit: int) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes."""
    return parse_json(str(root / name), read_limited(root, name, limit))


def parse_json(where: str, raw: bytes) -> dict[str, Any]:
    """Strictly parsed JSON object; PackageError names `where`."""
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise PackageError(f"{where}: must be JSON, got one nested too deeply") from None
    except ValueError as error:
        raise PackageError(f"{where}: must be JSON, got {error}") from None
    if not isinstance(value, dict):
        raise PackageError(f"{where}: must hold a JSON object, got {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} twice")
        result[key] = value
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"the number {name}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text}")
    return value


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
