"""The files of a checkpoint: settings as JSON, tensors by name.

No file is unpickled as code: safetensors, or torch.load with weights_only.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from spiketrain.runtime.errors import SpiketrainError
from spiketrain.runtime.json_file import read_json_file


class CheckpointError(SpiketrainError):
    """A checkpoint that cannot be read; the message names file, field, rule and value."""


def read_settings(folder: Path) -> dict[str, Any]:
    """The config.json of a Hugging Face directory; CheckpointError unless it is an object."""
    settings = folder / "config.json"
    try:
        config = read_json_file(settings)
        if not isinstance(config, dict):
            raise ValueError(f"got {type(config).__name__}")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{settings}: must be a JSON object, {error}") from error
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a file that torch.save wrote; CheckpointError for any other content."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise CheckpointError(f"{path}: not a readable checkpoint of tensors: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(x, Tensor) for x in tensors.values()):
        raise CheckpointError(f"{path}: must hold tensors by name and nothing else")
    return tensors


def read_shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a Hugging Face directory: *.safetensors, else pytorch_model*.bin.

    Raises CheckpointError on a folder without such files, or a file that cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin")):
        tensors |= _read_safetensors(file) if file.suffix == ".safetensors" else read_tensors(file)
    if not tensors:
        raise CheckpointError(f"{folder}: has no *.safetensors and no pytorch_model*.bin")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:  # safetensors has its own kinds
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error
    return tensors
