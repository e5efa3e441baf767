"""The tensors in which a package stores weights: a matrix or an embedding in a weight format.

`runtime.formats` states their names, dtypes and shapes; `spiketrain.lm.quantize` chooses the codes.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from spiketrain.lm.quantize import (
    bits_of_bfloat16,
    quantize_int4_inputs,
    quantize_int4_outputs,
    quantize_int8,
)
from spiketrain.runtime.formats import format_named

Stored = dict[str, Tensor]  # by the last part of the name
MAX_CODE = 127 + 32767  # int8 and what is missing, in 16 bits


def _floats(weight: Tensor) -> tuple[Tensor]:
    return (weight.detach().to(torch.float32),)


def _bfloat16(weight: Tensor) -> tuple[Tensor]:
    return (bits_of_bfloat16(weight),)


def _bits(weight: Tensor) -> tuple[Tensor]:
    packed = np.packbits(weight.detach().numpy() >= 0, axis=1, bitorder="little")
    return (torch.from_numpy(packed),)


# Each gives the tensors of a format in the order in which spiketrain.runtime.formats states them.
_MATRIX: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "float32": _floats,
    "bfloat16": _bfloat16,
    "int8": quantize_int8,
    "int4-gi": quantize_int4_inputs,
    "int4-go": quantize_int4_outputs,
}
_ROWS: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "float32": _floats,
    "bfloat16": _bfloat16,
    "int8": lambda rows: quantize_int8(rows, dim=1),
    "bits": _bits,
}


def stored_matrix(weight: Tensor, form: str) -> Stored:
    """The tensors of weights (inputs, outputs); ValueError on one that is not finite."""
    names = format_named(form).matrix(*weight.shape)
    return dict(zip(names, _MATRIX[form](weight), strict=True))


def stored_rows(rows: Tensor, form: str) -> Stored:
    """The tensors of an embedding (rows, width)."""
    names = format_named(form).rows(*rows.shape)
    return dict(zip(names, _ROWS[form](rows), strict=True))


def stored_blocks(
    blocks: Iterable[tuple[int, Tensor]], shape: tuple[int, ...], form: str
) -> Stored:
    """The tensors of a matrix of `shape` (outputs, inputs), given block by block.

    blocks: (first output, weights (inputs, some outputs)). Every block but the last starts and ends
    at whole groups of outputs.
    """
    stated = format_named(form)
    per_value = {"weight": stated.per_element, "multiplier": stated.output_group}
    whole: Stored = {}
    for start, block in blocks:
        for name, part in stored_matrix(block.contiguous(), form).items():
            if name not in whole:
                _, size = stated.matrix(shape[1], shape[0])[name]
                whole[name] = torch.empty(size, dtype=part.dtype)
            first = start // per_value.get(name, 1)
            whole[name][..., first : first + part.shape[-1]] = part
    return whole


def stored_row_blocks(
    blocks: Iterable[tuple[int, Tensor]], shape: tuple[int, ...], form: str
) -> Stored:
    """The tensors of an embedding of `shape` (rows, width), given as (first row, some rows)."""
    whole: Stored = {}
    for start, block in blocks:
        for name, part in stored_rows(block, form).items():
            if name not in whole:
                whole[name] = torch.empty(shape[0], *part.shape[1:], dtype=part.dtype)
            whole[name][start : start + len(part)] = part
    return whole


def stored_int8(codes: Tensor, scale: Tensor) -> Stored:
    """The tensors of int8-gi: codes (I, O) int32 of any size, scale (I / group, O).

    What does not fit +-127 is in rows of (output, excess): extra_row (I + 1,), extra_column and
    extra (N,).  Codes are within +-MAX_CODE.
    """
    clipped = codes.clamp(-127, 127)
    excess = codes - clipped
    stored = {"weight": clipped.to(torch.int8), "scale": scale.contiguous()}
    rows, columns = excess.nonzero(as_tuple=True)
    if not len(rows):
        return stored
    values = excess[rows, columns]
    counts = torch.bincount(rows, minlength=codes.shape[0]).cumsum(0)
    return stored | {
        "extra_row": torch.cat([counts.new_zeros(1), counts]).to(torch.int32),
        "extra_column": columns.to(torch.int32),
        "extra": values.to(torch.int16),
    }
