"""Model -> runtime package: the family says its config and tensors, the runtime writes them."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

import spiketrain.lm.families
from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.package import write_package


def export_model(
    model: PreTrainedModel,
    target: Path,
    *,
    weights: str = "float32",
    head: str | None = None,
    files: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    force: bool = False,
    codes: Mapping[str, Any] | None = None,
    max_dial: float | None = None,
    window_cache: str | None = None,
) -> str:
    """Write `model` as a package to `target` and return its fingerprint.

    weights: "float32" (fidelity exact), "bfloat16" (exact if nothing is lost, else weight-only), or
    a format of integers (fidelity integer) that the family has; head: that of the head alone.
    files: tokenizer, generation config, report, as name -> content or path.  codes: stored tensors
    by matrix, for a family that takes them.  max_dial: what a sequence's dial may reach.
    window_cache: format of keys and values, of a SpikingBrain, where it is not the usual one.
    Raises SpiketrainError, a ValueError, on a weight format that the family has not, PackageError
    if the target exists and `force` is false.
    """
    family = family_module(model.config.model_type)
    for name, value in (("weights", weights), ("head", weights if head is None else head)):
        if value not in family.WEIGHT_FORMATS:
            raise SpiketrainError(f"{name} must be one of {family.WEIGHT_FORMATS}, got {value!r}")
    chosen = {"codes": codes} if codes else {}
    config, tensors = family.to_runtime(model, weights, head, **chosen)
    if window_cache is not None:
        config["window_cache"] = window_cache
    config["spiketrain"]["provenance"] = dict(provenance or {})
    if max_dial is not None:
        config["spiketrain"]["max_dial"] = max_dial
    return write_package(target, config, tensors, files, force)


def family_module(name: str) -> Any:
    """The module of a family found in the families folder; ValueError names the known ones."""
    if name not in spiketrain.lm.families.NAMES:
        raise ValueError(f"model_type must be one of {spiketrain.lm.families.NAMES}, got {name!r}")
    return importlib.import_module(f"spiketrain.lm.families.{name}")
