"""Read, write and validate a runtime package: the only module that does.

A package comes from anywhere and is treated as hostile: nothing in it is executed, everything is
checked against the family's Spec before a byte of tensor data is used, and the fingerprint proves
that config and tensors are those that were written. See docs/architecture.md for the files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from spiketrain.runtime.draft_folder import draft_folder, tidy
from spiketrain.runtime.durable_files import put_in_place, read_all, sync_directory, write_file
from spiketrain.runtime.errors import PackageError
from spiketrain.runtime.family import Spec, load_family
from spiketrain.runtime.package_files import (
    check_file_name,
    has_file,
    package_root,
    parse_json,
    read_json,
)
from spiketrain.runtime.package_rules import (
    check_format,
    check_generation_config,
    check_tensors,
    check_values,
)
from spiketrain.runtime.package_spec import FORMAT_VERSION
from spiketrain.runtime.tensor_file import map_tensors, release, tensor_bytes, write_tensors

CONFIG_FILE = "config.json"
TENSOR_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
GENERATION_FILE = "generation_config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")

_CONFIG_BYTES = 256 << 10
_GENERATION_BYTES = 64 << 10
_INDEX_BYTES = 16 << 20
_MAX_SHARDS = 1000

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Package:
    """A checked package. `tensors` are read-only views of mapped files."""

    path: Path
    config: dict[str, Any]
    spec: Spec
    tensors: dict[str, NDArray[Any]]
    generation_config: dict[str, Any]
    tokenizer_file: Path | None

    @property
    def family(self) -> str:
        """The name of the model's family."""
        return str(self.config["model_type"])

    @property
    def fingerprint(self) -> str:
        """`sha256:` and the hex digest of config and tensors."""
        return str(self.config["spiketrain"]["fingerprint"])

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The ids that end a text, from generation_config.json."""
        ids = self.generation_config.get("eos_token_id", [])
        return tuple(ids) if isinstance(ids, list) else (ids,)


def read_package(path: str | os.PathLike[str]) -> Package:
    """The package in the directory `path`; PackageError names file, field, rule and value."""
    package = open_package(path)
    check_content(package)
    check_fingerprint(package)
    return package


def open_package(path: str | os.PathLike[str]) -> Package:
    """As `read_package`, but no byte of a tensor has been looked at: see the checks below."""
    root = package_root(path)
    where = str(root / CONFIG_FILE)
    config = read_json(root, CONFIG_FILE, _CONFIG_BYTES)
    check_format(where, config)
    spec = _family_spec(where, config)
    tensors = _read_tensors(root)
    check_tensors(str(root / TENSOR_FILE), tensors, spec)
    return Package(
        root, config, spec, tensors, _read_generation_config(root, config), find_tokenizer(root)
    )


def check_content(package: Package) -> None:
    """PackageError unless the tensors' values are in their ranges."""
    check_values(str(package.path / TENSOR_FILE), package.tensors, package.spec)


def check_fingerprint(package: Package) -> None:
    """PackageError unless config and tensors are those of the stated fingerprint; reads it all."""
    content = compute_fingerprint(package.config, package.tensors)
    if content != package.fingerprint:
        raise PackageError(
            f"{package.path / CONFIG_FILE}: fingerprint must match the content, {content}, "
            f"got {package.fingerprint}"
        )


def write_package(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Tensors,
    files: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
    force: bool = False,
) -> str:
    """Write a package atomically and return its fingerprint.

    `files` maps the names of further files to their content (bytes), or to the file to copy.
    An existing target is refused; with `force`, a target that is itself a package is replaced.
    On any error the target is as it was and nothing is left beside it. A writer that is killed
    leaves the old or the new package whole, and a draft that the next writer removes.
    """
    target = Path(os.path.abspath(path))
    full = _complete_config(str(target / CONFIG_FILE), config, tensors)
    content = _check_files(str(target), files or {}, full)
    check_target(target, force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(target) as draft:
            write_tensors(draft / TENSOR_FILE, tensors)
            _write_around(draft, full, content)
            put_in_place(draft, target)
    except OSError as error:
        raise PackageError(f"{target}: must be writable, got {error.strerror}") from None
    return str(full["spiketrain"]["fingerprint"])


def publish(
    draft: Path,
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Tensors,
    files: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
    force: bool = False,
) -> str:
    """`write_package` where the directory `draft` has the files of `tensors` already."""
    target = Path(os.path.abspath(path))
    full = _complete_config(str(target / CONFIG_FILE), config, tensors)
    content = _check_files(str(target), files or {}, full)
    check_target(target, force)
    try:
        _write_around(draft, full, content)
        put_in_place(draft, target)
    except OSError as error:
        raise PackageError(f"{target}: must be writable, got {error.strerror}") from None
    return str(full["spiketrain"]["fingerprint"])


def _write_around(draft: Path, config: dict[str, Any], content: dict[str, bytes]) -> None:
    """Everything of a package but its tensors."""
    write_file(draft / CONFIG_FILE, (json.dumps(config, indent=1) + "\n").encode())
    for name, raw in content.items():
        write_file(draft / name, raw)
    find_tokenizer(draft)
    sync_directory(draft)


def compute_fingerprint(config: Mapping[str, Any], tensors: Tensors) -> str:
    """sha256 of everything that decides results: config and tensors, not the provenance."""
    plain = dict(config)
    plain["spiketrain"] = {
        key: value
        for key, value in config["spiketrain"].items()
        if key not in ("fingerprint", "provenance")
    }
    digest = hashlib.sha256()
    _absorb(digest, _canonical(plain))
    for name in sorted(tensors):
        array = tensors[name]
        _absorb(digest, _canonical([name, str(array.dtype), list(array.shape)]))
        _absorb(digest, tensor_bytes(array))
        release(array)
    return f"sha256:{digest.hexdigest()}"


def find_tokenizer(root: Path) -> Path | None:
    """The package's tokenizer file, if it has one."""
    names = [name for name in TOKENIZER_FILES if has_file(root, name)]
    if len(names) > 1:
        raise PackageError(f"{root}: must have one tokenizer, got {' and '.join(names)}")
    return root / names[0] if names else None


def _absorb(digest: Any, data: bytes | memoryview) -> None:
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _family_spec(where: str, config: Mapping[str, Any]) -> Spec:
    """The family's Spec of this config. Only names found in the families folder are imported."""
    try:
        spec = load_family(config.get("model_type")).spec.from_config(dict(config))
    except ValueError as error:
        raise PackageError(f"{where}: {error}") from None
    if "max_dial" in config["spiketrain"] and not spec.recorded:
        stated = config["spiketrain"]["max_dial"]
        rule = "must be left out where no spike counts are made"
        raise PackageError(f"{where}: spiketrain.max_dial {rule}, got {stated!r:.200}")
    return spec


def _read_tensors(root: Path) -> dict[str, NDArray[Any]]:
    """Tensors of the one file, or of the shards that the index names."""
    if not has_file(root, INDEX_FILE):
        return map_tensors(root, TENSOR_FILE)
    where = str(root / INDEX_FILE)
    if has_file(root, TENSOR_FILE):
        raise PackageError(f"{root}: must have {TENSOR_FILE} or {INDEX_FILE}, got both")
    index = read_json(root, INDEX_FILE, _INDEX_BYTES).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise PackageError(f"{where}: weight_map must be an object, got {index!r:.200}")
    shards = sorted({check_file_name(f"{where}: weight_map", name) for name in index.values()})
    if len(shards) > _MAX_SHARDS:
        raise PackageError(f"{where}: must name at most {_MAX_SHARDS} files, got {len(shards)}")
    tensors: dict[str, NDArray[Any]] = {}
    for shard in shards:
        part = map_tensors(root, shard)
        expected = {name for name, file in index.items() if file == shard}
        for name in sorted(expected ^ set(part)):
            problem = "lacks" if name in expected else "has, unlike the index,"
            raise PackageError(f"{root / shard} {problem} tensor {name!r}")
        tensors.update(part)
    return tensors


def _read_generation_config(root: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Default sampling parameters, each optional; {} when the package has none."""
    if not has_file(root, GENERATION_FILE):
        return {}
    where = str(root / GENERATION_FILE)
    values = read_json(root, GENERATION_FILE, _GENERATION_BYTES)
    check_generation_config(where, values, int(config["vocab_size"]))
    return values


def check_config(
    where: str,
    config: Mapping[str, Any],
    files: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
) -> None:
    """PackageError unless a package may have this config and these files.

    What the fingerprint is made of is yet to come.
    """
    full, _ = _prepared_config(where, config)
    _check_files(where, files or {}, full)


def _complete_config(where: str, config: Mapping[str, Any], tensors: Tensors) -> dict[str, Any]:
    """A checked copy of the config with the fingerprint of these tensors in it."""
    full, spec = _prepared_config(where, config)
    check_tensors(where, tensors, spec)
    check_values(where, tensors, spec)
    full["spiketrain"]["fingerprint"] = compute_fingerprint(full, tensors)
    return full


def _prepared_config(where: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], Spec]:
    """A checked copy of the config with a fingerprint's place in it, and the family's Spec."""
    try:
        full = parse_json(where, json.dumps(dict(config), allow_nan=False).encode())
    except TypeError as error:
        raise PackageError(f"{where}: must be JSON, got {error}") from None
    ours = full.setdefault("spiketrain", {})
    if isinstance(ours, dict):
        ours.setdefault("format_version", FORMAT_VERSION)
        ours.setdefault("provenance", {})
        ours["fingerprint"] = "sha256:" + "0" * 64
    check_format(where, full)
    return full, _family_spec(where, full)


def _check_files(
    where: str, files: Mapping[str, bytes | str | os.PathLike[str]], config: Mapping[str, Any]
) -> dict[str, bytes]:
    """Content of a package's further files: plain names, none that the format itself writes."""
    content: dict[str, bytes] = {}
    for name, source in files.items():
        check_file_name(where, name)
        if name == CONFIG_FILE or name.endswith((".safetensors", INDEX_FILE)):
            raise PackageError(f"{where}: {name} is written from config and tensors")
        content[name] = source if isinstance(source, bytes) else read_all(Path(source))
    if GENERATION_FILE in content:
        of = f"{where}: {GENERATION_FILE}"
        defaults = parse_json(of, content[GENERATION_FILE])
        check_generation_config(of, defaults, int(config["vocab_size"]))
    return content


def check_target(target: Path, force: bool) -> None:
    """PackageError unless a package may be written to `target`: nothing there, or one."""
    tidy(target)
    if not os.path.lexists(target):
        return
    if not force:
        raise PackageError(f"{target}: must not exist yet (--force replaces a package)")
    if target.is_symlink() or not has_file(target, CONFIG_FILE):
        raise PackageError(f"{target}: must be a package to be replaced, has no {CONFIG_FILE}")
    if "spiketrain" not in read_json(package_root(target), CONFIG_FILE, _CONFIG_BYTES):
        where = target / CONFIG_FILE  # a checkpoint's, say
        raise PackageError(f"{where}: must be a package's to be replaced, has no spiketrain object")
