import numpy as np
from numpy.typing import NDArray

SEQUENCE_COUNTERS: tuple[str, ...]
COUNTERS: tuple[str, ...]
EMBEDDINGS: dict[str, int]

class Core:
    @property
    def counters(self) -> NDArray[np.int64]: ...
    def step(
        self,
        states: list[NDArray[np.uint8]],
        tokens: NDArray[np.int64],
        logits: NDArray[np.float32],
        activity: NDArray[np.int64],
    ) -> None: ...
    def record(
        self,
        state: NDArray[np.uint8],
        token: NDArray[np.int64],
        logits: NDArray[np.float32],
        activity: NDArray[np.int64],
        counts: NDArray[np.int32],
    ) -> None: ...
    def forward(
        self,
        state: NDArray[np.uint8],
        tokens: NDArray[np.int64],
        logits: NDArray[np.float32],
        activity: NDArray[np.int64],
        cancelled: NDArray[np.uint8] | None = ...,
    ) -> int: ...
