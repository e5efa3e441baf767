"""EGRU: what its packages hold, and the family as kernel calls.

The Spec says which tensors and which state a config stands for; the Model hands the tensors to the
compiled network. Neither opens a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.compiled import CompiledModel
from spiketrain.runtime.memory import Arena, matrix_bytes, zeros_on_demand
from spiketrain.runtime.state import StateArray

MODEL_TYPE = "egru"
MAX_VOCAB_SIZE = 1 << 24
MAX_LAYERS = 64
# Sums of int8 * int8 over this many inputs stay below 2**31: 131072 * 127 * 127 < 2**31.
MAX_WIDTH = 1 << 17

_FIELDS = (
    "vocab_size",
    "embedding_size",
    "hidden_sizes",
    "projection",
    "tie_word_embeddings",
    "zoneout",
    "carry",
)
_DEFAULTS = {"projection": False, "tie_word_embeddings": True, "zoneout": 0.0, "carry": "state"}
_OTHER_KEYS = ("model_type", "architectures", "spiketrain")
_CARRY = ("state", "output")
_DTYPES = {"float32": "float32", "bfloat16": "uint16", "int8": "int8"}
_FORMATS = tuple(_DTYPES)
_EVENTS = {"float32": "float32", "bfloat16": "float32", "int8": "fixed16"}
_EVENT_UNIT = 1.0 / 32767.0


@dataclass(frozen=True, slots=True)
class Spec:
    """The config of one EGRU package, checked at birth (ValueError names field, rule, value)."""

    vocab_size: int
    embedding_size: int
    hidden_sizes: tuple[int, ...]
    projection: bool = False
    tie_word_embeddings: bool = True
    zoneout: float = 0.0
    carry: str = "state"
    weights: str = "float32"

    def __post_init__(self) -> None:
        _check_size("vocab_size", self.vocab_size, MAX_VOCAB_SIZE)
        _check_size("embedding_size", self.embedding_size, MAX_WIDTH)
        if not 1 <= len(self.hidden_sizes) <= MAX_LAYERS:
            raise ValueError(
                f"hidden_sizes must have 1 to {MAX_LAYERS} layers, got {len(self.hidden_sizes)}"
            )
        for layer, size in enumerate(self.hidden_sizes):
            _check_size(f"hidden_sizes[{layer}]", size, MAX_WIDTH)
        for name in ("projection", "tie_word_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r:.200}")
        if not _is_number(self.zoneout) or not 0.0 <= self.zoneout < 1.0:
            raise ValueError(f"zoneout must be a number in [0, 1), got {self.zoneout!r:.200}")
        if self.carry not in _CARRY:
            raise ValueError(f"carry must be one of {_CARRY}, got {self.carry!r:.200}")
        if self.weights not in _FORMATS:
            raise ValueError(f"weights must be one of {_FORMATS}, got {self.weights!r:.200}")
        if self.tie_word_embeddings and self.feature_size != self.embedding_size:
            raise ValueError(
                f"hidden_sizes must end with embedding_size {self.embedding_size} in a tied model "
                f"without projection, got {self.feature_size}"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Spec:
        """The spec that config.json describes; unknown keys are errors."""
        if config.get("model_type") != MODEL_TYPE:
            raise ValueError(f"model_type must be 'egru', got {config.get('model_type')!r:.200}")
        for key in sorted(set(config) - set(_FIELDS) - set(_OTHER_KEYS)):
            raise ValueError(f"{key!s:.200} is unknown")
        values: dict[str, Any] = dict(_DEFAULTS)
        values.update({key: config[key] for key in _FIELDS if key in config})
        for key in _FIELDS:
            if key not in values:
                raise ValueError(f"{key} is missing")
        sizes = values["hidden_sizes"]
        if not isinstance(sizes, (list, tuple)):
            raise ValueError(f"hidden_sizes must be a list of sizes, got {sizes!r:.200}")
        values["hidden_sizes"] = tuple(sizes)
        return cls(**values, weights=_weight_format(config))

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

    @property
    def output_dtype(self) -> str:
        """How units' outputs are held: float32, or int16 in steps of 1/32767."""
        return "int16" if self.weights == "int8" else "float32"

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name -> (dtype, shape) of every tensor in the package, weights input-major."""
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        for layer, (inputs, size) in enumerate(
            zip(self.input_sizes, self.hidden_sizes, strict=True)
        ):
            self._matrix(found, f"layers.{layer}.input", inputs, 3 * size)
            self._matrix(found, f"layers.{layer}.recurrent", size, 3 * size)
            found[f"layers.{layer}.threshold"] = ("float32", (size,))
        if self.projection:
            self._matrix(found, "projection", self.hidden_sizes[-1], self.embedding_size)
        self._matrix(found, "head", self.feature_size, self.vocab_size)
        if not self.tie_word_embeddings:
            shape = (self.vocab_size, self.embedding_size)
            found["embedding.weight"] = (_DTYPES[self.weights], shape)
            if self.weights == "int8":
                found["embedding.scale"] = ("float32", (self.vocab_size,))
        return found

    @property
    def num_parameters(self) -> int:
        """Numbers that the model was fitted with: all but scales of codes."""
        found = self.tensors().items()
        return sum(math.prod(shape) for name, (_, shape) in found if not name.endswith(".scale"))

    def _matrix(
        self, found: dict[str, tuple[str, tuple[int, ...]]], name: str, inputs: int, outputs: int
    ) -> None:
        found[f"{name}.weight"] = (_DTYPES[self.weights], (inputs, outputs))
        if self.weights == "int8":
            found[f"{name}.scale"] = ("float32", (outputs,))
        found[f"{name}.bias"] = ("float32", (outputs,))

    def bounds(self, name: str) -> tuple[float, float]:
        """Least and greatest value of the tensor `name` of floats; a scale is above 0 anyway."""
        return (0.0, 1.0) if name.endswith(".threshold") else (-math.inf, math.inf)

    def state_arrays(self, tensors: Mapping[str, NDArray[Any]]) -> tuple[StateArray, ...]:
        """The arrays of one sequence's state: all cells, then all outputs.

        From a zero state |c| <= 1 holds exactly, also in float32: z*c + (1-z)*g exceeds 1 by at
        most three roundings of 2**-25 before the last one, which rounds that back to 1. An output
        is 0 or a cell above its threshold, hence in [0, 1].
        """
        found = []
        offset = 0
        for layer, size in enumerate(self.hidden_sizes):
            found.append(StateArray(f"cell.{layer}", "float32", (size,), offset, -1.0, 1.0))
            offset += 4 * size
        high = 1.0 if self.output_dtype == "float32" else 32767.0
        width = 4 if self.output_dtype == "float32" else 2
        for layer, size in enumerate(self.hidden_sizes):
            found.append(
                StateArray(f"output.{layer}", self.output_dtype, (size,), offset, 0.0, high)
            )
            offset += width * size
        return tuple(found)

    @property
    def state_nbytes(self) -> int:
        """Bytes of one sequence's state: sum of H * 8 (float32 outputs) or H * 6 (fixed16)."""
        return sum(self.hidden_sizes) * (8 if self.output_dtype == "float32" else 6)

    @property
    def state_formula(self) -> str:
        """`state_nbytes` in words, for people."""
        width = 4 if self.output_dtype == "float32" else 2
        return f"(4 + {width}) bytes * {sum(self.hidden_sizes)} units = {self.state_nbytes} bytes"


class Model(CompiledModel):
    """The network of one package, ready to run; calls must not overlap."""

    def __init__(
        self, spec: Spec, tensors: Mapping[str, NDArray[Any]], threads: int, table_bytes: int
    ) -> None:
        from spiketrain.runtime.kernels.network import COUNTERS, Network

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


def _weight_format(config: Mapping[str, Any]) -> str:
    """The one weight format of all tensor classes; events have the format that goes with it."""
    ours = config["spiketrain"]
    formats = set(ours["weights"].values())
    if len(formats) != 1 or not formats <= set(_FORMATS):
        raise ValueError(
            f"spiketrain.weights must give every tensor class the same format, one of "
            f"{_FORMATS}, got {ours['weights']!r:.200}"
        )
    (weights,) = formats
    if ours["events"] != _EVENTS[weights]:
        raise ValueError(
            f"spiketrain.events must be {_EVENTS[weights]!r} with {weights} weights, "
            f"got {ours['events']!r:.200}"
        )
    return str(weights)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_size(name: str, value: Any, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} must be a whole number in [1, {most}], got {value!r:.200}")
