"""Writes a package file by file, so that it need not fit memory and can be resumed.

The draft is a directory beside the target; each of its safetensors files is whole or absent.
draft.json states the source and the options of the draft. A draft with another statement is not
resumed.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from spiketrain.runtime.draft_folder import lock_folder
from spiketrain.runtime.durable_files import write_file
from spiketrain.runtime.errors import PackageError
from spiketrain.runtime.package import INDEX_FILE, check_target, publish
from spiketrain.runtime.package_files import has_file, read_json
from spiketrain.runtime.tensor_file import map_tensors, write_tensors

IDENTITY_FILE = "draft.json"
_IDENTITY_BYTES = 4 << 20


class PackageDraft:
    """The draft of a package at `target`.

    identity: JSON of what is made from what; a draft that is there is gone on with if `resume` and
    its identity is the same, else PackageError.  The draft stays if the process ends. No other
    writer gets it while this object lives, or until the `with` statement of it ends.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        identity: Mapping[str, Any],
        resume: bool = False,
        force: bool = False,
    ) -> None:
        self.target = Path(os.path.abspath(target))
        self.force = force
        check_target(self.target, force)
        self.folder = self.target.with_name(f".{self.target.name}.partial")
        stated = json.loads(json.dumps(dict(identity)))
        self._unlock = self._lock()
        try:
            if (self.folder / IDENTITY_FILE).is_file():
                self._check_same(stated, resume)
            else:
                self._begin(stated)
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> PackageDraft:
        return self

    def __exit__(self, *_: object) -> None:
        self._unlock()

    def has(self, file: str) -> bool:
        """Whether this file was written, whole."""
        return has_file(self.folder, file)

    def read(self, file: str) -> dict[str, NDArray[Any]]:
        """The tensors of a file that was written, as mapped views."""
        return map_tensors(self.folder, file)

    def write(self, file: str, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Write one safetensors file, whole or not at all."""
        partial = self.folder / f"{file}.partial"
        partial.unlink(missing_ok=True)
        write_tensors(partial, tensors)
        os.rename(partial, self.folder / file)

    def finish(
        self,
        config: Mapping[str, Any],
        names: list[str],
        files: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
    ) -> str:
        """Check all files in `names`, put the package in place and return its fingerprint.

        One file is mapped at a time.
        """
        tensors = _OneFileAtATime(self.folder, names)
        index = {"metadata": {}, "weight_map": tensors.places}
        for leftover in self.folder.iterdir():
            if leftover.name not in names and leftover.name != IDENTITY_FILE:
                leftover.unlink()  # of an attempt to finish
        write_file(self.folder / INDEX_FILE, json.dumps(index).encode())
        fingerprint = publish(self.folder, self.target, config, tensors, files, self.force)
        (self.target / IDENTITY_FILE).unlink(missing_ok=True)
        self._unlock()
        return fingerprint

    def _lock(self) -> Callable[[], object]:
        """Keep other writers out of the draft while this object lives; what ends that."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = lock_folder(self.folder)
        except BlockingIOError:
            raise PackageError(f"{self.folder}: must have one writer, another is at work") from None
        except OSError as error:
            raise PackageError(f"{self.folder}: must be writable, got {error.strerror}") from None
        return weakref.finalize(self, _close, descriptor)

    def _begin(self, stated: dict[str, Any]) -> None:
        """Write the identity, before which nothing of this draft was written.

        Without one the folder is what a writer left that was killed: at once, or in the middle of
        removing the package that the draft had replaced.
        """
        for leftover in self.folder.iterdir():
            leftover.unlink()
        partial = self.folder / f"{IDENTITY_FILE}.partial"
        try:
            write_file(partial, json.dumps(stated).encode())
        except PackageError:
            self.folder.rmdir()  # there is nothing to go on with
            raise
        os.rename(partial, self.folder / IDENTITY_FILE)

    def _check_same(self, stated: dict[str, Any], resume: bool) -> None:
        if not resume:
            raise PackageError(
                f"{self.folder}: must not exist: an attempt was cut off, --resume goes on with it "
                "(or remove the directory)"
            )
        stored = read_json(self.folder.resolve(), IDENTITY_FILE, _IDENTITY_BYTES)
        for key in sorted(stored.keys() | stated.keys()):
            if stored.get(key) != stated.get(key):
                raise PackageError(
                    f"{self.folder}: {key} must be as in the attempt to go on with, "
                    f"{stored.get(key)!r:.200}, got {stated.get(key)!r:.200}"
                )


def _close(descriptor: int | None) -> None:
    if descriptor is not None:  # a file system without locks
        os.close(descriptor)


class _OneFileAtATime(Mapping[str, "NDArray[Any]"]):
    """All tensors of several files; those of the file asked last are mapped."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder = folder.resolve()
        self._mapped = ("", dict[str, "NDArray[Any]"]())
        self.places: dict[str, str] = {}
        for file in names:
            for name in map_tensors(self._folder, file):
                if name in self.places:
                    raise PackageError(f"{folder / file}: tensor {name!r} is in another file too")
                self.places[name] = file

    def __getitem__(self, name: str) -> NDArray[Any]:
        file = self.places[name]
        if file != self._mapped[0]:
            self._mapped = ("", {})
            self._mapped = (file, map_tensors(self._folder, file))
        return self._mapped[1][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)
