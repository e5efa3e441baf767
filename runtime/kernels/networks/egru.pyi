from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.kernels.networks.core import Core

COUNTERS: tuple[str, ...]
MAX_TOKENS: int
WEIGHTS: dict[str, str]

class Network(Core):
    def __init__(
        self,
        layers: Sequence[Any],
        projection: Any,
        head: Any,
        embedding: tuple[NDArray[Any], NDArray[np.float32] | None],
        zoneout: float,
        threads: int,
        table: NDArray[np.float32] | None = ...,
    ) -> None: ...
