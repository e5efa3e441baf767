"""A model's parameters -> the tensors of its package, along the entries that its Spec states."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiketrain.lm.quantize import fits_bfloat16
from spiketrain.lm.statement import Statement
from spiketrain.lm.stored import stored_matrix, stored_rows
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.formats import FLOATS
from spiketrain.runtime.tensor_table import Array, Embedding, Entry

Parameter = Callable[[str], Tensor]  # name in the package -> values, matrices (inputs, outputs)


def package_of(
    spec: Any, weights: str, parameter: Parameter
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Config and tensors of the package that `spec` describes, from a model in memory.

    weights: the format that its fidelity is told by: floats are exact unless rounding to bfloat16
    loses something, then they are weight-only; codes are integer.
    """
    lost = False
    tensors: dict[str, np.ndarray] = {}
    for part in spec.parts.values():
        for entry in part:
            stored = _stored(entry, parameter)
            tensors |= {name: value.contiguous().numpy() for name, value in stored.items()}
            lost = lost or _loses(entry, parameter)
    real = "weight-only" if lost else "exact"
    return spec.to_config(real if weights in FLOATS else "integer"), tensors


def spec_of(statement: Statement, config: Any, **more: Any) -> Any:
    """The Spec of a config's package; more: what the config does not tell.

    Raises SpiketrainError, a ValueError, naming field, rule and value.
    """
    try:
        return statement.package(**(statement.package_values(config) | more))
    except ValueError as error:
        raise SpiketrainError(str(error)) from None


def _stored(entry: Entry, parameter: Parameter) -> dict[str, Tensor]:
    """The tensors of an entry under their names in the package."""
    if isinstance(entry, Array):
        value = parameter(entry.name).detach().to(torch.float32)
        return {entry.name: value.reshape(entry.shape).clone()}
    weight = parameter(f"{entry.name}.weight")
    if isinstance(entry, Embedding):
        stored = stored_rows(weight, entry.weights)
    else:
        stored = stored_matrix(weight, entry.format)
    named = {f"{entry.name}.{key}": value for key, value in stored.items()}
    for name in entry.stored():  # a bias, a threshold
        if name not in named:
            named[name] = parameter(name).detach().to(torch.float32).flatten().clone()
    return named


def _loses(entry: Entry, parameter: Parameter) -> bool:
    """Whether rounding to bfloat16 changes a value."""
    if isinstance(entry, Array) or entry.weights != "bfloat16":
        return False
    return not fits_bfloat16(parameter(f"{entry.name}.weight"))
