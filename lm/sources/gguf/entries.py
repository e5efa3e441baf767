"""The table of tensors in a GGUF file: what each tensor is, and where its bytes are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from spiketrain.lm.sources.gguf.blocks import FORMATS, Format, type_name
from spiketrain.lm.sources.gguf.cursor import Cursor
from spiketrain.lm.sources.gguf.error import Unquoted

_MAX_DIMENSIONS = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its shape slowest axis first, as in torch, and its bytes, from `start`."""

    name: str
    format: Format
    shape: tuple[int, ...]
    start: int
    num_bytes: int

    @property
    def rows(self) -> int:
        """The size of the slowest axis."""
        return self.shape[0]


def read_entries(cursor: Cursor, count: int) -> dict[str, Entry]:
    """Name -> tensor, with `start` counted from the beginning of the data.

    Raises GgufError naming a tensor that is there twice, or whose type or shape cannot be.
    """
    entries: dict[str, Entry] = {}
    for i in range(count):
        name = cursor.name(f"the name of tensor {i}")
        if name in entries:
            raise cursor.error(name, "be there once", Unquoted("the tensor twice"))
        sizes = _sizes(cursor, name)
        kind = cursor.u32(f"the type of {name}")
        if kind not in FORMATS:
            known = ", ".join(known.name for known in FORMATS.values())
            raise cursor.error(
                f"the type of {name}", f"be one of {known}", Unquoted(type_name(kind))
            )
        offset = cursor.u64(f"the offset of {name}")
        num_bytes = _num_bytes(cursor, name, sizes, FORMATS[kind])
        entries[name] = Entry(name, FORMATS[kind], sizes[::-1], offset, num_bytes)
    return entries


def placed_entries(
    cursor: Cursor, entries: Mapping[str, Entry], start: int, alignment: int
) -> dict[str, Entry]:
    """The tensors with `start` counted from the beginning of the file, where the data has `start`.

    Raises GgufError naming a tensor that is not aligned, ends outside, or overlaps another.
    """
    placed = {name: _placed(cursor, entry, start, alignment) for name, entry in entries.items()}
    _check_overlaps(cursor, placed)
    return placed


def _sizes(cursor: Cursor, name: str) -> tuple[int, ...]:
    """Sizes of a tensor's axes, fastest first."""
    dimensions = cursor.u32(f"the dimensions of {name}")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise cursor.error(f"the dimensions of {name}", f"be 1 to {_MAX_DIMENSIONS}", dimensions)
    sizes = tuple(cursor.u64(f"the shape of {name}") for _ in range(dimensions))
    if 0 in sizes:
        raise cursor.error(f"the shape of {name}", "have sizes of at least 1", sizes[::-1])
    return sizes


def _num_bytes(cursor: Cursor, name: str, sizes: tuple[int, ...], kind: Format) -> int:
    if sizes[0] % kind.width:
        rule = f"have rows of whole blocks of {kind.width}, as {kind.name} has"
        raise cursor.error(f"the shape of {name}", rule, sizes[::-1])
    num_bytes = sizes[0] // kind.width * kind.num_bytes
    for size in sizes[1:]:
        num_bytes *= size
    return num_bytes


def _placed(cursor: Cursor, entry: Entry, start: int, alignment: int) -> Entry:
    if entry.start % alignment:
        rule = f"be a multiple of the alignment {alignment}"
        raise cursor.error(f"the offset of {entry.name}", rule, entry.start)
    end = start + entry.start + entry.num_bytes
    size = cursor.position + cursor.left
    if end > size:
        raise cursor.error(entry.name, f"end within the file's {size} bytes", end)
    return replace(entry, start=start + entry.start)


def _check_overlaps(cursor: Cursor, entries: Mapping[str, Entry]) -> None:
    last: Entry | None = None
    for entry in sorted(entries.values(), key=lambda entry: entry.start):
        if last is not None and entry.start < last.start + last.num_bytes:
            raise cursor.error(entry.name, f"begin after the end of {last.name}", entry.start)
        last = entry
