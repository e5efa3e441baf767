"""SpikingBrain as kernel calls: a package's tensors, packed, handed to the compiled network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.compiled import CompiledModel
from runtime.errors import PackageError
from runtime.families.spikingbrain.layout import DTYPES, FLOATS, GROUP, Matrix
from runtime.families.spikingbrain.spec import Spec
from runtime.families.spikingbrain.window import TILE
from runtime.memory import Arena, row_bytes
from runtime.tensor_file import release

LEAST_K = 1e-3
_INT32 = (1 << 31) - 1

_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Product:
    """A packed matrix (Dense or Sparse) and what is added to its outputs."""

    matrix: Any
    bias: _Floats | None = None


@dataclass(frozen=True, slots=True)
class Expert:
    """gate, up and down of a SwiGLU."""

    gate: Product
    up: Product
    down: Product


@dataclass(frozen=True, slots=True)
class Shape:
    """What all layers share, as runtime.kernels.decoder reads it; rates (d / 2,) of rotation.

    dial: bytes from the start of a state, 0 where there is none.
    """

    width: int
    heads: int
    shared_heads: int
    head_dim: int
    inner: int
    gate_rank: int
    most_experts: int
    most_k: float
    norm_eps: float
    gate_logit_normalizer: int
    feature_map: str
    window_cache: str
    attention_spikes: bool
    rates: NDArray[np.float64]
    dial: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, as runtime.kernels.decoder reads it.

    *_spikes: (k, dead zone) or None; decay_in and decay: the gate's matrices; state and the others:
    bytes from the start of a state; sinks: how many, in tiles (heads, tiles, ...) as in a window.
    """

    linear: bool
    window: bool
    gate: str
    attn_norm: _Floats
    mlp_norm: _Floats
    q: Product
    k: Product
    v: Product
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
        import runtime.kernels.decoder as decoder
        import runtime.kernels.products as products

        self.counter_names = decoder.COUNTERS
        self._spec = spec
        self._tensors = tensors
        self._products = products
        self._arena = Arena(sum(self._arena_bytes()))
        self._places = {array.name: array.offset for array in spec.state_shape.arrays()}
        *_, head = spec.matrices()
        self._network = decoder.Network(
            self._shape(),
            (tensors["embeddings.weight"], self._optional("embeddings.scale")),
            self._vector("norm.weight"),
            [self._layer(i) for i in range(spec.num_hidden_layers)],
            self._product(head),
            spec.state_nbytes,
            threads,
        )

    # --- vectors ----------------------------------------------------------------------------

    def _vector(self, name: str) -> _Floats:
        """A private float32 copy that no file backs."""
        return np.array(self._tensors[name], np.float32, order="C")

    def _optional(self, name: str) -> _Floats | None:
        return self._vector(name) if name in self._tensors else None

    def _spikes(self, name: str) -> tuple[float, float] | None:
        """K and dead zone of a place, if it makes spikes."""
        if name not in self._tensors:
            return None
        k, dead_zone = (float(value) for value in self._tensors[name])
        if k < LEAST_K:
            raise PackageError(f"tensor {name!r}: k must be at least {LEAST_K:g}, got {k:g}")
        return k, dead_zone

    def _shape(self) -> Shape:
        spec = self._spec
        half = spec.head_dim // 2
        layers = range(spec.num_hidden_layers)
        spikes = [self._spikes(f"layers.{i}.{place}") for i in layers for place in spec.places]
        return Shape(
            spec.hidden_size,
            spec.num_attention_heads,
            spec.num_key_value_heads,
            spec.head_dim,
            max(spec.inner(i) for i in layers),
            spec.gate_rank,
            max(spec.num_experts, 1),
            max((found[0] for found in spikes if found), default=0.0),
            spec.norm_eps,
            spec.gate_logit_normalizer,
            spec.feature_map,
            spec.window_cache,
            spec.attention_spikes,
            float(spec.rope_theta) ** (-np.arange(half, dtype=np.float64) / half),
            self._places.get("dial", 0),
        )

    # --- layers -----------------------------------------------------------------------------

    def _layer(self, layer: int) -> Layer:
        spec, name = self._spec, f"layers.{layer}"
        products = {m.name: self._product(m) for m in spec.attention_matrices(layer)}
        q, k, v, o = (products[f"{name}.attn.{key}_proj"] for key in "qkvo")
        found: dict[str, Any] = {"decay_in": None, "decay": products.get(f"{name}.attn.gk_proj")}
        if spec.has_state(layer):
            found["state"] = self._places[f"state.{layer}"]
            if spec.gate == "low_rank":
                found["decay_in"] = self._floats(f"{name}.attn.gk_proj.0")
                found["decay"] = self._floats(f"{name}.attn.gk_proj.1")
        if spec.has_window(layer):
            found |= self._window(layer)
        return Layer(
            linear=spec.has_state(layer),
            window=spec.has_window(layer),
            gate=spec.gate,
            q=q,
            k=k,
            v=v,
            o=o,
            attn_norm=self._vector(f"{name}.attn_norm.weight"),
            mlp_norm=self._vector(f"{name}.mlp_norm.weight"),
            attn_spikes=self._spikes(f"{name}.attn.spikes"),
            o_spikes=self._spikes(f"{name}.attn.o_spikes"),
            mlp_spikes=self._spikes(f"{name}.mlp.spikes"),
            down_spikes=self._spikes(f"{name}.mlp.down_spikes"),
            q_norm=self._optional(f"{name}.attn.q_norm.weight"),
            k_norm=self._optional(f"{name}.attn.k_norm.weight"),
            g_norm=self._optional(f"{name}.attn.g_norm.weight"),
            w_norm=self._optional(f"{name}.attn.w_norm.weight"),
            **self._feed(layer),
            **found,
        )

    def _feed(self, layer: int) -> dict[str, Any]:
        spec, name = self._spec, f"layers.{layer}.mlp"
        routed = spec.has_experts(layer)
        return {
            "inner": spec.inner(layer),
            "routed": spec.num_experts if routed else 0,
            "shared": spec.num_shared_experts if routed else 0,
            "router": self._floats(f"{name}.router") if routed else None,
            "experts": tuple(
                Expert(*(self._product(m) for m in spec.expert_matrices(layer, prefix)))
                for prefix in spec.expert_names(layer)
            ),
        }

    def _window(self, layer: int) -> dict[str, Any]:
        """Places of a window's rings, and its sinks in tiles."""
        spec, shape = self._spec, self._spec.state_shape
        arrays = ("keys", "values", "key_scales", "value_scales")
        found: dict[str, Any] = {key: self._places.get(f"{key}.{layer}", 0) for key in arrays}
        found["tiles"], found["visible"] = shape.tiles(layer), shape.visible[layer]
        if spec.num_sink_tokens:
            sinks = self._vector(f"layers.{layer}.attn.sinks")
            tiles = -(-spec.num_sink_tokens // TILE)
            heads, size = spec.num_key_value_heads, spec.head_dim
            room = np.zeros((2, tiles * TILE, heads, size), np.float32)
            room[:, : spec.num_sink_tokens] = sinks.reshape(2, -1, heads, size)
            room = room.reshape(2, tiles, TILE, heads, size)
            found["sinks"] = spec.num_sink_tokens
            found["sink_keys"] = np.ascontiguousarray(room[0].transpose(2, 0, 3, 1))
            found["sink_values"] = np.ascontiguousarray(room[1].transpose(2, 0, 1, 3))
        return found

    # --- matrices ---------------------------------------------------------------------------

    def _floats(self, name: str) -> Product:
        """A small float32 matrix of its own."""
        weight = self._tensors[f"{name}.weight"]
        matrix = Matrix(name, weight.shape[0], weight.shape[1], "float32")
        return Product(self._dense(matrix, weight), self._optional(f"{name}.bias"))

    def _product(self, matrix: Matrix) -> Product:
        """Packed and placed; the file's pages are given back."""
        weight = self._tensors[f"{matrix.name}.weight"]
        packed = self._sparse(matrix, weight) if matrix.by_rows else self._dense(matrix, weight)
        release(weight)
        return Product(packed, self._vector(f"{matrix.name}.bias") if matrix.bias else None)

    def _sparse(self, matrix: Matrix, weight: NDArray[Any]) -> Any:
        scale, rows = self._vector(f"{matrix.name}.scale"), self._arena.place(weight)
        if matrix.weights == "int4-go":
            multiplier = self._arena.place(self._tensors[f"{matrix.name}.multiplier"])
            return self._products.Sparse("int4", rows, matrix.outputs, scale, multiplier)
        if not matrix.group:
            return self._products.Sparse("int8", rows, matrix.outputs, scale)
        scale = scale.reshape(-1, matrix.outputs)
        return self._products.Sparse(
            "int8-groups", rows, matrix.outputs, scale, None, matrix.group, self._extra(matrix)
        )

    def _extra(self, matrix: Matrix) -> tuple[NDArray[Any], ...] | None:
        """Corrections of codes outside int8; sums of what spikes make of them fit 32 bits."""
        if not matrix.corrections:
            return None
        name = matrix.name
        found = tuple(
            np.array(self._tensors[f"{name}.{key}"])
            for key in ("extra_row", "extra_column", "extra")
        )
        try:
            self._products.check_extra(*found, matrix.inputs, matrix.outputs)
        except ValueError as error:
            raise PackageError(f"tensor '{name}.extra': {error}") from None
        most = int(np.abs(found[2].astype(np.int64)).max()) + 127
        if matrix.inputs * (self._shape().most_k * 1.01 + 1) * most > _INT32:
            raise PackageError(f"tensor '{name}.extra': sums must fit 32 bits, got {most}")
        return found

    def _dense(self, matrix: Matrix, weight: NDArray[Any]) -> Any:
        kind, group = _dense_kind(matrix)
        panels = self._arena.room(self._panels(matrix), np.uint8)
        scale = None
        if kind == "float32":
            self._products.pack_float32(weight, panels)
        elif kind == "bfloat16":
            self._products.pack_bfloat16(weight, panels)
        elif kind == "int8":
            self._products.pack_int8(weight, panels)
            scale = self._vector(f"{matrix.name}.scale")
        else:
            self._products.pack_int4(weight, self._vector(f"{matrix.name}.scale"), group, panels)
        return self._products.Dense(kind, panels, matrix.inputs, matrix.outputs, scale, group)

    def _panels(self, matrix: Matrix) -> tuple[int, int]:
        kind, group = _dense_kind(matrix)
        shape: tuple[int, int] = self._products.panels_shape(
            kind, matrix.inputs, matrix.outputs, group
        )
        return shape

    def _arena_bytes(self) -> Iterator[int]:
        """Bytes of each matrix there."""
        for matrix in (*self._spec.matrices(), *self._float_matrices()):
            if not matrix.by_rows:
                panels, size = self._panels(matrix)
                yield panels * row_bytes(size, 1)
                continue
            for suffix in ("weight", "multiplier"):
                array = self._tensors.get(f"{matrix.name}.{suffix}")
                if array is not None:
                    yield array.shape[0] * row_bytes(array.shape[1], array.itemsize)

    def _float_matrices(self) -> Iterator[Matrix]:
        """The low-rank gates' and routers' matrices."""
        for layer in range(self._spec.num_hidden_layers):
            for key in ("attn.gk_proj.0", "attn.gk_proj.1", "mlp.router"):
                weight = self._tensors.get(f"layers.{layer}.{key}.weight")
                if weight is not None:
                    name = f"layers.{layer}.{key}"
                    yield Matrix(name, weight.shape[0], weight.shape[1], "float32")


def _dense_kind(matrix: Matrix) -> tuple[str, int]:
    """The packing of a matrix that is read as a whole, and the inputs of a group."""
    if matrix.weights == "int4-gi":
        return "int4", GROUP
    assert matrix.weights in (*FLOATS, *DTYPES)
    return matrix.weights, 0
