"""Teachers: a finished run, or a Hugging Face Llama, Qwen2 or Qwen3."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spiketrain.lm.checkpoint import read_settings
from spiketrain.lm.conversion.transformer import from_transformer
from spiketrain.lm.shards import Shards
from spiketrain.training.build import build_model
from spiketrain.training.config import ConfigError, TrainConfig
from spiketrain.training.encoder import folder_encoder
from spiketrain.training.run_folder import load_tensors

CONTEXT = 4096  # tokens that the attention of a directory's model sees at most


def load_teacher(folder: Path, family: str | None = None, context: int = CONTEXT) -> Any:
    """The model in `folder`; a run must be of `family` if one is given.

    context: see `directory_model`.  Raises ConfigError where there is no such model.
    """
    return run_model(folder, family) if is_run(folder) else directory_model(folder, context)


def is_run(folder: Path) -> bool:
    """Whether this is a run of `spiketrain train`, finished or not."""
    return (folder / "checkpoint.pt").is_file()


def run_model(run: Path, family: str | None = None) -> Any:
    """The model that the finished run ended with."""
    weights = run_weights(run)
    stored = run / "config.json"
    try:
        config = TrainConfig.model_validate_json(stored.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{stored}: must be a run's recipe, got {error}") from error
    actual = config.model.get("family")
    if family is not None and actual != family:
        raise ConfigError(f"teacher must be a run of family {family!r}, {run} is {actual!r}")
    model = build_model(config, folder_encoder(run).vocab_size)
    model.load_state_dict(weights)
    return model


def run_weights(run: Path) -> dict[str, Tensor]:
    """The weights that the finished run in `run` ended with; ConfigError when there are none."""
    try:
        content = load_tensors(run / "checkpoint.pt", torch.device("cpu"))
        weights: dict[str, Tensor] = content["model"]
    except (ConfigError, KeyError) as error:
        raise ConfigError(f"teacher must be a finished run, {run}: {error}") from error
    return weights


def directory_model(folder: Path, context: int = CONTEXT) -> Any:
    """The model of a Hugging Face directory; its attention sees `context` tokens at most."""
    try:
        settings = read_settings(folder)
        most = settings.get("max_position_embeddings")
        seen = min(most, context) if isinstance(most, int) else None
        return from_transformer(Shards(folder), settings, seen)
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}") from error
