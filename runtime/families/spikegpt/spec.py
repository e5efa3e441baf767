"""What a SpikeGPT package holds: fields, tensors, bounds, state."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime import fields
from spiketrain.runtime.dial import NO_DIAL
from spiketrain.runtime.families.spikegpt.operations import operations
from spiketrain.runtime.fields import choice, flag, number, stated, weight_class, whole
from spiketrain.runtime.formats import FLOATS, code_bounds
from spiketrain.runtime.operation import Operation
from spiketrain.runtime.package_spec import PackageSpec, Tensors
from spiketrain.runtime.state import MAX_NUMBER, StateArray
from spiketrain.runtime.tensor_table import Array, Embedding, Entry, Matrix

MAX_VOCAB_SIZE = 1 << 24
MAX_LAYERS = 256
# Sums of int8 * int8 over this many inputs stay below 2**31: 131072 * 127 * 127 < 2**31.
MAX_WIDTH = 1 << 17
# A token's |counts| add up to at most inputs / threshold_scale: kept within 16 bits.
MAX_COUNTS = 32767
MAX_SCALE = float(1 << 20)
MIN_POSITIVE = 2.0**-100
FIRST_EXPONENT = -1e38  # of the WKV state before the first token
FRESH_EXPONENT = -1e37  # no exponent of a token is as low
MAX_VALUE = 1e9  # of a token, for the WKV

_CODES = ("int8", "int4")
HEADS = {"float32": FLOATS, "bfloat16": FLOATS, "int8": _CODES, "int4": _CODES}  # by body
_EVENTS = {"float32": "float32", "bfloat16": "float32", "int8": "fixed16", "int4": "fixed12"}


def _check_rescale(name: str, value: Any) -> None:
    if type(value) is not int or value != 0:
        raise ValueError(f"{name} must be 0: weights are stored unscaled, got {value!r:.200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec(PackageSpec):
    """The config of one SpikeGPT package, checked at birth (ValueError names field, rule, value).

    embedding, body, head: weight formats of these tensor classes. max_dial: 1 for none.
    """

    model_type: ClassVar[str] = "spikegpt"
    architecture: ClassVar[str] = "SpikeGPTForCausalLM"

    vocab_size: int = whole(1, MAX_VOCAB_SIZE)
    hidden_size: int = whole(1, MAX_WIDTH)
    num_hidden_layers: int = whole(1, MAX_LAYERS)
    intermediate_size: int = whole(1, MAX_WIDTH)
    pre_ffn: bool = flag(False)
    binary_embedding: bool = flag(True)
    rescale: int = stated(_check_rescale, 0)
    neuron_position: str = choice("residual", "projections", "none", default="residual")
    lif_tau: float = number(1.0, 1e6, default=2.0)
    lif_threshold: float = number(1e-6, 1e6, default=1.0)
    layer_norm_eps: float = number(1e-12, 1.0, default=1e-5)
    embedding: str = weight_class()
    body: str = weight_class()
    head: str = weight_class()
    max_dial: float = NO_DIAL

    def __post_init__(self) -> None:
        fields.check_rules(fields.rules(Spec), self)
        self._check_formats()

    # --- formats ----------------------------------------------------------------------------

    @property
    def body_format(self) -> str:
        """The weight format of the layers' matrices."""
        return self.body

    @property
    def events(self) -> str:
        """Form of the events that products read: squared ReLUs in steps, or signed counts."""
        return "counts" if self.counts_spikes else _EVENTS[self.body]

    @staticmethod
    def embedding_format(binary: bool, body: str) -> str:
        """The format of an embedding beside a body of this format."""
        if binary:
            return "bits"
        return body if body in FLOATS else "int8"

    def _check_formats(self) -> None:
        """ValueError unless the weight formats go together."""
        if self.body not in HEADS:
            raise ValueError(
                f"spiketrain.weights.body must be one of {tuple(HEADS)}, got {self.body!r:.200}"
            )
        if self.head not in HEADS[self.body]:
            raise ValueError(
                f"spiketrain.weights.head must be one of {HEADS[self.body]} with a "
                f"{self.body} body, got {self.head!r:.200}"
            )
        rule = self.embedding_format(self.binary_embedding, self.body)
        if self.embedding != rule:
            raise ValueError(
                f"spiketrain.weights.embedding must be {rule!r} here, got {self.embedding!r:.200}"
            )

    # --- layers -----------------------------------------------------------------------------

    @property
    def counts_spikes(self) -> bool:
        """Whether every matrix reads spike counts."""
        return self.neuron_position == "projections"

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
        if not self.counts_spikes:
            return {}
        found: dict[str, int] = {}
        for name, kind, _ in self.halves:
            found |= {m.name: m.inputs for m in self.matrices(name, kind)}
        return {**found, "head": self.hidden_size}

    def spikes_in_state(self, arrays: Tensors) -> dict[str, NDArray[np.int32]]:
        """LIF units reset to exactly zero when they fire: a membrane at zero is a spike."""
        if self.neuron_position != "residual":
            return {}
        places = [(i, n) for i in range(self.num_hidden_layers) for n in (1, 2)]
        return {
            f"blocks.{i}.lif{n}": (arrays[f"membrane{n}.{i}"] == 0).astype(np.int32)
            for i, n in places
        }

    def operations(self) -> Iterator[Operation]:
        """What the network computes for a token."""
        return operations(self)

    # --- tensors ----------------------------------------------------------------------------

    @property
    def parts(self) -> dict[str, tuple[Entry, ...]]:
        """All tensors, in one part."""
        return {"model": tuple(self._entries())}

    def _entries(self) -> Iterator[Entry]:
        yield Embedding("embedding", self.vocab_size, self.hidden_size, self.embedding)
        yield from self._vectors("blocks.0.ln0", ("weight", "bias"))
        yield from self._vectors("ln_out", ("weight", "bias"))
        for name, kind, half in self.halves:
            block = name.rpartition(".")[0]
            yield from self._vectors(f"{block}.ln{half}", ("weight", "bias"))
            if self.neuron_position == "residual":
                yield from self._vectors(f"{block}.lif{half}", ("threshold", "scale"))
            yield from self._vectors(name, self.half_vectors(kind))
            yield from self.matrices(name, kind)
        yield self.head_matrix

    def _vectors(self, name: str, parts: tuple[str, ...]) -> Iterator[Array]:
        for part in parts:
            yield Array(f"{name}.{part}", (self.hidden_size,))

    def half_vectors(self, kind: str) -> tuple[str, ...]:
        """Names of a half's vectors, the mixes last, in the order of its matrices."""
        shared = self.counts_spikes
        if kind == "channel":
            return ("time_mix",) if shared else ("time_mix_k", "time_mix_r")
        mixes = ("time_mix",) if shared else ("time_mix_r", "time_mix_k", "time_mix_v")
        return ("time_decay", "time_first", *mixes)

    def matrices(self, name: str, kind: str) -> tuple[Matrix, ...]:
        """The matrices of one half, in the order in which the network reads them."""
        width, inner = self.hidden_size, self.intermediate_size
        spiking = self.counts_spikes
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
        spiking = self.counts_spikes
        return Matrix("head", self.hidden_size, self.vocab_size, self.head, spiking, spiking)

    def bounds(self, name: str) -> tuple[float, float]:
        """Least and greatest value of the tensor `name`."""
        if name.endswith(".threshold_scale"):
            inputs = self.intermediate_size if ".value." in name else self.hidden_size
            return inputs / MAX_COUNTS, MAX_SCALE
        if name.endswith(".threshold"):
            return MIN_POSITIVE, 1 / MIN_POSITIVE
        return code_bounds(name)

    # --- state ------------------------------------------------------------------------------

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

    def state_arrays(self, tensors: Tensors) -> tuple[StateArray, ...]:
        """The arrays of one sequence's state, layer by layer.

        A shift is what a LayerNorm gave, and a membrane that reached its threshold has been reset;
        what holds between the arrays of the WKV says `check_state`.
        """
        most = MAX_NUMBER
        found = []
        for layer in range(self.num_hidden_layers):
            for vector in self.state_vectors:
                low: float | NDArray[Any] = -most
                high: float | NDArray[Any] = most
                initial = 0.0
                if vector == "denominator":
                    low = 0.0
                elif vector == "exponent":
                    low = initial = FIRST_EXPONENT
                elif vector.endswith("_shift"):
                    norm = f"blocks.{layer}.ln{1 if vector == 'att_shift' else 2}"
                    high = self._most_normed(tensors[f"{norm}.weight"], tensors[f"{norm}.bias"])
                    low = -high
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

    def _most_normed(self, weight: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
        """More than a LayerNorm may give: n numbers of variance 1 are at most sqrt(n) each."""
        most = 1.01 * math.sqrt(self.hidden_size) * np.abs(weight.astype(np.float64)) + np.abs(bias)
        return np.minimum(most, MAX_NUMBER)

    def check_state(self, arrays: Tensors) -> str | None:
        """What is wrong with a WKV state, None if nothing is.

        Its denominator is at least 1, the weight of the greatest exponent, or 0 before any token.
        The numerator is a mean of values times the denominator.
        """
        for layer in range(self.num_hidden_layers):
            above, below = arrays[f"numerator.{layer}"], arrays[f"denominator.{layer}"]
            fresh = (below == 0) & (above == 0) & (arrays[f"exponent.{layer}"] <= FRESH_EXPONENT)
            good = fresh | ((below >= 1) & (np.abs(above) <= MAX_VALUE * below))
            if not good.all():
                at = int(np.argmin(good))
                return (
                    f"denominator.{layer}[{at}] must be at least 1 and numerator.{layer}[{at}] at "
                    f"most {MAX_VALUE:g} times that, got {below[at]:g} and {above[at]:g}"
                )
        return None

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
