"""How a matrix is stored: which tensors it has for its format, and their shapes.

float32, bfloat16 (its bits), int8 with a scale an output, int8-gi<g> with scales that g inputs
share, int4-gi with scales that 32 inputs share, int4-go with multipliers that 128 outputs of a row
share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

GROUP = 32  # inputs that share a scale in int4-gi
SPAN = 128  # outputs of a row that share a multiplier in int4-go
FLOATS = ("float32", "bfloat16")
DTYPES = {"float32": "float32", "bfloat16": "uint16", "int8": "int8"}

Stored = dict[str, tuple[str, tuple[int, ...]]]


def group_of(weights: str) -> int:
    """Inputs that share a scale in a format int8-gi<g>; 0 for other formats."""
    found = re.fullmatch(r"int8-gi([1-9][0-9]{0,5})", weights)
    return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix: its format, whether it reads spikes, how many codes lie outside int8."""

    name: str
    inputs: int
    outputs: int
    weights: str
    spikes: bool = False
    corrections: int = 0
    bias: bool = False

    @property
    def by_rows(self) -> bool:
        """Whether only the rows of spikes are read."""
        return self.spikes and self.weights not in FLOATS

    @property
    def group(self) -> int:
        """Inputs that share a row of scales where spikes are counted in groups, else 0.

        With corrections, int8 is one group.
        """
        return group_of(self.weights) or (self.inputs if self.corrections else 0)

    def stored(self) -> Stored:
        """Name -> (dtype, shape) of its tensors, without the bias."""
        weight, scale = f"{self.name}.weight", f"{self.name}.scale"
        shape = (self.inputs, self.outputs)
        if self.weights in FLOATS:
            return {weight: (DTYPES[self.weights], shape)}
        if self.weights == "int4-go":
            return {
                weight: ("uint8", (self.inputs, -(-self.outputs // 2))),
                f"{self.name}.multiplier": ("uint8", (self.inputs, -(-self.outputs // SPAN))),
                scale: ("float32", (self.outputs,)),
            }
        if self.weights == "int4-gi":
            return {
                weight: ("uint8", (self.inputs, -(-self.outputs // 2))),
                scale: ("float32", (-(-self.inputs // GROUP), self.outputs)),
            }
        scales: tuple[int, ...] = (self.outputs,)
        if self.weights != "int8":
            scales = (-(-self.inputs // group_of(self.weights)), self.outputs)
        found: Stored = {weight: ("int8", shape), scale: ("float32", scales)}
        if self.corrections:
            found[f"{self.name}.extra_row"] = ("int32", (self.inputs + 1,))
            found[f"{self.name}.extra_column"] = ("int32", (self.corrections,))
            found[f"{self.name}.extra"] = ("int16", (self.corrections,))
        return found


@dataclass(slots=True)
class TensorTable:
    """Tensors in the order in which they are named, and how many parameters they stand for."""

    entries: Stored = field(default_factory=dict)
    parameters: int = 0

    def array(self, name: str, *shape: int, fitted: bool = True) -> None:
        """Add a float32 array."""
        self.entries[name] = ("float32", shape)
        size = 1
        for axis in shape:
            size *= axis
        self.parameters += size if fitted else 0

    def matrix(self, matrix: Matrix) -> None:
        """Add a matrix, and its bias if it has one."""
        self.entries |= matrix.stored()
        self.parameters += matrix.inputs * matrix.outputs
        if matrix.bias:
            self.array(f"{matrix.name}.bias", matrix.outputs)

    def embedding(self, weights: str, rows: int, width: int) -> None:
        """Add a row for each token."""
        self.entries["embeddings.weight"] = (DTYPES[weights], (rows, width))
        if weights == "int8":
            self.entries["embeddings.scale"] = ("float32", (rows,))
        self.parameters += rows * width
