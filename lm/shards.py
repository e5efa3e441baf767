"""Tensors of a directory of safetensors files, read one at a time: a model need not fit memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spiketrain.runtime.json_file import read_json_file

INDEX = "model.safetensors.index.json"
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor is, and what a header says of it; width: bytes of an element."""

    file: Path
    shape: tuple[int, ...]
    width: int


class Shards(Mapping[str, Entry]):
    """Name -> Entry of every tensor under `folder`; only headers are read before `read` is called.

    With an index, the files that it names are read; what is in them is what their headers say.
    Raises ValueError naming file, rule and value.
    """

    def __init__(self, folder: Path) -> None:
        self._entries: dict[str, Entry] = {}
        for file in _files(folder):
            entries = _header(file)
            for name in entries.keys() & self._entries.keys():
                raise ValueError(f"{file}: {name} is in {self._entries[name].file} too")
            self._entries |= entries

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold a tensor, sorted."""
        return tuple(sorted({entry.file for entry in self.values()}))

    @property
    def half_precision(self) -> bool:
        """Whether every tensor is stored in 16 bits."""
        return all(entry.width == 2 for entry in self.values())

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows start to stop of the tensor `name`, in float32."""
        with safe_open(self._entries[name].file, "pt") as content:
            rows: Tensor = content.get_slice(name)[start:stop]
        return rows.to(torch.float32)


def _header(file: Path) -> dict[str, Entry]:
    """What the file says it holds."""
    try:
        with safe_open(file, "pt") as content:
            parts = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118
            shapes = {
                name: (tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()
            }
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file}: not a readable safetensors file: {error}") from error
    for name, (_, dtype) in shapes.items():
        if dtype not in _WIDTHS:
            raise ValueError(f"{file}: {name} must be one of {tuple(_WIDTHS)}, got {dtype}")
    return {name: Entry(file, shape, _WIDTHS[dtype]) for name, (shape, dtype) in shapes.items()}


def _files(folder: Path) -> list[Path]:
    """The files that the index names, checked against it, or all there are."""
    index = folder / INDEX
    if not index.is_file():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise ValueError(f"{folder} has no *.safetensors")
        return files
    try:
        places: Any = read_json_file(index)["weight_map"]
        names = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index}: must hold an object weight_map, got {error!r}") from error
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ValueError(f"{index}: weight_map must name files beside it, got {names!r:.200}")
    lacking = [name for name in names if not (folder / name).is_file()]
    if lacking:
        raise ValueError(f"{folder} lacks {', '.join(lacking)}, named in {INDEX}")
    return [folder / name for name in names]


class Held(dict[str, Tensor]):
    """Tensors in memory, read like Shards."""

    half_precision = False

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows start to stop of the tensor `name`, in float32."""
        return self[name][start:stop].detach().to(torch.float32)
