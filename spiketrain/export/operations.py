"""What a package computes for a token, operation after operation, and which node of NIR each is.

The walk starts behind the embedding, whose rows are the network's input. Sums of branches are no
operations of their own: edges of NIR add up. NIR's nodes are matrices, sums, delays and neurons
(IF, LIF, LI and their kin); there is none that multiplies two signals, normalises a vector, takes
an exponential or counts spikes against a threshold of its own for every token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spiketrain.runtime.errors import SpiketrainError

LAYER_NORM = "LayerNorm over the channels"
RMS_NORM = "RMS norm over the channels"
ROUNDED = "a matrix of {weights} codes that reads rounded signals"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; `place` names its tensors. node: of NIR, "Linear", "Affine", "LIF" or None."""

    place: str
    what: str
    node: str | None = None


def operations(config: Mapping[str, Any]) -> list[Operation]:
    """The operations of a package's network in the order of data; SpiketrainError if unknown."""
    family = str(config.get("model_type"))
    if family not in _FAMILIES:
        raise SpiketrainError(
            f"model_type must be one of {tuple(_FAMILIES)} to be walked through, got {family!r}"
        )
    return list(_FAMILIES[family](config))


def stretches(walk: list[Operation]) -> list[list[Operation]]:
    """The longest runs of operations that have nodes, of those with neurons among them."""
    found: list[list[Operation]] = [[]]
    for operation in walk:
        if operation.node is None:
            found.append([])
        else:
            found[-1].append(operation)
    return [run for run in found if any(operation.node == "LIF" for operation in run)]


def _egru(config: Mapping[str, Any]) -> Iterator[Operation]:
    for layer in range(len(config["hidden_sizes"])):
        place = f"layers.{layer}"
        yield _matrix(f"{place}.input", config["spiketrain"]["weights"]["input"], "Affine")
        yield Operation(place, "gates: products of sigmoid, tanh and cell, events with values")
    if config["projection"]:
        yield _matrix("projection", config["spiketrain"]["weights"]["head"], "Affine")
    yield _matrix("head", config["spiketrain"]["weights"]["head"], "Affine")


def _spikegpt(config: Mapping[str, Any]) -> Iterator[Operation]:
    position = config.get("neuron_position", "residual")
    body = config["spiketrain"]["weights"]["body"]
    yield Operation("blocks.0.ln0", LAYER_NORM)
    for i in range(config["num_hidden_layers"]):
        block = f"blocks.{i}"
        yield Operation(f"{block}.ln1", LAYER_NORM)
        if i == 0 and config.get("pre_ffn", False):
            yield from _channel_mix(f"{block}.ffnPre", position)
        else:
            if position == "projections":
                yield Operation(f"{block}.att.rkv", "spike counts floor(|x| / (scale mean|x|))")
            yield Operation(f"{block}.att", "WKV: exponentials, a quotient, times sigmoid(r)")
            yield _matrix(f"{block}.att.output", body)
        if position == "residual":
            yield Operation(f"{block}.lif1", "LIF units with a hard reset", "LIF")
        yield Operation(f"{block}.ln2", LAYER_NORM)
        yield from _channel_mix(f"{block}.ffn", position)
        if position == "residual":
            yield Operation(f"{block}.lif2", "LIF units with a hard reset", "LIF")
    yield Operation("ln_out", LAYER_NORM)
    yield _matrix("head", config["spiketrain"]["weights"]["head"])


def _channel_mix(place: str, position: str) -> Iterator[Operation]:
    if position == "projections":
        yield Operation(f"{place}.kr", "spike counts floor(|x| / (scale mean|x|))")
    yield Operation(place, "squares of ReLUs, and products with sigmoid(r)")


def _spikingbrain(config: Mapping[str, Any]) -> Iterator[Operation]:
    windows = set(config["attn_layers"]) | set(config.get("full_attn_layers", ()))
    for i in range(config["num_hidden_layers"]):
        layer = f"layers.{i}"
        yield Operation(f"{layer}.attn_norm", RMS_NORM)
        if config.get("spikes", False):
            yield Operation(f"{layer}.attn.spikes", "spike counts round(k x / mean|x|)")
        if config.get("parallel", False) or i not in windows:
            yield Operation(f"{layer}.attn", "gated linear attention: products of keys and values")
        if config.get("parallel", False) or i in windows:
            yield Operation(f"{layer}.attn", "window attention: softmax of products of signals")
        yield Operation(f"{layer}.mlp_norm", RMS_NORM)
        yield Operation(f"{layer}.mlp", "SwiGLU: product of two signals")
    yield Operation("norm", RMS_NORM)
    yield _matrix("lm_head", config["spiketrain"]["weights"]["head"])


def _matrix(place: str, weights: str, node: str = "Linear") -> Operation:
    """A matrix of floats has a node; integer codes come with a rounding of inputs or of events."""
    if weights in ("float32", "bfloat16"):
        return Operation(place, "a matrix", node)
    return Operation(place, ROUNDED.format(weights=weights))


_FAMILIES: dict[str, Callable[[Mapping[str, Any]], Iterator[Operation]]] = {
    "egru": _egru,
    "spikegpt": _spikegpt,
    "spikingbrain": _spikingbrain,
}
