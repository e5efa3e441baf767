"""What a SpikeGPT package holds: fields, tensors, bounds, state. Rules of fields: `checks`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.dial import NO_DIAL
from spiketrain.runtime.families.spikegpt.checks import check_fields, check_formats, from_config
from spiketrain.runtime.families.spikegpt.layout import Matrix, TensorTable
from spiketrain.runtime.state import StateArray

# A token's |counts| add up to at most inputs / threshold_scale: kept within 16 bits.
MOST_COUNTS = 32767
MOST_SCALE = float(1 << 20)
LEAST_POSITIVE = 2.0**-100
FIRST_EXPONENT = -1e38  # of the WKV state before the first token


@dataclass(frozen=True, slots=True)
class Spec:
    """The config of one SpikeGPT package, checked at birth (ValueError names field, rule, value).

    embedding, body, head: weight formats of these tensor classes. max_dial: 1 for none.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    pre_ffn: bool = False
    binary_embedding: bool = True
    rescale: int = 0
    neuron_position: str = "residual"
    lif_tau: float = 2.0
    lif_threshold: float = 1.0
    layer_norm_eps: float = 1e-5
    embedding: str = "bits"
    body: str = "float32"
    head: str = "float32"
    max_dial: float = NO_DIAL

    def __post_init__(self) -> None:
        check_fields(self)
        check_formats(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Spec:
        """The spec that config.json describes; unknown keys are errors."""
        found: Spec = from_config(cls, config)
        return found

    @property
    def halves(self) -> Iterator[tuple[str, str, int]]:
        """(name, kind, number within its block) of each half block in order."""
        for i in range(self.num_hidden_layers):
            if i == 0 and self.pre_ffn:
                yield "blocks.0.ffnPre", "channel", 1
            else:
                yield f"blocks.{i}.att", "time", 1
            yield f"blocks.{i}.ffn", "channel", 2

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Each half block, followed by its value product if it is a channel mix."""
        found = []
        for name, kind, _ in self.halves:
            found += [name] if kind == "time" else [name, f"{name}.value"]
        return tuple(found)

    @property
    def readout_names(self) -> tuple[str, ...]:
        """Names of the matrices after the last layer."""
        return ("head",)

    @property
    def event_rows(self) -> tuple[int, ...]:
        """Weight rows that events may read in a token, for each layer and readout matrix."""
        found = []
        for name, kind, _ in self.halves:
            rows = [m.inputs if m.by_rows else 0 for m in self.matrices(name, kind)]
            found += [sum(rows)] if kind == "time" else [sum(rows[:-1]), rows[-1]]
        head = self.head_matrix
        return (*found, head.inputs if head.by_rows else 0)

    @property
    def recorded(self) -> dict[str, int]:
        """Places of spike counts in the order in which a token passes them, and their units."""
        if self.neuron_position != "projections":
            return {}
        found: dict[str, int] = {}
        for name, kind, _ in self.halves:
            found |= {m.name: m.inputs for m in self.matrices(name, kind)}
        return {**found, "head": self.hidden_size}

    @property
    def num_parameters(self) -> int:
        """Numbers that the model was fitted with; a matrix counts by its shape, however stored."""
        return sum(self._table().sizes)

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name -> (dtype, shape) of every tensor in the package, weights input-major."""
        return self._table().entries

    def _table(self) -> TensorTable:
        table = TensorTable()
        width = self.hidden_size
        table.embedding(self.embedding, self.vocab_size, width)
        for name in ("blocks.0.ln0", "ln_out"):
            table.vectors(name, ("weight", "bias"), width)
        for name, kind, number in self.halves:
            block = name.rpartition(".")[0]
            table.vectors(f"{block}.ln{number}", ("weight", "bias"), width)
            if self.neuron_position == "residual":
                table.vectors(f"{block}.lif{number}", ("threshold", "scale"), width)
            table.vectors(name, self.half_vectors(kind), width)
            for matrix in self.matrices(name, kind):
                table.matrix(matrix)
        table.matrix(self.head_matrix)
        return table

    def half_vectors(self, kind: str) -> tuple[str, ...]:
        """Names of a half's vectors, the mixes last, in the order of its matrices."""
        shared = self.neuron_position == "projections"
        if kind == "channel":
            return ("time_mix",) if shared else ("time_mix_k", "time_mix_r")
        mixes = ("time_mix",) if shared else ("time_mix_r", "time_mix_k", "time_mix_v")
        return ("time_decay", "time_first", *mixes)

    def matrices(self, name: str, kind: str) -> tuple[Matrix, ...]:
        """The matrices of one half, in the order in which the network reads them."""
        width, inner = self.hidden_size, self.intermediate_size
        spiking = self.neuron_position == "projections"
        if kind == "time":
            into = {"receptance": width, "key": width, "value": width}
            last = Matrix(f"{name}.output", width, width, self.body, spiking, spiking)
        else:
            into = {"key": inner, "receptance": width}
            last = Matrix(f"{name}.value", inner, width, self.body, True, spiking)
        if spiking:
            fused = f"{name}.rkv" if kind == "time" else f"{name}.kr"
            return (Matrix(fused, width, sum(into.values()), self.body, True, True), last)
        first = [Matrix(f"{name}.{key}", width, size, self.body) for key, size in into.items()]
        return (*first, last)

    @property
    def head_matrix(self) -> Matrix:
        """The matrix from the last norm to the logits."""
        spiking = self.neuron_position == "projections"
        return Matrix("head", self.hidden_size, self.vocab_size, self.head, spiking, spiking)

    def bounds(self, name: str) -> tuple[float, float]:
        """Least and greatest value of the tensor `name`."""
        if name.endswith(".threshold_scale"):
            inputs = self.intermediate_size if ".value." in name else self.hidden_size
            return inputs / MOST_COUNTS, MOST_SCALE
        if name.endswith(".threshold"):
            return LEAST_POSITIVE, 1 / LEAST_POSITIVE
        if name.endswith(".multiplier"):
            return 1, 15
        return -math.inf, math.inf

    @property
    def state_vectors(self) -> tuple[str, ...]:
        """The vectors of one layer in a state, in order."""
        always = ("att_shift", "ffn_shift", "numerator", "denominator", "exponent")
        return (*always, "membrane1", "membrane2") if self.neuron_position == "residual" else always

    def place(self, vector: str, layer: int) -> int:
        """Where a layer's vector starts in a state, in floats."""
        return (
            layer * len(self.state_vectors) + self.state_vectors.index(vector)
        ) * self.hidden_size

    def state_arrays(self, tensors: Mapping[str, NDArray[Any]]) -> tuple[StateArray, ...]:
        """The arrays of one sequence's state, layer by layer.

        Everything is finite, a WKV denominator is not negative, and a membrane that reached its
        threshold has been reset.
        """
        most = float(np.finfo(np.float32).max)
        found = []
        for layer in range(self.num_hidden_layers):
            for vector in self.state_vectors:
                low, initial = -most, 0.0
                high: float | NDArray[Any] = most
                if vector == "denominator":
                    low = 0.0
                elif vector == "exponent":
                    initial = FIRST_EXPONENT
                elif vector.startswith("membrane"):
                    high = tensors[f"blocks.{layer}.lif{vector[-1]}.threshold"]
                    high = np.nextafter(high, np.float32(-np.inf))
                found.append(
                    StateArray(
                        f"{vector}.{layer}",
                        "float32",
                        (self.hidden_size,),
                        4 * self.place(vector, layer),
                        low,
                        high,
                        initial,
                    )
                )
        if self.dial_place is not None:
            at, most = 4 * self.dial_place, self.max_dial
            found.append(StateArray("dial", "float32", (1,), at, NO_DIAL, most, NO_DIAL))
        return tuple(found)

    @property
    def dial_place(self) -> int | None:
        """Where a state has its dial, in floats: behind its vectors; None for no dial."""
        vectors = len(self.state_vectors) * self.num_hidden_layers
        return vectors * self.hidden_size if self.max_dial > NO_DIAL else None

    @property
    def state_nbytes(self) -> int:
        """Bytes of one sequence's state: 4 * vectors * layers * hidden_size, 4 for a dial."""
        vectors = len(self.state_vectors) * self.num_hidden_layers
        return 4 * (vectors * self.hidden_size + (self.dial_place is not None))

    @property
    def state_formula(self) -> str:
        """`state_nbytes` in words, for people."""
        return (
            f"4 bytes * {len(self.state_vectors)} vectors * {self.num_hidden_layers} layers * "
            f"{self.hidden_size} channels{' + 4 for the dial' * (self.dial_place is not None)} = "
            f"{self.state_nbytes} bytes"
        )
