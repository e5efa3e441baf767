from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.kernels.products.dense import FORMATS as FORMATS
from spiketrain.runtime.kernels.products.dense import Pool

SPAN: int

class Sparse:
    def __init__(
        self,
        weights: str,
        weight: NDArray[Any],
        outputs: int,
        scale: NDArray[np.float32] | None = ...,
        multiplier: NDArray[np.uint8] | None = ...,
        group: int = ...,
        extra: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int16]] | None = ...,
        bias: NDArray[np.float32] | None = ...,
    ) -> None: ...
    def graded(self, output: NDArray[Any], y: NDArray[np.float32], pool: Pool) -> None: ...
    def squares(self, x: NDArray[np.float32], y: NDArray[np.float32], pool: Pool) -> None: ...
    def counts(
        self,
        count: NDArray[np.int16],
        unit: NDArray[np.float32],
        y: NDArray[np.float32],
        pool: Pool,
    ) -> None: ...
    def multiply(self, events: Events, y: NDArray[np.float32], pool: Pool) -> None: ...

class Events:
    def __init__(
        self,
        weights: str,
        values: NDArray[Any],
        unit: NDArray[np.float32] | None = ...,
        graded: bool = ...,
    ) -> None: ...

def check_extra(
    rows: Any, columns: Any, values: NDArray[Any], inputs: int, outputs: int
) -> None: ...
