"""Weight formats: which tensors store a matrix or an embedding, with their dtypes and shapes.

Each format is one row of FORMATS. Families say which formats they allow, `lm.quantize` rounds
weights to them, and the kernels read them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOATS = ("float32", "bfloat16")
GROUP = 32  # inputs that share a scale in int4-gi
SPAN = 128  # outputs of a row that share a multiplier in int4-go
MAX_MULTIPLIER = 15
EVENT_BITS = {"float32": 32, "fixed16": 16, "fixed12": 12, "counts": 8, "int8": 8}  # by form

Stored = dict[str, tuple[str, tuple[int, ...]]]  # name -> (dtype, shape)

_CORRECTED = {"extra_row": "int32", "extra_column": "int32", "extra": "int16"}
_INT8_GROUPS = re.compile(r"int8-gi([1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True)
class Format:
    """How values are stored: the dtype of `weight`, values in each of its elements, and scales.

    scaled: a float32 scale for each output. input_group: inputs that share a row of scales, 0 for
    all. output_group: outputs of a row that share a multiplier, 0 without multipliers.
    """

    name: str
    dtype: str
    per_element: int = 1
    scaled: bool = False
    input_group: int = 0
    output_group: int = 0

    def matrix(self, inputs: int, outputs: int) -> Stored:
        """The tensors of a matrix, input-major, by the last part of their names."""
        tensors: Stored = {"weight": (self.dtype, (inputs, -(-outputs // self.per_element)))}
        if self.output_group:
            tensors["multiplier"] = ("uint8", (inputs, -(-outputs // self.output_group)))
        if self.input_group:
            tensors["scale"] = ("float32", (-(-inputs // self.input_group), outputs))
        elif self.scaled:
            tensors["scale"] = ("float32", (outputs,))
        return tensors

    def rows(self, count: int, width: int) -> Stored:
        """The tensors of an embedding of `count` rows, with a scale for each row if scaled."""
        tensors: Stored = {"weight": (self.dtype, (count, -(-width // self.per_element)))}
        if self.scaled:
            tensors["scale"] = ("float32", (count,))
        return tensors


FORMATS = {
    form.name: form
    for form in (
        Format("float32", "float32"),
        Format("bfloat16", "uint16"),  # its bits
        Format("int8", "int8", scaled=True),
        Format("int4-gi", "uint8", per_element=2, scaled=True, input_group=GROUP),
        Format("int4-go", "uint8", per_element=2, scaled=True, output_group=SPAN),
        Format("bits", "uint8", per_element=8),  # the first value in the lowest bit
    )
}


def format_named(name: str) -> Format:
    """The format of that name, int8-gi<g> with any group g included; ValueError for no format."""
    if group := group_of(name):
        return replace(FORMATS["int8"], name=name, input_group=group)
    if name not in FORMATS:
        known = (*FORMATS, "int8-gi<group>")
        raise ValueError(f"weight format must be one of {known}, got {name!r:.200}")
    return FORMATS[name]


def group_of(name: str) -> int:
    """Inputs that share a scale in a format int8-gi<g>; 0 for other formats."""
    match = _INT8_GROUPS.fullmatch(name)
    return int(match[1]) if match else 0


def is_int8(name: str) -> bool:
    """Whether this is int8 or an int8-gi<g>, whose codes may have corrections."""
    return name == "int8" or group_of(name) > 0


def stored_format(name: str, by_rows: bool) -> str:
    """The format of a matrix: int4 stands for int4-go if rows of events are read, else int4-gi."""
    if name != "int4":
        return name
    return "int4-go" if by_rows else "int4-gi"


def corrected(inputs: int, count: int) -> Stored:
    """The tensors that hold `count` codes outside int8 of a matrix, by the last part of names."""
    sizes = {"extra_row": inputs + 1, "extra_column": count, "extra": count}
    return {name: (dtype, (sizes[name],)) for name, dtype in _CORRECTED.items()}


def code_bounds(name: str) -> tuple[float, float]:
    """Least and greatest value of a tensor of a stored matrix, by its full name."""
    return (1, MAX_MULTIPLIER) if name.endswith(".multiplier") else (-math.inf, math.inf)


def widened(array: NDArray[Any]) -> NDArray[Any]:
    """float32 values of an array of bfloat16 bits (uint16); others as they are."""
    if array.dtype != np.uint16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)
