"""How a GGUF file says that rotation is slowed -> `rope_parameters` of a config.json.

llama.cpp's converter writes Llama 3.1's scaling as one factor for each pair of channels, in the
tensor `rope_freqs.weight`, and no key says which settings the factors came from.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from spiketrain.lm.sources.gguf.container import Container
from spiketrain.lm.sources.gguf.error import Unquoted
from spiketrain.lm.sources.gguf.metadata import Metadata
from spiketrain.runtime.families.spikingbrain.rotary import MOST, check_scaling, frequencies

FACTORS = ("rope_freqs.weight", "blk.0.rope_freqs.weight")  # the second in old files
_MAX_THETA = 1e15
_TOLERANCE = 1e-5
_EDGE = 1e-6  # a pair that is this near to the end of the passage may have been clipped
Float64 = npt.NDArray[np.float64]


def rope_parameters(container: Container, name: str, head_dim: int) -> dict[str, Any]:
    """Hugging Face's `rope_parameters`: theta, and a scaling where the file has any.

    Raises GgufError naming the key or tensor with a scaling that cannot be expressed.
    """
    metadata = container.metadata
    theta = metadata.number(key := f"{name}.rope.freq_base", 10_000.0)
    if not 1.0 <= theta <= _MAX_THETA:
        raise metadata.error(key, f"be from 1 to {_MAX_THETA:g}", theta)
    scaling = _linear(metadata, name)
    tensor = next((tensor for tensor in FACTORS if tensor in container.entries), None)
    if tensor is not None and name == "llama":
        slowed = _from_factors(metadata, tensor, _factors(container, tensor, head_dim), theta)
        if slowed is not None and scaling is not None:
            rule = f"be missing beside {name}.rope.scaling.factor"
            raise metadata.error(tensor, rule, Unquoted("both"))
        scaling = slowed or scaling
    return {"rope_theta": theta, **(scaling or {"rope_type": "default"})}


def _linear(metadata: Metadata, name: str) -> dict[str, Any] | None:
    """Scaling by keys: none, or the same factor for every pair."""
    kind = metadata.text(f"{name}.rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise metadata.error(f"{name}.rope.scaling.type", "be none or linear", kind)
    key = f"{name}.rope.scaling.factor"
    if key not in metadata:
        key = f"{name}.rope.scale_linear"
    factor = metadata.number(key, 0.0)
    if kind == "none" or factor in (0.0, 1.0):
        return None
    scaling = {"rope_type": "linear", "factor": factor}
    try:
        check_scaling(scaling)
    except ValueError as error:
        raise metadata.error(key, "be a factor of rotation", Unquoted(str(error))) from error
    return scaling


def _factors(container: Container, name: str, head_dim: int) -> Float64:
    """The tensor's factors, one for each pair of a head's channels."""
    metadata, entry = container.metadata, container.entries[name]
    if entry.shape != (head_dim // 2,) or entry.format.name != "F32":
        rule = f"have {head_dim // 2} elements in F32"
        raise metadata.error(name, rule, Unquoted(f"{entry.shape} in {entry.format.name}"))
    factors = entry.format.values(container.rows(entry, 0, entry.rows)).ravel().astype(np.float64)
    if not (np.isfinite(factors).all() and (factors > 0.0).all()):
        raise metadata.error(name, "be finite and above 0", Unquoted("other factors"))
    return factors


def _from_factors(
    metadata: Metadata, name: str, factors: Float64, theta: float
) -> dict[str, Any] | None:
    """The scaling that gives these factors; None where all of them are 1."""
    if (factors == 1.0).all():
        return None
    for scaling in _candidates(factors, theta):
        check_scaling(scaling)
        plain = frequencies(theta, len(factors))
        slowed = frequencies(theta, len(factors), scaling)
        if float(np.abs(slowed * factors / plain - 1.0).max()) <= _TOLERANCE:
            return scaling
    raise metadata.error(name, "be the factors of llama3 scaling", Unquoted("other factors"))


def _candidates(factors: Float64, theta: float) -> list[dict[str, Any]]:
    """Scalings that the factors may come from, round numbers first; low_freq_factor is 1.

    Between the ends, the share s of a pair's own frequency is linear in its turns t a token:
    s = (t old - low) / (high - low).  Only the ratios of old, low and high matter.
    """
    factor = float(factors.max())
    if factor <= 1.0:
        return []
    kept = (1.0 / factors - 1.0 / factor) / (1.0 - 1.0 / factor)
    between = (kept > _EDGE) & (kept < 1.0 - _EDGE)
    if between.sum() < 2:
        return []
    turns = frequencies(theta, len(factors)) / (2.0 * math.pi)
    first, last = np.flatnonzero(between)[[0, -1]]
    slope = float((kept[first] - kept[last]) / (turns[first] - turns[last]))
    intercept = float(kept[first] - slope * turns[first])
    if not (slope > 0.0 and intercept < 0.0):
        return []
    high = 1.0 - 1.0 / intercept
    old = slope * (high - 1.0)
    if not max(old, high, factor) <= MOST:
        return []
    return [
        _llama3(factor, old, high)
        for old, high in ((round(old), round(high, 3)), (old, high))
        if old > 0 and high > 1.0
    ]


def _llama3(factor: float, old: float, high: float) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": high,
        "original_max_position_embeddings": old,
    }
