"""Weights in NumPy -> the tensors of a weight format, with the bits of `lm.stored`."""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from spiketrain.runtime.formats import format_named

Array = npt.NDArray[np.generic]
Float32 = npt.NDArray[np.float32]
Stored = dict[str, Array]  # by the last part of the name
Blocks = Iterable[tuple[int, Float32]]


def bfloat16_bits(values: Float32) -> npt.NDArray[np.uint16]:
    """The bits of float32 values rounded to bfloat16, half to even."""
    bits = values.view(np.uint32)
    half = np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return ((bits + half) >> np.uint32(16)).astype(np.uint16)


def int8_rows(rows: Float32) -> tuple[npt.NDArray[np.int8], Float32]:
    """Codes in [-127, 127] (R, I) and scales (R,) of finite rows (R, I).

    The scale of a row is max|w| / 127, or 1 where the row is 0; rounding is half to even.
    """
    scale = np.abs(rows).max(1) / np.float32(127)
    scale[scale == 0] = 1
    codes = np.rint(rows / scale[:, None]).clip(-127, 127).astype(np.int8)
    return codes, scale


_ROUNDED: dict[str, Callable[[Float32], tuple[Array, ...]]] = {
    "float32": lambda rows: (rows,),
    "bfloat16": lambda rows: (bfloat16_bits(rows),),
    "int8": int8_rows,
}


def stored_matrix(blocks: Blocks, shape: tuple[int, int], form: str) -> Stored:
    """The tensors of a matrix, input-major.

    blocks: (first output, weights (some outputs, inputs)) in order.  shape: (outputs, inputs).
    """
    outputs, inputs = shape
    stated = format_named(form).matrix(inputs, outputs)
    whole: Stored = {name: np.empty(size, dtype) for name, (dtype, size) in stated.items()}
    for start, block in blocks:
        parts = zip(whole.values(), _ROUNDED[form](block), strict=True)
        for tensor, part in parts:
            tensor[..., start : start + len(block)] = part.T
    return whole


def stored_rows(blocks: Blocks, shape: tuple[int, int], form: str) -> Stored:
    """The tensors of an embedding of `shape` (rows, width), given as (first row, some rows)."""
    whole: Stored = {
        name: np.empty(size, dtype)
        for name, (dtype, size) in format_named(form).rows(*shape).items()
    }
    for start, block in blocks:
        parts = zip(whole.values(), _ROUNDED[form](block), strict=True)
        for tensor, part in parts:
            tensor[start : start + len(block)] = part
    return whole
