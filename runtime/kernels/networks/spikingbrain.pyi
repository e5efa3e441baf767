from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.kernels.networks.core import Core

COUNTERS: tuple[str, ...]
MAX_TOKENS: int
ENTRY_TOKENS: int
CACHES: dict[str, int]
GATES: dict[str, int]

class Network(Core):
    def __init__(
        self,
        shape: Any,
        embedding: tuple[NDArray[Any], NDArray[np.float32] | None],
        last_norm: Any,
        layers: Sequence[Any],
        head: Any,
        state_bytes: int,
        threads: int,
    ) -> None: ...
