"""The files of a run: each file is replaced as a whole, even if its writer is killed."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from spiketrain.runtime.draft_folder import tidy_all
from spiketrain.runtime.durable_files import append_whole, new_file, new_folder, replace_file
from spiketrain.runtime.errors import WriteError
from spiketrain.training.config import ConfigError


class RunFolder:
    """A run's folder, which exists. What writers that were killed left in it is removed first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log.jsonl"
        tidy_all(path)

    def cut_log(self, num_bytes: int) -> None:
        """Keep the first bytes of the log, which is there from now on. Raises WriteError."""
        try:
            self.log.touch()
            os.truncate(self.log, num_bytes)
        except OSError as error:
            raise WriteError.of(self.log, error) from error

    def append(self, record: dict[str, Any]) -> None:
        """Add a line to the log, or nothing at all. Raises WriteError."""
        try:
            with io.FileIO(self.log, "ab") as log:
                append_whole(self.log, log, (json.dumps(record) + "\n").encode())
        except OSError as error:
            raise WriteError.of(self.log, error) from error

    def log_bytes(self) -> int:
        """Size of the log."""
        return self.log.stat().st_size

    def save_checkpoint(self, content: dict[str, Any]) -> None:
        """Replace checkpoint.pt. Raises WriteError; then the one before is intact."""
        save_tensors(self.path / "checkpoint.pt", content)

    def write_json(self, name: str, text: str) -> None:
        """Replace the file `name`. Raises WriteError."""
        replace_file(self.path / name, text.encode())

    def save_model(self, model: Any) -> None:
        """Replace model/, or model.pt of a model that has no directory of its own."""
        if hasattr(model, "save_pretrained"):
            save_pretrained(model, self.path / "model")
        else:
            save_tensors(self.path / "model.pt", model.state_dict())


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """`torch.save` to a file that takes the place of `path`. Raises WriteError."""
    with new_file(path) as stream:
        torch.save(content, stream)


def load_tensors(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save_tensors` wrote. Raises ConfigError, also for a file that holds anything else."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        first = str(error).partition("\n")[0]
        raise ConfigError(f"{path}: must be a readable checkpoint, got {first}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold a dictionary, got {type(content).__name__}")
    return content


def save_pretrained(model: Any, target: Path) -> None:
    """The model's directory, in the place of `target`. Raises WriteError."""
    try:
        with new_folder(target) as folder:
            model.save_pretrained(folder)
    except SafetensorError as error:  # its way to say what the system said
        raise WriteError(f"{target}: must be writable, got {error}") from error
