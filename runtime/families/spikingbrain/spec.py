"""What a SpikingBrain package holds: fields, tensors, bounds, state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from spiketrain.runtime import fields
from spiketrain.runtime.dial import NO_DIAL
from spiketrain.runtime.families.spikingbrain.checks import (
    MAX_WIDTH,
    check_corrections,
    check_formats,
    check_relations,
    check_untied,
)
from spiketrain.runtime.families.spikingbrain.operations import operations
from spiketrain.runtime.families.spikingbrain.rotary import check_scaling
from spiketrain.runtime.families.spikingbrain.walk import Walk
from spiketrain.runtime.families.spikingbrain.window import CACHES, StateShape
from spiketrain.runtime.fields import (
    Values,
    choice,
    flag,
    number,
    sequence,
    stated,
    weight_class,
    whole,
)
from spiketrain.runtime.formats import FLOATS, code_bounds, is_int8
from spiketrain.runtime.operation import Operation
from spiketrain.runtime.package_spec import Tensors
from spiketrain.runtime.state import StateArray

MAX_VOCAB_SIZE = 1 << 24
MAX_LAYERS = 256
MAX_EXPERTS = 1024
MAX_SHARED_EXPERTS = 64
MAX_HEAD_DIM = 1024
MAX_POSITIONS = 1 << 24
MAX_SINKS = 1 << 16
# Counts of a token add up to about inputs * k: within 32 bits with int8 weights.
MAX_K = 16.0


def _head_dim(values: Values) -> int | None:
    width, heads = values.get("hidden_size"), values.get("num_attention_heads")
    return width // max(heads, 1) if type(width) is int and type(heads) is int else None


def _window_keys(values: Values) -> int | None:
    window = values.get("sliding_window")
    return window + 1 if type(window) is int else None


def _odd_layers(values: Values) -> tuple[int, ...] | None:
    layers = values.get("num_hidden_layers")
    return tuple(range(1, layers, 2)) if type(layers) is int and layers <= MAX_LAYERS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec(Walk):
    """The config of one SpikingBrain package; ValueError names field, rule and value.

    Fields are those of the config, most under their upstream names; embedding, body, down, head are
    weight formats. window_keys: keys that a query sees, its own included. parallel: every layer has
    both kinds of attention. corrections: codes outside int8 by matrix. max_dial: 1 for none.
    """

    model_type: ClassVar[str] = "spikingbrain"
    architecture: ClassVar[str] = "SpikingBrainForCausalLM"
    # Said by other tensors or by formats: kept for people.
    remarks: ClassVar[tuple[str, ...]] = ("quant_weight_group_size", "spike_k", "dead_zone")

    vocab_size: int = whole(1, MAX_VOCAB_SIZE)
    hidden_size: int = whole(1, MAX_WIDTH)
    num_hidden_layers: int = whole(1, MAX_LAYERS)
    num_attention_heads: int = whole(1, MAX_WIDTH)
    num_key_value_heads: int = whole(1, MAX_WIDTH, derived=lambda v: v.get("num_attention_heads"))
    head_dim: int = whole(1, MAX_HEAD_DIM, derived=_head_dim)
    intermediate_size: int = whole(1, MAX_WIDTH)
    norm_eps: float = number(1e-12, 1.0, default=1e-6)
    sliding_window: int = whole(1, MAX_POSITIONS)
    window_keys: int = whole(1, MAX_POSITIONS, derived=_window_keys)
    attn_layers: tuple[int, ...] = sequence("layers", derived=_odd_layers)
    full_attn_layers: tuple[int, ...] = sequence("layers", default=())
    parallel: bool = flag(False)
    rope_theta: float = number(1.0, 1e12, default=1e6)
    rotary_scaling: Mapping[str, Any] | None = stated(lambda _, value: check_scaling(value), None)
    max_position_embeddings: int = whole(1, MAX_POSITIONS, default=131072)
    qk_norm: bool = flag(False)
    gate: str = choice("low_rank", "merged", "tied", default="low_rank")
    gate_rank: int = whole(1, MAX_WIDTH, default=16)
    gate_logit_normalizer: int = whole(1, MAX_WIDTH, default=16)
    feature_map: str = choice("relu", "sigmoid", default="relu")
    num_sink_tokens: int = whole(0, MAX_SINKS, default=0)
    num_experts: int = whole(0, MAX_EXPERTS, default=0)
    num_shared_experts: int = whole(0, MAX_SHARED_EXPERTS, default=1)
    moe_intermediate_size: int = whole(1, MAX_WIDTH, derived=lambda v: v.get("intermediate_size"))
    dense_layers: tuple[int, ...] = sequence("layers", default=())
    spikes: bool = flag(False)
    attention_spikes: bool = flag(False)
    down_proj: str = choice("published", "spiked", default="spiked")
    tie_word_embeddings: bool = stated(check_untied, False)
    window_cache: str = choice(*CACHES, default="float32")
    corrections: Mapping[str, int] = stated(check_corrections, {})
    embedding: str = weight_class()
    body: str = weight_class()
    down: str = weight_class()
    head: str = weight_class()
    max_dial: float = NO_DIAL

    def __post_init__(self) -> None:
        fields.check_rules(fields.rules(Spec), self)
        check_relations(self)
        check_formats(self)
        known = {m.name for m in self.matrices() if is_int8(m.weights)}
        for name in self.corrections:
            if name not in known:
                raise ValueError(f"corrections must be of int8 matrices, got {name!r:.200}")

    @property
    def body_format(self) -> str:
        """The weight format of the layers' matrices."""
        return self.body

    @property
    def events(self) -> str:
        """Form of what the matrices of the blocks read."""
        if self.spikes:
            return "counts"
        return "float32" if self.body in FLOATS else "int8"

    # --- layers -----------------------------------------------------------------------------

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Both halves of each layer."""
        layers = range(self.num_hidden_layers)
        return tuple(f"layers.{i}.{half}" for i in layers for half in ("attn", "mlp"))

    @property
    def readout_names(self) -> tuple[str, ...]:
        """Names of the matrices after the last layer."""
        return ("lm_head",)

    @property
    def event_rows(self) -> tuple[int, ...]:
        """Weight rows that events may read in a token, for each layer and readout matrix."""
        found = []
        for layer in range(self.num_hidden_layers):
            found.append(sum(m.inputs for m in self.attention_matrices(layer) if m.by_rows))
            names = self.expert_names(layer)
            read = names[self.num_experts - 1 :] if self.has_experts(layer) else names
            matrices = (m for name in read for m in self.expert_matrices(layer, name))
            found.append(sum(m.inputs for m in matrices if m.by_rows))
        return (*found, 0)

    @property
    def recorded(self) -> dict[str, int]:
        """Places of spike counts in the order in which a token passes them, and their units."""
        if not self.spikes:
            return {}
        heads, found = self.num_attention_heads * self.head_dim, dict[str, int]()
        for layer in range(self.num_hidden_layers):
            name, shared = f"layers.{layer}", self.num_shared_experts
            found |= {f"{name}.attn.qkv": self.hidden_size, f"{name}.attn.o": heads}
            found[f"{name}.mlp.gate_up"] = self.hidden_size
            if self.down_proj == "spiked":
                found[f"{name}.mlp.down"] = self.inner(layer)
                for expert in range(shared if self.has_experts(layer) else 0):
                    found[f"{name}.mlp.shared.{expert}.down"] = self.inner(layer)
        return found

    def operations(self) -> Iterator[Operation]:
        """What the network computes for a token."""
        return operations(self)

    # --- tensors and state ------------------------------------------------------------------

    def bounds(self, name: str) -> tuple[float, float]:
        """Least and greatest value of the tensor `name`."""
        return (0.0, MAX_K) if name.endswith("spikes") else code_bounds(name)

    @property
    def state_shape(self) -> StateShape:
        """Sizes that a state depends on."""
        layers = range(self.num_hidden_layers)
        return StateShape(
            self.num_key_value_heads,
            self.head_dim,
            self.window_cache,
            tuple(i for i in layers if self.has_state(i)),
            {i: self.visible_keys(i) for i in layers if self.has_window(i)},
            self.max_dial,
        )

    def state_arrays(self, tensors: Tensors) -> tuple[StateArray, ...]:
        """The arrays of one sequence's state."""
        return self.state_shape.arrays()

    @property
    def state_nbytes(self) -> int:
        """Bytes of one sequence's state."""
        return self.state_shape.nbytes

    @property
    def state_formula(self) -> str:
        """`state_nbytes` in words, for people."""
        shape = self.state_shape
        heads, size = self.num_key_value_heads, self.head_dim
        parts = ["64 bytes for the position"]
        if self.max_dial > NO_DIAL:
            parts.append("64 for the dial")
        if shape.linear:
            parts.append(f"{len(shape.linear)} layers * 4 bytes * {heads} heads * {size} * {size}")
        item = {"float32": "4 bytes", "bfloat16": "2 bytes", "int8": "1 byte + 4 bytes"}
        for keys in sorted(set(shape.visible.values())):
            layers = [i for i, count in shape.visible.items() if count == keys]
            places = 64 * shape.tiles(layers[0])
            parts.append(
                f"{len(layers)} layers * 2 * {places} positions * {heads} heads * "
                f"({size} * {item[self.window_cache]})"
            )
        return f"{' + '.join(parts)} = {self.state_nbytes} bytes"
