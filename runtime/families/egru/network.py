"""EGRU as kernel calls: a package's tensors, handed to the compiled network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.compiled import CompiledModel
from spiketrain.runtime.families.egru.spec import Spec
from spiketrain.runtime.memory import Arena, matrix_bytes, zeros_on_demand

_EVENT_UNIT = 1.0 / 32767.0


class Model(CompiledModel):
    """The network of one package, ready to run; calls must not overlap."""

    def __init__(
        self, spec: Spec, tensors: Mapping[str, NDArray[Any]], threads: int, table_bytes: int
    ) -> None:
        from spiketrain.runtime.kernels.networks.egru import COUNTERS, Network

        self.counter_names = COUNTERS
        self._spec = spec
        self._tensors = tensors
        matrices = [name for name in tensors if name.endswith(".weight")]
        self._arena = Arena(sum(matrix_bytes(tensors[name]) for name in matrices))
        layers = [
            (
                self._matrix(f"layers.{layer}.input", reads_events=layer > 0),
                self._matrix(f"layers.{layer}.recurrent", reads_events=True),
                _aligned(tensors[f"layers.{layer}.threshold"]),
            )
            for layer in range(len(spec.hidden_sizes))
        ]
        projection = self._matrix("projection", reads_events=True) if spec.projection else None
        head = self._matrix("head", reads_events=not spec.projection)
        self._network = Network(
            layers,
            projection,
            head,
            self._embedding(head[0]),
            spec.zoneout,
            threads,
            self._table(table_bytes),
        )

    def activity(self) -> NDArray[np.int64]:
        """A copy of the counters of layers, projection if there is one, and head."""
        layers = len(self._spec.layer_names)
        unused = [] if self._spec.projection else [layers]
        return np.delete(self.counters, unused, axis=0)

    def _matrix(
        self, name: str, reads_events: bool
    ) -> tuple[NDArray[Any], NDArray[np.float32] | None, NDArray[np.float32]]:
        """Weight, scale and bias; what reads events has their unit in its scale."""
        scale = self._tensors.get(f"{name}.scale")
        if scale is not None:
            unit = _EVENT_UNIT if reads_events else 1.0
            scale = _aligned((scale.astype(np.float64) * unit).astype(np.float32))
        weight = self._arena.place(self._tensors[f"{name}.weight"])
        return weight, scale, _aligned(self._tensors[f"{name}.bias"])

    def _embedding(self, head: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        """Rows by token and their scales; tied: the head's columns and its unfolded scales."""
        if self._spec.tie_word_embeddings:
            scale = self._tensors.get("head.scale")
            return head.T, None if scale is None else _aligned(scale)
        scale = self._tensors.get("embedding.scale")
        rows = self._arena.place(self._tensors["embedding.weight"])
        return rows, None if scale is None else _aligned(scale)

    def _table(self, table_bytes: int) -> NDArray[np.float32] | None:
        shape = (self._spec.vocab_size, 3 * self._spec.hidden_sizes[0])
        return zeros_on_demand(shape) if 4 * shape[0] * shape[1] <= table_bytes else None


def _aligned(array: NDArray[Any]) -> NDArray[np.float32]:
    """A private float32 copy that no file backs."""
    return np.array(array, np.float32, order="C")
