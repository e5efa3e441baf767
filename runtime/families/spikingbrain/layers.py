"""Which kinds of attention and feed-forward part a layer of a SpikingBrain has."""

from __future__ import annotations

from collections.abc import Collection


class Layers:
    """What the fields of a config say of a layer; for a package's Spec and a model's Config."""

    __slots__ = ()

    max_position_embeddings: int
    window_keys: int
    intermediate_size: int
    moe_intermediate_size: int
    num_experts: int
    parallel: bool
    attn_layers: Collection[int]
    full_attn_layers: Collection[int]
    dense_layers: Collection[int]

    def has_window(self, layer: int) -> bool:
        """Whether this layer has window attention."""
        return self.parallel or layer in self.attn_layers

    def has_state(self, layer: int) -> bool:
        """Whether this layer has gated linear attention."""
        return self.parallel or layer not in self.attn_layers

    def visible_keys(self, layer: int) -> int:
        """Keys that a query of this window layer sees, its own included."""
        full = layer in self.full_attn_layers
        return self.max_position_embeddings if full else self.window_keys

    def has_experts(self, layer: int) -> bool:
        """Whether this layer's feed-forward part has routed experts."""
        return self.num_experts > 0 and layer not in self.dense_layers

    def inner(self, layer: int) -> int:
        """Inner units of this layer's feed-forward part."""
        return self.moe_intermediate_size if self.has_experts(layer) else self.intermediate_size
