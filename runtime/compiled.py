"""The common part of the models of all families: their compiled network and its counters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class CompiledModel:
    """The network of one package, ready to run; calls must not overlap.

    A family's model sets `_network`, a kernels.networks.core.Core with counters, and
    counter_names, the fields of LayerActivity that its columns fill.
    """

    _network: Any
    counter_names: Sequence[str]

    @property
    def counters(self) -> NDArray[np.int64]:
        """The compiled network's own counters; reset by setting to 0."""
        counters: NDArray[np.int64] = self._network.counters
        return counters

    def activity(self) -> NDArray[np.int64]:
        """A copy of the counters, a row for each name of the spec's layers and readout."""
        return self.counters.copy()

    def step(
        self,
        states: Sequence[NDArray[np.uint8]],
        tokens: NDArray[np.int64],
        logits: NDArray[np.float32],
        activity: NDArray[np.int64],
    ) -> None:
        """One token for each of B states; see spiketrain.runtime.kernels.networks.core."""
        self._network.step(list(states), tokens, logits, activity)

    def record(
        self,
        state: NDArray[np.uint8],
        tokens: NDArray[np.int64],
        logits: NDArray[np.float32],
        activity: NDArray[np.int64],
        counts: NDArray[np.int32],
    ) -> None:
        """One token of one state, and its spike counts; see runtime.kernels.networks.core."""
        self._network.record(state, tokens, logits, activity, counts)

    def forward(
        self,
        state: NDArray[np.uint8],
        tokens: NDArray[np.int64],
        logits: NDArray[np.float32],
        activity: NDArray[np.int64],
        cancelled: NDArray[np.uint8] | None = None,
    ) -> int:
        """T tokens of one state, how many were read; see runtime.kernels.networks.core."""
        read: int = self._network.forward(state, tokens, logits, activity, cancelled)
        return read
