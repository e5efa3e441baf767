from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_INPUTS: int
PANEL: int
GROUPS: tuple[int, ...]
FORMATS: dict[str, int]
DTYPES: dict[int, str]

def panels_shape(weights: str, inputs: int, outputs: int, group: int = ...) -> tuple[int, int]: ...
def pack(
    weights: str,
    weight: NDArray[Any],
    panels: NDArray[np.uint8],
    scale: NDArray[np.float32] | None = ...,
    group: int = ...,
) -> None: ...
def quantise_row(
    x: NDArray[np.float32], codes: NDArray[np.int8], sums: NDArray[np.int32]
) -> float: ...

class Pool:
    def __init__(self, threads: int) -> None: ...

class Dense:
    def __init__(
        self,
        weights: str,
        panels: NDArray[np.uint8],
        inputs: int,
        outputs: int,
        scale: NDArray[np.float32] | None = ...,
        group: int = ...,
    ) -> None: ...
    def multiply(self, x: NDArray[np.float32], y: NDArray[np.float32], pool: Pool) -> None: ...

def multiply_all(
    products: Sequence[tuple[Dense, NDArray[np.float32], NDArray[np.float32]]], pool: Pool
) -> None: ...
