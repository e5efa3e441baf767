"""What a SpikingBrain package holds: fields, tensors, bounds, state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from numpy.typing import NDArray

from spiketrain.runtime.dial import NO_DIAL
from spiketrain.runtime.families.spikingbrain.checks import (
    check_fields,
    check_formats,
    from_config,
)
from spiketrain.runtime.families.spikingbrain.layout import Matrix, TensorTable
from spiketrain.runtime.families.spikingbrain.window import StateShape
from spiketrain.runtime.state import StateArray

MODEL_TYPE = "spikingbrain"
# Counts of a token add up to about inputs * k: within 32 bits with int8 weights.
MOST_K = 16.0


@dataclass(frozen=True, slots=True)
class Spec:
    """The config of one SpikingBrain package; ValueError names field, rule and value.

    Fields are those of the config, most under their upstream names; embedding, body, down, head are
    weight formats. window_keys: keys that a query sees, its own included. parallel: every layer has
    both kinds of attention. corrections: codes outside int8 by matrix. max_dial: 1 for none.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    head_dim: int
    norm_eps: float
    sliding_window: int
    window_keys: int
    attn_layers: tuple[int, ...]
    full_attn_layers: tuple[int, ...]
    parallel: bool
    rope_theta: float
    rotary_scaling: Mapping[str, Any] | None
    max_position_embeddings: int
    qk_norm: bool
    gate: str
    gate_rank: int
    gate_logit_normalizer: int
    feature_map: str
    num_sink_tokens: int
    num_experts: int
    num_shared_experts: int
    moe_intermediate_size: int
    dense_layers: tuple[int, ...]
    spikes: bool
    attention_spikes: bool
    down_proj: str
    window_cache: str
    corrections: Mapping[str, int]
    embedding: str
    body: str
    down: str
    head: str
    max_dial: float = NO_DIAL

    def __post_init__(self) -> None:
        check_fields(self)
        check_formats(self)
        known = {m.name for m in self.matrices() if m.weights.startswith("int8")}
        for name in self.corrections:
            if name not in known:
                raise ValueError(f"corrections must be of int8 matrices, got {name!r:.200}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Spec:
        """The spec that config.json describes; unknown keys are errors."""
        return from_config(cls, tuple(field.name for field in fields(cls)), config)

    # --- layers -----------------------------------------------------------------------------

    def has_window(self, layer: int) -> bool:
        """Whether this layer has window attention."""
        return self.parallel or layer in self.attn_layers

    def has_state(self, layer: int) -> bool:
        """Whether this layer has gated linear attention."""
        return self.parallel or layer not in self.attn_layers

    def has_experts(self, layer: int) -> bool:
        """Whether this layer's feed-forward part has routed experts."""
        return self.num_experts > 0 and layer not in self.dense_layers

    def inner(self, layer: int) -> int:
        """Inner units of this layer's feed-forward part."""
        return self.moe_intermediate_size if self.has_experts(layer) else self.intermediate_size

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

    # --- matrices ---------------------------------------------------------------------------

    def matrices(self) -> Iterator[Matrix]:
        """All matrices but the low-rank gates' and routers', layer by layer, the head last."""
        for layer in range(self.num_hidden_layers):
            yield from self.attention_matrices(layer)
            for name in self.expert_names(layer):
                yield from self.expert_matrices(layer, name)
        yield Matrix("lm_head", self.hidden_size, self.vocab_size, self.head)

    def attention_matrices(self, layer: int) -> Iterator[Matrix]:
        """q, k, v, o and the merged gate if there is one."""
        width, wide = self.hidden_size, self.num_attention_heads * self.head_dim
        narrow = self.num_key_value_heads * self.head_dim
        shapes = {
            "q": (width, wide),
            "k": (width, narrow),
            "v": (width, narrow),
            "o": (wide, width),
        }
        if self.gate == "merged" and self.has_state(layer):
            shapes["gk"] = (width, narrow)
        for key, (inputs, outputs) in shapes.items():
            yield self._matrix(f"layers.{layer}.attn.{key}_proj", inputs, outputs, key != "o")

    def expert_names(self, layer: int) -> tuple[str, ...]:
        """Prefixes of a feed-forward part's gate, up and down: routed experts, then shared ones."""
        name = f"layers.{layer}.mlp"
        if not self.has_experts(layer):
            return (name,)
        routed = (f"{name}.experts.{e}" for e in range(self.num_experts))
        return (*routed, *(f"{name}.shared.{s}" for s in range(self.num_shared_experts)))

    def expert_matrices(self, layer: int, name: str) -> Iterator[Matrix]:
        """gate, up and down of one expert, or of a layer without any."""
        width, inner = self.hidden_size, self.inner(layer)
        yield self._matrix(f"{name}.gate_proj", width, inner)
        yield self._matrix(f"{name}.up_proj", width, inner)
        name, spiked = f"{name}.down_proj", self.spikes and self.down_proj == "spiked"
        yield Matrix(name, inner, width, self.down, spiked, self.corrections.get(name, 0))

    def _matrix(self, name: str, inputs: int, outputs: int, bias: bool = False) -> Matrix:
        corrections = self.corrections.get(name, 0)
        return Matrix(name, inputs, outputs, self.body, self.spikes, corrections, bias)

    # --- tensors ----------------------------------------------------------------------------

    @property
    def num_parameters(self) -> int:
        """Numbers that the model was fitted with; a matrix counts by its shape, however stored."""
        return self._table().parameters

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name -> (dtype, shape) of every tensor in the package, weights input-major."""
        return self._table().entries

    def _table(self) -> TensorTable:
        table = TensorTable()
        table.embedding(self.embedding, self.vocab_size, self.hidden_size)
        table.array("norm.weight", self.hidden_size)
        for layer in range(self.num_hidden_layers):
            self._add_layer(table, layer)
        for matrix in self.matrices():
            table.matrix(matrix)
        return table

    def _add_layer(self, table: TensorTable, layer: int) -> None:
        name, width, size = f"layers.{layer}", self.hidden_size, self.head_dim
        narrow = self.num_key_value_heads * size
        table.array(f"{name}.attn_norm.weight", width)
        table.array(f"{name}.mlp_norm.weight", width)
        for norm in ("q_norm", "k_norm") if self.qk_norm else ():
            table.array(f"{name}.attn.{norm}.weight", size)
        if self.has_state(layer):
            table.array(f"{name}.attn.g_norm.weight", size)
            if self.gate == "low_rank":
                table.array(f"{name}.attn.gk_proj.0.weight", width, self.gate_rank)
                table.array(f"{name}.attn.gk_proj.1.weight", self.gate_rank, narrow)
                table.array(f"{name}.attn.gk_proj.1.bias", narrow)
        if self.parallel:
            table.array(f"{name}.attn.w_norm.weight", size)
        if self.num_sink_tokens and self.has_window(layer):
            table.array(f"{name}.attn.sinks", 2, self.num_sink_tokens, narrow)
        if self.has_experts(layer):
            table.array(f"{name}.mlp.router.weight", width, self.num_experts)
        for place in self.places:
            table.array(f"{name}.{place}", 2, fitted=False)

    @property
    def places(self) -> tuple[str, ...]:
        """Where each layer makes spike counts: tensors of k and the dead zone."""
        if not self.spikes:
            return ()
        down = ("mlp.down_spikes",) if self.down_proj == "spiked" else ()
        return ("attn.spikes", "attn.o_spikes", "mlp.spikes", *down)

    def bounds(self, name: str) -> tuple[float, float]:
        """Least and greatest value of the tensor `name`."""
        if name.endswith(".multiplier"):
            return 1, 15
        if name.endswith("spikes"):
            return 0.0, MOST_K
        return -math.inf, math.inf

    # --- state ------------------------------------------------------------------------------

    @property
    def state_shape(self) -> StateShape:
        """Sizes that a state depends on."""
        layers = range(self.num_hidden_layers)
        full = dict.fromkeys(self.full_attn_layers, self.max_position_embeddings)
        return StateShape(
            self.num_key_value_heads,
            self.head_dim,
            self.window_cache,
            tuple(i for i in layers if self.has_state(i)),
            {i: full.get(i, self.window_keys) for i in layers if self.has_window(i)},
            self.max_dial,
        )

    def state_arrays(self, tensors: Mapping[str, NDArray[Any]]) -> tuple[StateArray, ...]:
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
