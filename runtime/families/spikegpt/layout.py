"""How a matrix is stored: which tensors it has for its format, and their shapes.

A matrix is read either as a whole (dense) or by the rows of its events; int4 has a layout for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

GROUP = 32  # inputs of a dense int4 matrix that share a scale
SPAN = 128  # outputs of an event-driven int4 row that share a multiplier
FLOATS = ("float32", "bfloat16")
_DTYPES = {"float32": "float32", "bfloat16": "uint16", "int8": "int8"}

_Stored = dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix: by_rows if only the rows of events are read, counts if those are spike counts."""

    name: str
    inputs: int
    outputs: int
    weights: str
    by_rows: bool = False
    counts: bool = False

    def stored(self) -> _Stored:
        """Name -> (dtype, shape) of its tensors."""
        weight, scale = f"{self.name}.weight", f"{self.name}.scale"
        found: _Stored = {}
        if self.counts:
            found[f"{self.name}.threshold_scale"] = ("float32", (1,))
        if self.weights != "int4":
            found[weight] = (_DTYPES[self.weights], (self.inputs, self.outputs))
            if self.weights == "int8":
                found[scale] = ("float32", (self.outputs,))
            return found
        found[weight] = ("uint8", (self.inputs, -(-self.outputs // 2)))
        if self.by_rows:
            spans = -(-self.outputs // SPAN)
            found[f"{self.name}.multiplier"] = ("uint8", (self.inputs, spans))
            found[scale] = ("float32", (self.outputs,))
        else:
            found[scale] = ("float32", (-(-self.inputs // GROUP), self.outputs))
        return found


@dataclass(slots=True)
class TensorTable:
    """Tensors in the order in which they are named, and how many parameters each stands for."""

    entries: _Stored = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)

    def vectors(self, prefix: str, names: Iterable[str], size: int) -> None:
        """Add float32 vectors `prefix.name`."""
        for name in names:
            self.entries[f"{prefix}.{name}"] = ("float32", (size,))
            self.sizes.append(size)

    def matrix(self, matrix: Matrix) -> None:
        """Add a matrix."""
        self.entries |= matrix.stored()
        self.sizes.append(matrix.inputs * matrix.outputs + matrix.counts)

    def embedding(self, weights: str, rows: int, width: int) -> None:
        """Add a row for each token: bits (the first in the lowest of a byte), int8 or floats."""
        if weights == "bits":
            self.entries["embedding.weight"] = ("uint8", (rows, -(-width // 8)))
        else:
            self.entries["embedding.weight"] = (_DTYPES[weights], (rows, width))
            if weights == "int8":
                self.entries["embedding.scale"] = ("float32", (rows,))
        self.sizes.append(rows * width)
