"""Model -> runtime package: the family says its config and tensors, the runtime writes them."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

import lm.families
from runtime.package import write_package

WEIGHT_FORMATS = ("float32", "int8")


def export_model(
    model: PreTrainedModel,
    target: Path,
    *,
    weights: str = "float32",
    files: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    force: bool = False,
) -> str:
    """Write `model` as a package to `target` and return its fingerprint.

    weights: "float32" (fidelity exact) or "int8" (fidelity integer).  files: tokenizer, generation
    config, report, as name -> content or path.  Raises ValueError on an unknown weight format or
    family, PackageError if the target exists and `force` is false.
    """
    if weights not in WEIGHT_FORMATS:
        raise ValueError(f"weights must be one of {WEIGHT_FORMATS}, got {weights!r}")
    config, tensors = family_module(model.config.model_type).to_runtime(model, weights)
    config["spiketrain"]["provenance"] = dict(provenance or {})
    return write_package(target, config, tensors, files, force)


def family_module(name: str) -> Any:
    """The module of a family found in the families folder; ValueError names the known ones."""
    if name not in lm.families.NAMES:
        raise ValueError(f"model_type must be one of {lm.families.NAMES}, got {name!r}")
    return importlib.import_module(f"lm.families.{name}")
