"""Open a checkpoint as a Model: a Hugging Face directory, or a family's official files.

Never unpickles code: safetensors, or torch.load with weights_only.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

import spiketrain.lm.families
from spiketrain.lm.export import family_module
from spiketrain.lm.imported import Imported
from spiketrain.lm.shards import Shards
from spiketrain.runtime.errors import SpiketrainError

SUFFIXES = (".cpt", ".pt", ".pth")


class CheckpointError(SpiketrainError):
    """A checkpoint that cannot be read; the message names file, field, rule and value."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a checkpoint cannot say of itself, see spiketrain.lm.families.spikegpt.upstream.

    semantics: of an official SpikeGPT or RWKV-4 file; None is "spikegpt".  choices: config fields
    of another revision.  rescaled: a Hugging Face RWKV-4 was saved after a pass in evaluation.
    window_keys, down_proj: of a published SpikingBrain, see
    spiketrain.lm.families.spikingbrain.upstream.
    """

    semantics: str | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)
    rescaled: bool = False
    window_keys: int | None = None
    down_proj: str | None = None

    def refuse(self, *names: str) -> None:
        """ValueError for the first of these fields that is given: it would be ignored."""
        for name in names:
            value = getattr(self, name)
            if value:
                raise ValueError(
                    f"{name} says nothing about this kind of checkpoint, got {value!r}"
                )


_OF_RWKV = ("semantics", "choices", "rescaled")
_OF_SPIKINGBRAIN = ("window_keys", "down_proj")


def load_checkpoint(path: Path) -> PreTrainedModel:
    """The model in `path`, in evaluation mode; see `read_checkpoint`."""
    return read_checkpoint(path).model


def read_checkpoint(path: Path, meaning: Meaning | None = None) -> Imported:
    """The model in `path`, in evaluation mode, and what was decided about it.

    A directory with config.json and safetensors: one of ours, Hugging Face's RWKV-4, or a published
    SpikingBrain.  Or an official file: EGRU (.cpt, .pt) with its config.yaml beside it, SpikeGPT or
    RWKV-4 (.pth).  Raises CheckpointError.
    """
    meaning = meaning or Meaning()
    try:
        if path.is_dir():
            return _read_directory(path, meaning)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file or directory")
        if path.suffix not in SUFFIXES:
            raise CheckpointError(f"{path}: suffix must be .cpt, .pt or .pth, got {path.suffix!r}")
        return _read_official(path, meaning)
    except ValueError as error:
        if isinstance(error, SpiketrainError):
            raise
        raise CheckpointError(f"{path}: {error}") from error


def _read_official(path: Path, meaning: Meaning) -> Imported:
    tensors, settings = None, None
    if path.suffix != ".pth":  # an EGRU file is known by its settings
        names = (path.with_suffix(".config.yaml"), path.parent / "config.yaml")
        settings = next((name for name in names if name.is_file()), None)
    meaning.refuse(*_OF_SPIKINGBRAIN)
    if settings is None:
        tensors = _read_tensors(path)
        spikegpt = family_module("spikegpt")
        if spikegpt.is_upstream(tensors):
            meaning.refuse("rescaled")
            semantics = meaning.semantics or "spikegpt"
            found: Imported = spikegpt.from_upstream(tensors, semantics, meaning.choices)
            return found
        if path.suffix == ".pth":
            raise CheckpointError(
                f"{path}: emb.weight and ln_out.weight are missing, so it is neither SpikeGPT "
                "nor RWKV-4"
            )
        raise CheckpointError(f"{path}: needs {path.stem}.config.yaml or config.yaml beside it")
    meaning.refuse(*_OF_RWKV)
    egru = family_module("egru")
    return Imported(egru.from_upstream(_read_tensors(path), settings.read_text("utf-8")).eval())


def _read_directory(path: Path, meaning: Meaning) -> Imported:
    settings = path / "config.json"
    config = read_settings(path)
    family = config.get("model_type")
    found: Imported
    if family == "rwkv":
        meaning.refuse("semantics", "choices", *_OF_SPIKINGBRAIN)
        tensors = _read_shards(path)
        found = family_module("spikegpt").from_hugging_face(tensors, config, meaning.rescaled)
        return found
    meaning.refuse(*_OF_RWKV)
    if family == "gla_swa":
        found = family_module("spikingbrain").from_upstream(
            Shards(path), config, meaning.window_keys, meaning.down_proj
        )
        return found
    meaning.refuse(*_OF_SPIKINGBRAIN)
    if family not in spiketrain.lm.families.NAMES:
        known = ("rwkv", "gla_swa", *spiketrain.lm.families.NAMES)
        also = "; a Llama, Qwen2 or Qwen3 needs --recipe transformer-to-spiking"
        hint = also if family in ("llama", "qwen2", "qwen3") else ""
        raise CheckpointError(
            f"{settings}: model_type must be one of {known}, got {family!r}{hint}"
        )
    try:
        model = family_module(family).Model.from_pretrained(path, use_safetensors=True)
    except Exception as error:  # transformers and safetensors raise many kinds
        raise CheckpointError(f"{path}: {error}") from error
    return Imported(model.eval())


def read_settings(folder: Path) -> dict[str, Any]:
    """The config.json of a Hugging Face directory; CheckpointError unless it is an object."""
    settings = folder / "config.json"
    try:
        config = json.loads(settings.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"got {type(config).__name__}")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{settings}: must be a JSON object, {error}") from error
    return config


def is_sharded_spikingbrain(path: Path) -> bool:
    """Whether `path` is a published SpikingBrain directory, which may be larger than memory."""
    settings = path / "config.json"
    return settings.is_file() and read_settings(path).get("model_type") == "gla_swa"


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a file that torch.save wrote."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise CheckpointError(f"{path}: not a readable checkpoint of tensors: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(x, Tensor) for x in tensors.values()):
        raise CheckpointError(f"{path}: must hold tensors by name and nothing else")
    return tensors


def _read_shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a Hugging Face directory: *.safetensors, else pytorch_model*.bin."""
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin")):
        tensors |= _read_safetensors(file) if file.suffix == ".safetensors" else _read_tensors(file)
    if not tensors:
        raise CheckpointError(f"{folder}: has no *.safetensors and no pytorch_model*.bin")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:  # safetensors has its own kinds
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error
    return tensors
