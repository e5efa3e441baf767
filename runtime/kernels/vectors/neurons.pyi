import numpy as np
from numpy.typing import NDArray

def list_float32(
    output: NDArray[np.float32], index: NDArray[np.int32], value: NDArray[np.float32]
) -> int: ...
def list_int16(
    output: NDArray[np.int16], index: NDArray[np.int32], value: NDArray[np.int16]
) -> int: ...
def quantise(x: NDArray[np.float32], codes: NDArray[np.int16]) -> float: ...
def egru_float32(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    threshold: NDArray[np.float32],
    zoneout: float,
    cell: NDArray[np.float32],
    output: NDArray[np.float32],
) -> None: ...
def egru_int16(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    threshold: NDArray[np.float32],
    zoneout: float,
    cell: NDArray[np.float32],
    output: NDArray[np.int16],
) -> None: ...
