"""What an EGRU package holds: fields, tensors, bounds, state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime import fields
from spiketrain.runtime.dial import NO_DIAL
from spiketrain.runtime.fields import Whole, choice, flag, number, sequence, whole
from spiketrain.runtime.formats import FLOATS
from spiketrain.runtime.operation import EVENT_STEPS, EventProduct, Operation, matrix_operation
from spiketrain.runtime.package_spec import PackageSpec, Tensors
from spiketrain.runtime.state import StateArray
from spiketrain.runtime.tensor_table import Array, Embedding, Entry, Matrix

MAX_VOCAB_SIZE = 1 << 24
MAX_LAYERS = 64
# Sums of int8 * int8 over this many inputs stay below 2**31: 131072 * 127 * 127 < 2**31.
MAX_WIDTH = 1 << 17

_CLASSES = ("recurrent", "input", "head", "embedding")
FORMATS = (*FLOATS, "int8")
_SIZE = Whole(1, MAX_WIDTH)


def check_relations(config: Any) -> None:
    """ValueError unless the fields, each good by itself, go together."""
    sizes = config.hidden_sizes
    if not 1 <= len(sizes) <= MAX_LAYERS:
        raise ValueError(f"hidden_sizes must have 1 to {MAX_LAYERS} layers, got {len(sizes)}")
    for layer, size in enumerate(sizes):
        _SIZE(f"hidden_sizes[{layer}]", size)
    tied = config.tie_word_embeddings and not config.projection
    if tied and sizes[-1] != config.embedding_size:
        raise ValueError(
            f"hidden_sizes must end with embedding_size {config.embedding_size} in a tied model "
            f"without projection, got {sizes[-1]}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec(PackageSpec):
    """The config of one EGRU package, checked at birth (ValueError names field, rule, value).

    weights: the format of all tensor classes.
    """

    model_type: ClassVar[str] = "egru"
    architecture: ClassVar[str] = "EGRUForCausalLM"

    vocab_size: int = whole(1, MAX_VOCAB_SIZE)
    embedding_size: int = whole(1, MAX_WIDTH)
    hidden_sizes: tuple[int, ...] = sequence("sizes")
    projection: bool = flag(False)
    tie_word_embeddings: bool = flag(True)
    zoneout: float = number(0.0, 1.0, without_high=True, default=0.0)
    carry: str = choice("state", "output", default="state")
    weights: str = "float32"
    max_dial: float = NO_DIAL

    def __post_init__(self) -> None:
        fields.check_rules(fields.rules(Spec), self)
        check_relations(self)
        if self.weights not in FORMATS:
            raise ValueError(f"weights must be one of {FORMATS}, got {self.weights!r:.200}")

    # --- formats ----------------------------------------------------------------------------

    @classmethod
    def read_formats(cls, weights: Mapping[str, str]) -> dict[str, str]:
        """The one weight format of all tensor classes; ValueError for several."""
        chosen = set(weights.values())
        if len(chosen) != 1 or not chosen <= set(FORMATS):
            raise ValueError(
                f"spiketrain.weights must give every tensor class the same format, one of "
                f"{FORMATS}, got {weights!r:.200}"
            )
        return {"weights": chosen.pop()}

    @property
    def formats(self) -> dict[str, str]:
        """The same weight format for every tensor class."""
        return dict.fromkeys(_CLASSES, self.weights)

    @property
    def body_format(self) -> str:
        """The weight format of the layers' matrices."""
        return self.weights

    @property
    def events(self) -> str:
        """Form of units' outputs: float32, or int16 in steps of 1/32767."""
        return "float32" if self.weights in FLOATS else "fixed16"

    # --- layers -----------------------------------------------------------------------------

    @property
    def feature_size(self) -> int:
        """Inputs of the head."""
        return self.embedding_size if self.projection else self.hidden_sizes[-1]

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """Inputs of each layer."""
        return (self.embedding_size, *self.hidden_sizes[:-1])

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers that have units."""
        return tuple(f"layers.{layer}" for layer in range(len(self.hidden_sizes)))

    @property
    def readout_names(self) -> tuple[str, ...]:
        """Names of the matrices after the last layer."""
        return ("projection", "head") if self.projection else ("head",)

    @property
    def event_rows(self) -> tuple[int, ...]:
        """Weight rows that events may read in a token, for each layer and readout matrix."""
        layers = [
            size + (inputs if layer else 0)
            for layer, (inputs, size) in enumerate(
                zip(self.input_sizes, self.hidden_sizes, strict=True)
            )
        ]
        last = self.hidden_sizes[-1]
        return (*layers, last, 0) if self.projection else (*layers, last)

    # --- events -----------------------------------------------------------------------------

    def spikes_in_state(self, arrays: Tensors) -> dict[str, NDArray[np.int32]]:
        """Outputs of each layer in steps of 1/32767; a smaller event counts as one step."""
        outputs = {name: arrays[f"output.{i}"] for i, name in enumerate(self.layer_names)}
        return {name: _steps(output) for name, output in outputs.items()}

    @property
    def event_products(self) -> tuple[EventProduct, ...]:
        """Each layer's recurrent product, input products but the first, and the readout's first."""
        products = []
        for layer, name in enumerate(self.layer_names):
            if layer:
                products.append(EventProduct(f"{name}.input", self.layer_names[layer - 1]))
            products.append(EventProduct(f"{name}.recurrent", name, delay=1))
        return (*products, EventProduct(self.readout_names[0], self.layer_names[-1]))

    def operations(self) -> Iterator[Operation]:
        """What the network computes for a token."""
        for name in self.layer_names:
            yield matrix_operation(f"{name}.input", self.weights, "Affine")
            yield Operation(name, "gates: products of sigmoid, tanh and cell, events with values")
        for name in self.readout_names:
            yield matrix_operation(name, self.weights, "Affine")

    # --- tensors ----------------------------------------------------------------------------

    @property
    def parts(self) -> dict[str, tuple[Entry, ...]]:
        """All tensors, in one part."""
        return {"model": tuple(self._entries())}

    def _entries(self) -> Iterator[Entry]:
        for name, inputs, size in zip(
            self.layer_names, self.input_sizes, self.hidden_sizes, strict=True
        ):
            yield self._matrix(f"{name}.input", inputs, 3 * size)
            yield self._matrix(f"{name}.recurrent", size, 3 * size)
            yield Array(f"{name}.threshold", (size,))
        if self.projection:
            yield self._matrix("projection", self.hidden_sizes[-1], self.embedding_size)
        yield self._matrix("head", self.feature_size, self.vocab_size)
        if not self.tie_word_embeddings:
            yield Embedding("embedding", self.vocab_size, self.embedding_size, self.weights)

    def _matrix(self, name: str, inputs: int, outputs: int) -> Matrix:
        return Matrix(name, inputs, outputs, self.weights, bias=True)

    def bounds(self, name: str) -> tuple[float, float]:
        """Least and greatest value of the tensor `name` of floats; a scale is above 0 anyway."""
        return (0.0, 1.0) if name.endswith(".threshold") else (-math.inf, math.inf)

    # --- state ------------------------------------------------------------------------------

    @property
    def output_dtype(self) -> str:
        """How units' outputs are held: float32, or int16 in steps of 1/32767."""
        return "float32" if self.weights in FLOATS else "int16"

    def state_arrays(self, tensors: Tensors) -> tuple[StateArray, ...]:
        """The arrays of one sequence's state: all cells, then all outputs.

        From a zero state |c| <= 1 holds exactly, also in float32: z*c + (1-z)*g exceeds 1 by at
        most three roundings of 2**-25 before the last one, which rounds that back to 1. An output
        is 0 or a cell above its threshold, hence in [0, 1].
        """
        arrays = []
        offset = 0
        for layer, size in enumerate(self.hidden_sizes):
            arrays.append(StateArray(f"cell.{layer}", "float32", (size,), offset, -1.0, 1.0))
            offset += 4 * size
        high = 1.0 if self.output_dtype == "float32" else float(EVENT_STEPS)
        for layer, size in enumerate(self.hidden_sizes):
            arrays.append(
                StateArray(f"output.{layer}", self.output_dtype, (size,), offset, 0.0, high)
            )
            offset += self._output_bytes * size
        return tuple(arrays)

    @property
    def _output_bytes(self) -> int:
        return np.dtype(self.output_dtype).itemsize

    @property
    def state_nbytes(self) -> int:
        """Bytes of one sequence's state: sum of H * 8 (float32 outputs) or H * 6 (fixed16)."""
        return sum(self.hidden_sizes) * (4 + self._output_bytes)

    @property
    def state_formula(self) -> str:
        """`state_nbytes` in words, for people."""
        units = sum(self.hidden_sizes)
        return f"(4 + {self._output_bytes}) bytes * {units} units = {self.state_nbytes} bytes"


def _steps(output: NDArray[Any]) -> NDArray[np.int32]:
    """Outputs as counts of steps."""
    if output.dtype.kind == "f":
        small = (output > 0) & (output < 1e-5)
        return np.rint(output * EVENT_STEPS).astype(np.int32) + small
    return output.astype(np.int32)
