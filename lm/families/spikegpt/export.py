"""SpikeGPT Model -> config and tensors of the runtime package."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiketrain.lm.families.spikegpt.model import Model
from spiketrain.lm.package_tensors import package_of, spec_of
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.families.spikegpt.spec import HEADS, Spec

WEIGHT_FORMATS = tuple(HEADS)
_SIDE_BY_SIDE = {  # matrices that read the same spikes, and the unit that sends these
    ".rkv": (("receptance", "key", "value"), "spikes"),
    ".kr": (("key", "receptance"), "spikes"),
}


def to_runtime(
    model: Model, weights: str, head: str | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Config and tensors of the runtime package, all weights input-major.

    weights: format of the blocks' matrices, see WEIGHT_FORMATS; head: that of the head, the same
    unless told, one of floats only with floats.  Of a binary embedding its bits are kept.
    Raises SpiketrainError on a model with `rescale`: the runtime has the arithmetic that weights
    were fitted with, not the inference script's.
    """
    config = model.config
    if config.rescale:
        raise SpiketrainError(f"rescale must be 0 to be converted, got {config.rescale}")
    spec = spec_of(
        config.statement,
        config,
        embedding=Spec.embedding_format(config.binary_embedding, weights),
        body=weights,
        head=weights if head is None else head,
    )
    return package_of(spec, weights, lambda name: _parameter(model, name))


def _parameter(model: Model, name: str) -> Tensor:
    """The parameter of a tensor of the package; matrices (inputs, outputs)."""
    place, _, what = name.rpartition(".")
    for end, (parts, unit) in _SIDE_BY_SIDE.items():
        if place.endswith(end):
            mix = place.removesuffix(end)
            if what == "threshold_scale":
                return model.get_parameter(f"{mix}.{unit}.threshold_scale")
            weights = [model.get_parameter(f"{mix}.{part}.weight") for part in parts]
            return torch.cat([weight.to(torch.float32) for weight in weights]).t()
    if what == "threshold_scale":
        return model.get_parameter(f"{place}_spikes.threshold_scale")
    if place == "embedding":
        return model.emb.weight
    value: Tensor = model.get_parameter(name)
    return value.t() if value.ndim == 2 else value
