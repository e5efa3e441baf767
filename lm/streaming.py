"""Directory of shards, or GGUF file -> runtime package, part by part: neither has to fit memory.

A conversion that was cut off goes on with the parts that are whole.
"""

import math
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.package import check_config
from spiketrain.runtime.package_draft import PackageDraft

if TYPE_CHECKING:  # shards are tensors of torch; a GGUF file is converted without
    from spiketrain.lm.shards import Shards

MIN_BLOCK = 8 << 20
_LOADING = 8  # bytes an element: read in float32, and the model's own
COPIES = 8  # of a block in float32 that are alive while it is quantised


@dataclass(frozen=True, slots=True)
class Work:
    """How a conversion is done: memory in bytes or None; resume, force: see PackageDraft."""

    max_memory: int | None = None
    resume: bool = False
    force: bool = False


class Source(Protocol):
    """What is converted; files: all that its tensors are read from, in a fixed order."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths that exist."""
        ...


def plan(exporter: Any, max_memory: int | None) -> dict[str, int]:
    """Part -> bytes that it is stored in; sets the exporter's block size.

    Raises SpiketrainError if a part and what it takes to make it do not fit `max_memory`.
    """
    sizes = {part: exporter.part_bytes(part) for part in exporter.parts}
    if max_memory is None:
        return sizes
    needed = {part: size + exporter.working_bytes(part) for part, size in sizes.items()}
    largest = max(needed, key=lambda part: needed[part])
    least = peak_memory() + needed[largest] + COPIES * MIN_BLOCK
    room = max_memory - peak_memory() - needed[largest]
    if room < COPIES * MIN_BLOCK:
        raise SpiketrainError(
            f"--max-memory must be at least {-(-least >> 20)}M for {largest} and a block of it, "
            f"got {max_memory / (1 << 20):.6g}M"
        )
    exporter.block_bytes = min(exporter.block_bytes, room // COPIES)
    return sizes


def check_in_memory(source: "Shards", max_memory: int | None) -> None:
    """SpiketrainError unless the whole model fits `max_memory`, where a text is read with it."""
    elements = sum(math.prod(entry.shape) for entry in source.values())
    least = peak_memory() + _LOADING * elements
    if max_memory is not None and max_memory < least:
        raise SpiketrainError(
            f"--max-memory must be at least {-(-least >> 20)}M to read --calib with the model, "
            f"got {max_memory / (1 << 20):.6g}M"
        )


def convert_in_parts(
    exporter: Any,
    source: Source,
    target: Path,
    options: Mapping[str, Any],
    work: Work,
    files: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> str:
    """Write the package of `exporter` to `target` and return its fingerprint.

    options: everything beside the source that the tensors depend on.  tell: gets a line for each
    part.  Raises SpiketrainError, PackageError.
    """
    check_config(str(target), exporter.package_config(), files)  # before the work, not after it
    identity = {"source": _identity(source)} | dict(options)
    with PackageDraft(target, identity, work.resume, work.force) as draft:
        names = _write_parts(draft, exporter, plan(exporter, work.max_memory), tell)
        config = exporter.package_config()
        config["spiketrain"]["provenance"] = dict(provenance or {})
        return draft.finish(config, names, files)


def _write_parts(
    draft: PackageDraft, exporter: Any, sizes: Mapping[str, int], tell: Callable[[str], None]
) -> list[str]:
    """Write what the draft lacks; the names of all its files."""
    total = len(exporter.parts)
    names = [f"model-{i + 1:05}-of-{total:05}.safetensors" for i in range(total)]
    for name, part in zip(names, exporter.parts, strict=True):
        if draft.has(name):
            exporter.remember(draft.read(name))
            tell(f"{part}: there already")
            continue
        draft.write(name, exporter.tensors(part))
        tell(f"{part}: {sizes[part] / 1e6:.1f} MB, peak memory {peak_memory() / 1e9:.2f} GB")
    return names


def peak_memory() -> int:
    """The most bytes that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _identity(source: Source) -> list[list[Any]]:
    """Name, size and time of change of the source's files."""
    stats = ((file, file.stat()) for file in source.files)
    return [[file.name, stat.st_size, stat.st_mtime_ns] for file, stat in stats]
