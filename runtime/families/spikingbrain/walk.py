"""The tensors of a SpikingBrain package, entry by entry, as its fields say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from spiketrain.runtime.families.spikingbrain.layers import Layers
from spiketrain.runtime.formats import Stored
from spiketrain.runtime.package_spec import PackageSpec
from spiketrain.runtime.tensor_table import (
    Array,
    Embedding,
    Entry,
    Matrix,
    reads_rows,
    stored_tensors,
)


class Walk(Layers, PackageSpec):
    """The walk over tensors; Spec states the fields, of which these are read here."""

    __slots__ = ()

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    qk_norm: bool
    gate: str
    gate_rank: int
    num_sink_tokens: int
    num_shared_experts: int
    spikes: bool
    down_proj: str
    corrections: Mapping[str, int]
    embedding: str
    body: str
    down: str
    head: str

    # --- matrices ---------------------------------------------------------------------------

    def matrices(self) -> Iterator[Matrix]:
        """All matrices but the low-rank gates' and routers', layer by layer, the head last."""
        for layer in range(self.num_hidden_layers):
            yield from self._layer_matrices(layer)
        yield self.head_matrix

    @property
    def head_matrix(self) -> Matrix:
        """The matrix from the last norm to the logits."""
        return Matrix("lm_head", self.hidden_size, self.vocab_size, self.head)

    def _layer_matrices(self, layer: int) -> Iterator[Matrix]:
        yield from self.attention_matrices(layer)
        for name in self.expert_names(layer):
            yield from self.expert_matrices(layer, name)

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
        spiked = self.spikes and self.down_proj == "spiked"
        yield self._matrix(f"{name}.down_proj", inner, width, weights=self.down, spiked=spiked)

    def _matrix(
        self,
        name: str,
        inputs: int,
        outputs: int,
        bias: bool = False,
        weights: str | None = None,
        spiked: bool | None = None,
    ) -> Matrix:
        weights = self.body if weights is None else weights
        by_rows = reads_rows(self.spikes if spiked is None else spiked, weights)
        corrections = self.corrections.get(name, 0)
        return Matrix(
            name, inputs, outputs, weights, by_rows=by_rows, corrections=corrections, bias=bias
        )

    # --- tensors ----------------------------------------------------------------------------

    @property
    def parts(self) -> dict[str, tuple[Entry, ...]]:
        """The embedding, each layer, and the head with the norm before it."""
        found: dict[str, tuple[Entry, ...]] = {
            "embeddings": (
                Embedding("embeddings", self.vocab_size, self.hidden_size, self.embedding),
            )
        }
        for layer in range(self.num_hidden_layers):
            matrices = self._layer_matrices(layer)
            found[f"layers.{layer}"] = (*self._arrays(layer), *matrices)
        found["head"] = (Array("norm.weight", (self.hidden_size,)), self.head_matrix)
        return found

    def tensors(self) -> Stored:
        """Name -> (dtype, shape) of every tensor in the package, weights input-major.

        Matrices come last, and of them the head.
        """
        embedding, *layers, head = self.parts.values()
        first = [entry for part in (embedding, head, *layers) for entry in part]
        return stored_tensors(e for e in first if not isinstance(e, Matrix)) | stored_tensors(
            self.matrices()
        )

    def _arrays(self, layer: int) -> Iterator[Array]:
        """Everything of a layer but the matrices of `attention_matrices` and `expert_matrices`."""
        name, width, size = f"layers.{layer}", self.hidden_size, self.head_dim
        narrow = self.num_key_value_heads * size
        yield Array(f"{name}.attn_norm.weight", (width,))
        yield Array(f"{name}.mlp_norm.weight", (width,))
        for norm in ("q_norm", "k_norm") if self.qk_norm else ():
            yield Array(f"{name}.attn.{norm}.weight", (size,))
        if self.has_state(layer):
            yield Array(f"{name}.attn.g_norm.weight", (size,))
            if self.gate == "low_rank":
                gate, rank = f"{name}.attn.gk_proj", self.gate_rank
                yield Array(f"{gate}.0.weight", (width, rank), input_major=True)
                yield Array(f"{gate}.1.weight", (rank, narrow), input_major=True)
                yield Array(f"{gate}.1.bias", (narrow,))
        if self.parallel:
            yield Array(f"{name}.attn.w_norm.weight", (size,))
        if self.num_sink_tokens and self.has_window(layer):
            yield Array(f"{name}.attn.sinks", (2, self.num_sink_tokens, narrow))
        if self.has_experts(layer):
            yield Array(f"{name}.mlp.router.weight", (width, self.num_experts), input_major=True)
        for place in self.places:
            yield Array(f"{name}.{place}", (2,), fitted=False)

    @property
    def places(self) -> tuple[str, ...]:
        """Where each layer makes spike counts: tensors of k and the dead zone."""
        if not self.spikes:
            return ()
        down = ("mlp.down_spikes",) if self.down_proj == "spiked" else ()
        return ("attn.spikes", "attn.o_spikes", "mlp.spikes", *down)
