"""What a SpikeGPT computes for a token, operation by operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiketrain.runtime.operation import LAYER_NORM, Operation, matrix_operation

_COUNTS = "spike counts floor(|x| / (scale mean|x|))"


def operations(spec: Any) -> Iterator[Operation]:
    """The operations behind the embedding, in the order of data; spec: a SpikeGPT's."""
    yield Operation("blocks.0.ln0", LAYER_NORM)
    for name, kind, number in spec.halves:
        block = name.rpartition(".")[0]
        yield Operation(f"{block}.ln{number}", LAYER_NORM)
        yield from _time_mix(spec, name) if kind == "time" else _channel_mix(spec, name)
        if spec.neuron_position == "residual":
            yield Operation(
                f"{block}.lif{number}", "LIF units with a hard reset", "LIF", spec.lif_tau
            )
    yield Operation("ln_out", LAYER_NORM)
    yield matrix_operation("head", spec.head)


def _time_mix(spec: Any, name: str) -> Iterator[Operation]:
    if spec.counts_spikes:
        yield Operation(f"{name}.rkv", _COUNTS)
    yield Operation(name, "WKV: exponentials, a quotient, times sigmoid(r)")
    yield matrix_operation(f"{name}.output", spec.body)


def _channel_mix(spec: Any, name: str) -> Iterator[Operation]:
    if spec.counts_spikes:
        yield Operation(f"{name}.kr", _COUNTS)
    yield Operation(name, "squares of ReLUs, and products with sigmoid(r)")
