"""SpikingBrain as kernel calls: a package's packed tensors, handed to the compiled network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.compiled import CompiledModel
from spiketrain.runtime.families.spikingbrain.packing import Packing, Product, joined_matrices
from spiketrain.runtime.families.spikingbrain.rotary import frequencies
from spiketrain.runtime.families.spikingbrain.spec import Spec
from spiketrain.runtime.families.spikingbrain.window import TILE

_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Expert:
    """gate, up and down of a SwiGLU."""

    gate: Product
    up: Product
    down: Product


@dataclass(frozen=True, slots=True)
class Shape:
    """What all layers share, as the compiled network reads it; rates (d / 2,) of rotation.

    dial: bytes from the start of a state, 0 where there is none.
    """

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    gate_rank: int
    max_experts: int
    max_k: float
    norm_eps: float
    gate_logit_normalizer: int
    feature_map: str
    window_cache: str
    attention_spikes: bool
    rates: NDArray[np.float64]
    dial: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, as the compiled network reads it.

    joined: q, k, v and a merged gate's decay side by side, which are None then.
    *_spikes: (k, dead zone) or None; decay_in and decay: the gate's matrices; state and the others:
    bytes from the start of a state; sinks: how many, in tiles (heads, tiles, ...) as in a window.
    """

    linear: bool
    window: bool
    gate: str
    attn_norm: _Floats
    mlp_norm: _Floats
    joined: Product | None
    q: Product | None
    k: Product | None
    v: Product | None
    o: Product
    attn_spikes: tuple[float, float] | None
    o_spikes: tuple[float, float] | None
    mlp_spikes: tuple[float, float] | None
    down_spikes: tuple[float, float] | None
    decay_in: Product | None
    decay: Product | None
    q_norm: _Floats | None
    k_norm: _Floats | None
    g_norm: _Floats | None
    w_norm: _Floats | None
    inner: int
    routed: int
    shared: int
    router: Product | None
    experts: tuple[Expert, ...]
    state: int = 0
    keys: int = 0
    values: int = 0
    key_scales: int = 0
    value_scales: int = 0
    tiles: int = 0
    visible: int = 0
    sinks: int = 0
    sink_keys: _Floats | None = None
    sink_values: _Floats | None = None


class Model(CompiledModel):
    """The network of one package, ready to run; calls must not overlap."""

    def __init__(
        self, spec: Spec, tensors: Mapping[str, NDArray[Any]], threads: int, table_bytes: int
    ) -> None:
        """Pack the tensors; table_bytes is of no use here: no first product hangs on a token."""
        import spiketrain.runtime.kernels.networks.spikingbrain as spikingbrain
        import spiketrain.runtime.kernels.products as products

        self.counter_names = spikingbrain.COUNTERS
        self._spec = spec
        self._packing = Packing(spec, tensors, products)
        self._places = {array.name: array.offset for array in spec.state_shape.arrays()}
        *_, head = spec.matrices()
        self._network = spikingbrain.Network(
            self._shape(),
            (tensors["embeddings.weight"], self._packing.optional("embeddings.scale")),
            self._packing.vector("norm.weight"),
            [self._layer(i) for i in range(spec.num_hidden_layers)],
            self._packing.product(head),
            spec.state_nbytes,
            threads,
        )

    def _shape(self) -> Shape:
        spec = self._spec
        layers = range(spec.num_hidden_layers)
        return Shape(
            spec.hidden_size,
            spec.num_attention_heads,
            spec.num_key_value_heads,
            spec.head_dim,
            max(spec.inner(i) for i in layers),
            spec.gate_rank,
            max(spec.num_experts, 1),
            self._packing.most_k,
            spec.norm_eps,
            spec.gate_logit_normalizer,
            spec.feature_map,
            spec.window_cache,
            spec.attention_spikes,
            frequencies(spec.rope_theta, spec.head_dim // 2, spec.rotary_scaling),
            self._places.get("dial", 0),
        )

    # --- layers -----------------------------------------------------------------------------

    def _layer(self, layer: int) -> Layer:
        spec, name = self._spec, f"layers.{layer}"
        joined = joined_matrices(spec, layer)
        products = {
            m.name: self._packing.product(m)
            for m in spec.attention_matrices(layer)
            if m not in joined
        }
        q, k, v, o = (products.get(f"{name}.attn.{key}_proj") for key in "qkvo")
        assert o is not None
        fields: dict[str, Any] = {"decay_in": None, "decay": products.get(f"{name}.attn.gk_proj")}
        if spec.has_state(layer):
            fields["state"] = self._places[f"state.{layer}"]
            if spec.gate == "low_rank":
                fields["decay_in"] = self._packing.floats(f"{name}.attn.gk_proj.0")
                fields["decay"] = self._packing.floats(f"{name}.attn.gk_proj.1")
        if spec.has_window(layer):
            fields |= self._window(layer)
        return Layer(
            linear=spec.has_state(layer),
            window=spec.has_window(layer),
            gate=spec.gate,
            joined=self._packing.product(*joined) if joined else None,
            q=q,
            k=k,
            v=v,
            o=o,
            attn_norm=self._packing.vector(f"{name}.attn_norm.weight"),
            mlp_norm=self._packing.vector(f"{name}.mlp_norm.weight"),
            attn_spikes=self._packing.spikes(f"{name}.attn.spikes"),
            o_spikes=self._packing.spikes(f"{name}.attn.o_spikes"),
            mlp_spikes=self._packing.spikes(f"{name}.mlp.spikes"),
            down_spikes=self._packing.spikes(f"{name}.mlp.down_spikes"),
            q_norm=self._packing.optional(f"{name}.attn.q_norm.weight"),
            k_norm=self._packing.optional(f"{name}.attn.k_norm.weight"),
            g_norm=self._packing.optional(f"{name}.attn.g_norm.weight"),
            w_norm=self._packing.optional(f"{name}.attn.w_norm.weight"),
            **self._feed(layer),
            **fields,
        )

    def _feed(self, layer: int) -> dict[str, Any]:
        spec, name = self._spec, f"layers.{layer}.mlp"
        routed = spec.has_experts(layer)
        return {
            "inner": spec.inner(layer),
            "routed": spec.num_experts if routed else 0,
            "shared": spec.num_shared_experts if routed else 0,
            "router": self._packing.floats(f"{name}.router") if routed else None,
            "experts": tuple(
                Expert(*(self._packing.product(m) for m in spec.expert_matrices(layer, prefix)))
                for prefix in spec.expert_names(layer)
            ),
        }

    def _window(self, layer: int) -> dict[str, Any]:
        """Offsets of a window's rings, and its sinks in tiles."""
        spec, shape = self._spec, self._spec.state_shape
        arrays = ("keys", "values", "key_scales", "value_scales")
        fields: dict[str, Any] = {key: self._places.get(f"{key}.{layer}", 0) for key in arrays}
        fields["tiles"], fields["visible"] = shape.tiles(layer), shape.visible[layer]
        if spec.num_sink_tokens:
            sinks = self._packing.vector(f"layers.{layer}.attn.sinks")
            tiles = -(-spec.num_sink_tokens // TILE)
            heads, size = spec.num_key_value_heads, spec.head_dim
            room = np.zeros((2, tiles * TILE, heads, size), np.float32)
            room[:, : spec.num_sink_tokens] = sinks.reshape(2, -1, heads, size)
            room = room.reshape(2, tiles, TILE, heads, size)
            fields["sinks"] = spec.num_sink_tokens
            fields["sink_keys"] = np.ascontiguousarray(room[0].transpose(2, 0, 3, 1))
            fields["sink_values"] = np.ascontiguousarray(room[1].transpose(2, 0, 1, 3))
        return fields
