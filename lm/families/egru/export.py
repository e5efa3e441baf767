"""EGRU Model -> config and tensors of the runtime package."""

from typing import Any

import numpy as np
from torch import Tensor

from spiketrain.lm.families.egru.model import Model
from spiketrain.lm.package_tensors import package_of, spec_of
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.families.egru.spec import FORMATS as WEIGHT_FORMATS

_NAMES = (  # ends of a package's names, of a model's, and whether a matrix is (outputs, inputs)
    (".input.weight", ".kernel", False),
    (".input.bias", ".bias", False),
    (".recurrent.weight", ".recurrent_kernel", False),
    (".recurrent.bias", ".recurrent_bias", False),
    ("embedding.weight", "embeddings.weight", False),
    ("head.weight", "head.weight", True),
    ("projection.weight", "projection.weight", True),
)


def to_runtime(
    model: Model, weights: str, head: str | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Config and tensors of the runtime package, all weights input-major.

    weights: of WEIGHT_FORMATS, int8 with one scale per output; head: nothing else.  Raises
    SpiketrainError.
    """
    if head not in (None, weights):
        raise SpiketrainError(f"head must be {weights} as all of an EGRU's weights, got {head}")
    spec = spec_of(model.config.statement, model.config, weights=weights)
    return package_of(spec, weights, lambda name: _parameter(model, name))


def _parameter(model: Model, name: str) -> Tensor:
    """The parameter of a tensor of the package; matrices (inputs, outputs)."""
    for end, ours, transposed in _NAMES:
        if name.endswith(end):
            value: Tensor = model.get_parameter(name.removesuffix(end) + ours)
            return value.t() if transposed else value
    value = model.get_parameter(name)
    return value.clamp(0.0, 1.0) if name.endswith(".threshold") else value


__all__ = ["WEIGHT_FORMATS", "to_runtime"]
