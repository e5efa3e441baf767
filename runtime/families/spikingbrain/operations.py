"""What a SpikingBrain computes for a token, operation by operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiketrain.runtime.operation import RMS_NORM, Operation, matrix_operation


def operations(spec: Any) -> Iterator[Operation]:
    """The operations behind the embedding, in the order of data; spec: a SpikingBrain's."""
    for i, layer in enumerate(f"layers.{i}" for i in range(spec.num_hidden_layers)):
        yield Operation(f"{layer}.attn_norm", RMS_NORM)
        if spec.spikes:
            yield Operation(f"{layer}.attn.spikes", "spike counts round(k x / mean|x|)")
        if spec.has_state(i):
            yield Operation(f"{layer}.attn", "gated linear attention: products of keys and values")
        if spec.has_window(i):
            yield Operation(f"{layer}.attn", "window attention: softmax of products of signals")
        yield Operation(f"{layer}.mlp_norm", RMS_NORM)
        yield Operation(f"{layer}.mlp", "SwiGLU: product of two signals")
    yield Operation("norm", RMS_NORM)
    yield matrix_operation("lm_head", spec.head)
