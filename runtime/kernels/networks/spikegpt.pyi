from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.kernels.networks.core import Core

COUNTERS: tuple[str, ...]
MAX_TOKENS: int
POSITIONS: dict[str, int]

class Network(Core):
    def __init__(
        self,
        position: str,
        tau: float,
        epsilon: float,
        embedding: tuple[NDArray[Any], NDArray[np.float32] | None],
        first_norm: Any,
        last_norm: Any,
        sublayers: Sequence[Any],
        head: Any,
        head_scale: float,
        state_size: int,
        dial: int | None,
        threads: int,
    ) -> None: ...
