import numpy as np
from numpy.typing import NDArray

def layer_norm(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    epsilon: float,
    out: NDArray[np.float32],
) -> None: ...
def token_shift(
    now: NDArray[np.float32],
    before: NDArray[np.float32],
    mix: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None: ...
def wkv(
    r: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    decay: NDArray[np.float32],
    bonus: NDArray[np.float32],
    p: NDArray[np.float32],
    q: NDArray[np.float32],
    o: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None: ...
def lif(
    x: NDArray[np.float32],
    scale: NDArray[np.float32],
    threshold: NDArray[np.float32],
    tau: float,
    membrane: NDArray[np.float32],
    count: NDArray[np.int32],
) -> int: ...
def gate(r: NDArray[np.float32], x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...
def square_relu(x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...
def add_counts(
    x: NDArray[np.float32], count: NDArray[np.int32], out: NDArray[np.float32]
) -> None: ...
def add_vector(x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...
def count_spikes(
    x: NDArray[np.float32], scale: float, dial: float, counts: NDArray[np.int16]
) -> float: ...
