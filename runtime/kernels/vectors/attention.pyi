import numpy as np
from numpy.typing import NDArray

TILE: int

def rms_norm(
    x: NDArray[np.float32], weight: NDArray[np.float32], epsilon: float, out: NDArray[np.float32]
) -> None: ...
def sincos(
    x: NDArray[np.float64], sine: NDArray[np.float32], cosine: NDArray[np.float32]
) -> None: ...
def rotate(
    cosine: NDArray[np.float32], sine: NDArray[np.float32], x: NDArray[np.float32]
) -> None: ...
def silu_product(
    gate: NDArray[np.float32], up: NDArray[np.float32], out: NDArray[np.float32]
) -> None: ...
def decay(x: NDArray[np.float32], normalizer: float, out: NDArray[np.float32]) -> None: ...
def spike_values(
    x: NDArray[np.float32], k: float, dead_zone: float, out: NDArray[np.float32]
) -> float: ...
def spike_list(
    x: NDArray[np.float32],
    k: float,
    dead_zone: float,
    most: int,
    index: NDArray[np.int32],
    value: NDArray[np.int16],
) -> tuple[int, float, int]: ...
def gla(
    decay: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    q: NDArray[np.float32],
    state: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None: ...
def window_tile(
    keys: NDArray[np.float32],
    values: NDArray[np.float32],
    q: NDArray[np.float32],
    first: int,
    last: int,
    most: NDArray[np.float32],
    total: NDArray[np.float32],
    sums: NDArray[np.float32],
) -> None: ...
def widen_bfloat16(x: NDArray[np.uint16], out: NDArray[np.float32]) -> None: ...
def widen_keys(
    codes: NDArray[np.int8], scale: NDArray[np.float32], out: NDArray[np.float32]
) -> None: ...
def widen_values(
    codes: NDArray[np.int8], scale: NDArray[np.float32], out: NDArray[np.float32]
) -> None: ...
