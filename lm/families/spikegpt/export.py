"""SpikeGPT Model -> config and tensors of the runtime package."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spiketrain.lm.families.spikegpt.mixes import ChannelMix, TimeMix
from spiketrain.lm.families.spikegpt.model import Model
from spiketrain.lm.families.spikegpt.neurons import Spikes
from spiketrain.lm.quantize import (
    bits_of_bfloat16,
    fits_bfloat16,
    quantize_int4_inputs,
    quantize_int4_outputs,
    quantize_int8,
)
from spiketrain.runtime.errors import SpiketrainError

WEIGHT_FORMATS = ("float32", "bfloat16", "int8", "int4")
_EVENTS = {"float32": "float32", "bfloat16": "float32", "int8": "fixed16", "int4": "fixed12"}
_FLOATS = ("float32", "bfloat16")
_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "pre_ffn",
    "binary_embedding",
    "rescale",
    "neuron_position",
    "lif_tau",
    "lif_threshold",
    "layer_norm_eps",
)


def to_runtime(
    model: Model, weights: str, head: str | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Config and tensors of the runtime package, all weights input-major.

    weights: format of the blocks' matrices, see WEIGHT_FORMATS; head: that of the head, the same
    unless told, one of floats only with floats.  Of a binary embedding its bits are kept.
    Raises SpiketrainError on a model with `rescale`: the runtime has the arithmetic that weights
    were fitted with, not the inference script's.
    """
    cfg = model.config
    if cfg.rescale:
        raise SpiketrainError(f"rescale must be 0 to be converted, got {cfg.rescale}")
    head = weights if head is None else head
    writer = _Writer(weights, cfg.neuron_position == "projections")
    writer.embedding(model.emb.weight, cfg.binary_embedding)
    writer.norm("blocks.0.ln0", model.blocks[0].ln0)
    writer.norm("ln_out", model.ln_out)
    for index, block in enumerate(model.blocks):
        for number, name in ((1, block.first), (2, "ffn")):
            writer.norm(f"blocks.{index}.ln{number}", getattr(block, f"ln{number}"))
            writer.mix(f"blocks.{index}.{name}", getattr(block, name))
            if block.fires:
                lif = getattr(block, f"lif{number}")
                writer.vector(f"blocks.{index}.lif{number}.threshold", lif.threshold)
                writer.vector(f"blocks.{index}.lif{number}.scale", lif.scale)
    spikes = getattr(model, "head_spikes", None)
    writer.matrix("head", [model.head], head, by_rows=spikes is not None, spikes=spikes)
    config = {
        "model_type": "spikegpt",
        "architectures": ["SpikeGPTForCausalLM"],
        **{name: getattr(cfg, name) for name in _FIELDS},
        "spiketrain": {
            "format_version": 1,
            "weights": {"embedding": writer.embedding_format, "body": weights, "head": head},
            "events": "counts" if spikes is not None else _EVENTS[weights],
            "fidelity": writer.fidelity,
        },
    }
    return config, {name: value.contiguous().numpy() for name, value in writer.tensors.items()}


class _Writer:
    """Tensors of a package under their names."""

    def __init__(self, weights: str, driven: bool) -> None:
        self.weights, self.driven = weights, driven
        self.tensors: dict[str, Tensor] = {}
        self.embedding_format = "bits"
        self.fidelity = "exact" if weights in _FLOATS else "integer"

    def vector(self, name: str, value: Tensor) -> None:
        """A float32 vector."""
        self.tensors[name] = value.detach().to(torch.float32).flatten().clone()

    def norm(self, name: str, norm: nn.LayerNorm) -> None:
        """Weight and bias of a LayerNorm."""
        self.vector(f"{name}.weight", norm.weight)
        self.vector(f"{name}.bias", norm.bias)

    def embedding(self, weight: Tensor, binary: bool) -> None:
        """Rows by token: bits (the first in the lowest of a byte), int8 codes or float32."""
        if binary:
            bits = np.packbits(weight.detach().numpy() >= 0, axis=1, bitorder="little")
            self.tensors["embedding.weight"] = torch.from_numpy(bits)
            return
        self.embedding_format = self.weights if self.weights in _FLOATS else "int8"
        if self.embedding_format == "int8":
            codes, scale = quantize_int8(weight, dim=1)
            self.tensors["embedding.weight"], self.tensors["embedding.scale"] = codes, scale
        else:
            floats = weight.detach().to(torch.float32)
            self.tensors["embedding.weight"] = self.floats(floats, self.embedding_format)

    def floats(self, weight: Tensor, weights: str) -> Tensor:
        """float32 values, or the bits of bfloat16; what is lost by rounding is remembered."""
        if weights == "float32":
            return weight
        if not fits_bfloat16(weight):
            self.fidelity = "weight-only"
        return bits_of_bfloat16(weight)

    def mix(self, name: str, mix: TimeMix | ChannelMix) -> None:
        """Vectors and matrices of a mix; those that read the same spikes side by side."""
        for key, value in mix.named_parameters(recurse=False):
            self.vector(f"{name}.{key}", value)
        over_time = isinstance(mix, TimeMix)
        names = ("receptance", "key", "value") if over_time else ("key", "receptance")
        last = "output" if over_time else "value"
        if self.driven:
            fused = f"{name}.{'rkv' if over_time else 'kr'}"
            matrices = [getattr(mix, key) for key in names]
            self.matrix(fused, matrices, self.weights, True, mix.spikes)
        else:
            for key in names:
                self.matrix(f"{name}.{key}", [getattr(mix, key)], self.weights)
        spikes = getattr(mix, f"{last}_spikes") if self.driven else None
        by_rows = self.driven or not over_time
        self.matrix(f"{name}.{last}", [getattr(mix, last)], self.weights, by_rows, spikes)

    def matrix(
        self,
        name: str,
        parts: list[nn.Linear],
        weights: str,
        by_rows: bool = False,
        spikes: Spikes | None = None,
    ) -> None:
        """The outputs of `parts` side by side; by_rows: only the rows of events are read."""
        weight = (
            torch.cat([part.weight.detach().to(torch.float32) for part in parts]).t().contiguous()
        )
        if spikes is not None:
            self.vector(f"{name}.threshold_scale", spikes.threshold_scale)
        found: dict[str, Tensor]
        if weights in _FLOATS:
            found = {"weight": self.floats(weight, weights)}
        elif weights == "int8":
            found = dict(zip(("weight", "scale"), quantize_int8(weight), strict=True))
        elif by_rows:
            codes, multiplier, scale = quantize_int4_outputs(weight)
            found = {"weight": codes, "multiplier": multiplier, "scale": scale}
        else:
            found = dict(zip(("weight", "scale"), quantize_int4_inputs(weight), strict=True))
        self.tensors |= {f"{name}.{key}": value for key, value in found.items()}
