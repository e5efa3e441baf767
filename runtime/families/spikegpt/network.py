"""SpikeGPT as kernel calls: a package's tensors, packed, handed to the compiled network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.compiled import CompiledModel
from spiketrain.runtime.families.spikegpt.spec import Spec
from spiketrain.runtime.formats import FLOATS, GROUP
from spiketrain.runtime.memory import Arena, row_bytes
from spiketrain.runtime.tensor_table import Matrix

_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sublayer:
    """One sublayer of a block, as the compiled network reads it; C channels, F inner units.

    kind: "time" or "channel". norm: (weight (C,), bias (C,)). mix: a vector (C,) for each of
    matrices (r, k, v or k, r), or one for the fused matrix. value: of a channel mix, and the output
    of a time mix before projections. shift, recurrence, membrane: offsets in a state, in floats.
    """

    kind: str
    inner: int
    norm: tuple[_Floats, _Floats]
    mix: tuple[_Floats, ...]
    shift: int
    matrices: tuple[Any, ...] = ()
    fused: Any = None
    output: Any = None
    value: Any = None
    decay: _Floats | None = None
    bonus: _Floats | None = None
    recurrence: int = 0
    threshold: _Floats | None = None
    scale: _Floats | None = None
    membrane: int = 0
    input_scale: float = 0.0
    value_scale: float = 0.0


class Model(CompiledModel):
    """The network of one package, ready to run; calls must not overlap."""

    def __init__(
        self, spec: Spec, tensors: Mapping[str, NDArray[Any]], threads: int, table_bytes: int
    ) -> None:
        """Pack the tensors; table_bytes is of no use here: no first product hangs on a token."""
        import spiketrain.runtime.kernels.networks.spikegpt as spikegpt
        import spiketrain.runtime.kernels.products as products

        self.counter_names = spikegpt.COUNTERS
        self._spec = spec
        self._tensors = tensors
        self._products = products
        self._arena = Arena(sum(self._arena_bytes()))
        spiking = spec.neuron_position == "projections"
        self._network = spikegpt.Network(
            spec.neuron_position,
            spec.lif_tau,
            spec.layer_norm_eps,
            self._embedding(),
            self._norm("blocks.0.ln0"),
            self._norm("ln_out"),
            [self._sublayer(*sublayer) for sublayer in spec.halves],
            self._matrix(spec.head_matrix),
            self._number("head.threshold_scale") if spiking else 0.0,
            spec.state_nbytes // 4,
            spec.dial_place,
            threads,
        )

    # --- vectors ----------------------------------------------------------------------------

    def _vector(self, name: str) -> _Floats:
        """A private float32 copy that no file backs."""
        return np.array(self._tensors[name], np.float32, order="C")

    def _number(self, name: str) -> float:
        return float(self._tensors[name][0])

    def _norm(self, name: str) -> tuple[_Floats, _Floats]:
        return self._vector(f"{name}.weight"), self._vector(f"{name}.bias")

    def _embedding(self) -> tuple[NDArray[Any], _Floats | None]:
        rows = self._arena.place(self._tensors["embedding.weight"])
        return rows, self._vector("embedding.scale") if self._spec.embedding == "int8" else None

    # --- sublayers -----------------------------------------------------------------------------

    def _sublayer(self, name: str, kind: str, number: int) -> Sublayer:
        spec = self._spec
        block = name.rpartition(".")[0]
        layer = int(block.rpartition(".")[2])
        fields: dict[str, Any] = {
            "kind": kind,
            "inner": spec.intermediate_size,
            "norm": self._norm(f"{block}.ln{number}"),
            "shift": spec.place("att_shift" if number == 1 else "ffn_shift", layer),
        }
        if kind == "time":
            with np.errstate(over="ignore"):  # limited next
                decay = np.exp(self._tensors[f"{name}.time_decay"].astype(np.float64))
            limit = float(np.finfo(np.float32).max)
            fields["decay"] = (-np.minimum(decay, limit)).astype(np.float32)
            fields["bonus"] = self._vector(f"{name}.time_first")
            fields["recurrence"] = spec.place("numerator", layer)
        if spec.neuron_position == "residual":
            fields["threshold"] = self._vector(f"{block}.lif{number}.threshold")
            fields["scale"] = self._vector(f"{block}.lif{number}.scale")
            fields["membrane"] = spec.place(f"membrane{number}", layer)
        mixes = [key for key in spec.half_vectors(kind) if key.startswith("time_mix")]
        fields["mix"] = tuple(self._vector(f"{name}.{key}") for key in mixes)
        return Sublayer(**fields, **self._matrices(name, kind))

    def _matrices(self, name: str, kind: str) -> dict[str, Any]:
        *into, last = self._spec.matrices(name, kind)
        if last.counts:
            (fused,) = into
            return {
                "fused": self._matrix(fused),
                "value": self._matrix(last),
                "input_scale": self._number(f"{fused.name}.threshold_scale"),
                "value_scale": self._number(f"{last.name}.threshold_scale"),
            }
        packed = tuple(self._matrix(matrix) for matrix in into)
        return {"matrices": packed, "output" if kind == "time" else "value": self._matrix(last)}

    # --- matrices ---------------------------------------------------------------------------

    def _matrix(self, matrix: Matrix) -> Any:
        """A Sparse if only rows of events are read, else a Dense."""
        weight = self._tensors[f"{matrix.name}.weight"]
        if matrix.by_rows:
            scale = None if matrix.weights in FLOATS else self._vector(f"{matrix.name}.scale")
            multiplier = self._tensors.get(f"{matrix.name}.multiplier")
            if multiplier is not None:
                multiplier = self._arena.place(multiplier)
            rows = self._arena.place(weight)
            return self._products.Sparse(matrix.weights, rows, matrix.outputs, scale, multiplier)
        group = GROUP if matrix.weights == "int4" else 0
        panels = self._arena.room(self._panels(matrix), np.uint8)
        scale = None if matrix.weights in FLOATS else self._vector(f"{matrix.name}.scale")
        self._products.pack(matrix.weights, weight, panels, scale, group)
        return self._products.Dense(
            matrix.weights, panels, matrix.inputs, matrix.outputs, scale, group
        )

    def _panels(self, matrix: Matrix) -> tuple[int, int]:
        group = GROUP if matrix.weights == "int4" else 0
        shape: tuple[int, int] = self._products.panels_shape(
            matrix.weights, matrix.inputs, matrix.outputs, group
        )
        return shape

    def _arena_bytes(self) -> Iterator[int]:
        """Bytes of the embedding and of each matrix there."""
        rows = self._tensors["embedding.weight"]
        yield rows.shape[0] * row_bytes(rows.shape[1], rows.itemsize)
        spec = self._spec
        for matrix in [
            *(m for name, kind, _ in spec.halves for m in spec.matrices(name, kind)),
            spec.head_matrix,
        ]:
            if not matrix.by_rows:
                panels, size = self._panels(matrix)
                yield panels * row_bytes(size, 1)
                continue
            for suffix in ("weight", "multiplier"):
                array = self._tensors.get(f"{matrix.name}.{suffix}")
                if array is not None:
                    yield array.shape[0] * row_bytes(array.shape[1], array.itemsize)
