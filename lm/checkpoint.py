"""Open a checkpoint as a Model: a run, a Hugging Face directory, or a family's official files.

Families say which checkpoints of others they read in spiketrain.lm.families.<name>.checkpoints.
"""

import importlib
from functools import cache
from pathlib import Path
from typing import cast

from transformers import PreTrainedModel

import spiketrain.lm.families
from spiketrain.lm.checkpoint_files import CheckpointError, read_settings
from spiketrain.lm.export import family_module
from spiketrain.lm.imported import Imported
from spiketrain.lm.reader import FamilyCheckpoints, Reader
from spiketrain.lm.upstream_choices import UpstreamChoices
from spiketrain.runtime.errors import SpiketrainError

__all__ = [
    "CheckpointError",
    "UpstreamChoices",
    "family_checkpoints",
    "load_checkpoint",
    "read_checkpoint",
    "read_settings",
    "recognise",
]
_TRANSFORMERS = ("llama", "qwen2", "qwen3")  # that a recipe converts


def load_checkpoint(path: Path) -> PreTrainedModel:
    """The model in `path`, in evaluation mode; see `read_checkpoint`."""
    return read_checkpoint(path).model


def read_checkpoint(path: Path, choices: UpstreamChoices | None = None) -> Imported:
    """The model in `path`, in evaluation mode, and what was decided about it.

    path: the folder of a finished run; a directory with config.json and safetensors, one of ours or
    one that a family reads; or an official file.  Raises CheckpointError.
    """
    choices = choices or UpstreamChoices()
    try:
        reader = recognise(path)
        choices.check_taken(reader.taken)
        return reader.read(path, choices)
    except ValueError as error:
        if isinstance(error, SpiketrainError):
            raise
        raise CheckpointError(f"{path}: {error}") from error


def recognise(path: Path) -> Reader:
    """The reader for the kind of checkpoint that `path` is; one that refuses `path` if none is.

    Raises CheckpointError on a file that has to be opened to be known, and is broken.
    """
    if path.is_dir():
        return _RUN if _is_run(path) else _directory_reader(path)
    return _file_reader(path) if path.is_file() else _DIRECTORY


def family_checkpoints(name: str) -> FamilyCheckpoints:
    """What the family `name` adds to reading and converting checkpoints."""
    return cast(
        FamilyCheckpoints, importlib.import_module(f"spiketrain.lm.families.{name}.checkpoints")
    )


@cache
def _readers() -> tuple[Reader, ...]:
    """The readers of all families, in the order of the families' names."""
    return tuple(
        r for name in spiketrain.lm.families.NAMES for r in family_checkpoints(name).READERS
    )


def _directory_reader(path: Path) -> Reader:
    try:
        model_type = read_settings(path).get("model_type")
    except CheckpointError:
        return _DIRECTORY
    return next((r for r in _readers() if model_type in r.model_types), _DIRECTORY)


def _file_reader(path: Path) -> Reader:
    readers = [reader for reader in _readers() if path.suffix in reader.suffixes]
    first = readers[0] if readers else _DIRECTORY
    return next((reader for reader in readers if reader.recognises(path)), first)


def _is_run(path: Path) -> bool:
    return (path / "checkpoint.pt").is_file() and (path / "model").is_dir()


def _read_run(path: Path, choices: UpstreamChoices) -> Imported:
    return read_checkpoint(path / "model", choices)


def _read_directory(path: Path, choices: UpstreamChoices) -> Imported:
    """A directory of ours; CheckpointError for every path that no reader is for."""
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory")
    if not path.is_dir():
        raise CheckpointError(f"{path}: suffix must be {_known_suffixes()}, got {path.suffix!r}")
    family = read_settings(path).get("model_type")
    if family not in spiketrain.lm.families.NAMES:
        known = (
            *(name for r in _readers() for name in r.model_types),
            *spiketrain.lm.families.NAMES,
        )
        also = "; a Llama, Qwen2 or Qwen3 needs --recipe transformer-to-spiking"
        hint = also if family in _TRANSFORMERS else ""
        rule = f"model_type must be one of {known}, got {family!r}{hint}"
        raise CheckpointError(f"{path / 'config.json'}: {rule}")
    try:
        model = family_module(family).Model.from_pretrained(path, use_safetensors=True)
    except Exception as error:  # transformers and safetensors raise many kinds
        raise CheckpointError(f"{path}: {error}") from error
    return Imported(model.eval())


def _known_suffixes() -> str:
    *rest, last = sorted({suffix for reader in _readers() for suffix in reader.suffixes})
    return f"{', '.join(rest)} or {last}"


_RUN = Reader(name="run", read=_read_run)
_DIRECTORY = Reader(name="directory", read=_read_directory)
