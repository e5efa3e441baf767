"""EGRU Model -> config and tensors of the runtime package."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiketrain.lm.families.egru.model import Model
from spiketrain.lm.quantize import bits_of_bfloat16, fits_bfloat16, quantize_int8
from spiketrain.runtime.errors import SpiketrainError

WEIGHT_FORMATS = ("float32", "bfloat16", "int8")


def to_runtime(
    model: Model, weights: str, head: str | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Config and tensors of the runtime package, all weights input-major.

    weights: "float32", "bfloat16", or "int8" with one scale per output; head: nothing else.  Raises
    SpiketrainError.
    """
    if head not in (None, weights):
        raise SpiketrainError(f"head must be {weights} as all of an EGRU's weights, got {head}")
    cfg = model.config
    tensors: dict[str, Tensor] = {}
    exact = weights != "int8"

    def stored(name: str, weight: Tensor, dim: int) -> None:
        """Weight in its format, int8 with a scale for all values along `dim`."""
        nonlocal exact
        tensors[f"{name}.weight"] = weight.detach().to(torch.float32)
        if weights == "bfloat16":
            exact = exact and fits_bfloat16(weight)
            tensors[f"{name}.weight"] = bits_of_bfloat16(weight)
        elif weights == "int8":
            tensors[f"{name}.weight"], tensors[f"{name}.scale"] = quantize_int8(weight, dim)

    def matrix(name: str, weight: Tensor, bias: Tensor | None) -> None:
        """Weight (I, O), bias (O,)."""
        stored(name, weight, 0)
        if bias is not None:
            tensors[f"{name}.bias"] = bias.detach().to(torch.float32)

    for index, layer in enumerate(model.layers):
        matrix(f"layers.{index}.input", layer.kernel, layer.bias)
        matrix(f"layers.{index}.recurrent", layer.recurrent_kernel, layer.recurrent_bias)
        tensors[f"layers.{index}.threshold"] = layer.threshold.detach().clamp(0.0, 1.0).float()
    if model.projection is not None:
        matrix("projection", model.projection.weight.t(), model.projection.bias)
    matrix("head", model.head.weight.t(), model.head.bias)
    if not cfg.tie_word_embeddings:
        stored("embedding", model.embeddings.weight, 1)
    config = {
        "model_type": "egru",
        "architectures": ["EGRUForCausalLM"],
        "vocab_size": cfg.vocab_size,
        "embedding_size": cfg.embedding_size,
        "hidden_sizes": list(cfg.hidden_sizes),
        "projection": cfg.projection,
        "tie_word_embeddings": cfg.tie_word_embeddings,
        "zoneout": cfg.zoneout,
        "carry": cfg.carry,
        "spiketrain": {
            "format_version": 1,
            "weights": dict.fromkeys(("recurrent", "input", "head", "embedding"), weights),
            "events": "fixed16" if weights == "int8" else "float32",
            "fidelity": "integer" if weights == "int8" else "exact" if exact else "weight-only",
        },
    }
    return config, {name: value.contiguous().numpy() for name, value in tensors.items()}
