"""Open a checkpoint as a Model: a Hugging Face directory, or a family's official files.

Never unpickles code: safetensors, or torch.load with weights_only.
"""

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

import lm.families
from lm.export import family_module
from runtime.errors import SpiketrainError


class CheckpointError(SpiketrainError):
    """A checkpoint that cannot be read; the message names file, field, rule and value."""


def load_checkpoint(path: Path) -> PreTrainedModel:
    """The model in `path`, in evaluation mode.

    A directory with config.json and model.safetensors, or an official EGRU checkpoint (.cpt, .pt)
    with its config.yaml beside it.  Raises CheckpointError.
    """
    if path.is_dir():
        return _load_directory(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file or directory")
    if path.suffix not in (".cpt", ".pt"):
        raise CheckpointError(f"{path}: suffix must be .cpt or .pt, got {path.suffix!r}")
    settings = next(
        (p for p in (path.with_suffix(".config.yaml"), path.parent / "config.yaml") if p.is_file()),
        None,
    )
    if settings is None:
        raise CheckpointError(f"{path}: needs {path.stem}.config.yaml or config.yaml beside it")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise CheckpointError(f"{path}: not a readable checkpoint of tensors: {error}") from error
    try:
        return family_module("egru").from_upstream(tensors, settings.read_text("utf-8")).eval()
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _load_directory(path: Path) -> PreTrainedModel:
    settings = path / "config.json"
    try:
        family = json.loads(settings.read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{settings}: must be a JSON object, {error}") from error
    if family not in lm.families.NAMES:
        raise CheckpointError(
            f"{settings}: model_type must be one of {lm.families.NAMES}, got {family!r}"
        )
    try:
        model = family_module(family).Model.from_pretrained(path, use_safetensors=True)
    except Exception as error:  # transformers and safetensors raise many kinds
        raise CheckpointError(f"{path}: {error}") from error
    return model.eval()
