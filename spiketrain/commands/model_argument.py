"""The MODEL argument of every subcommand: a package directory, or the bundled model's name."""

from pathlib import Path
from typing import Annotated

import typer

import spiketrain

BUNDLED = "bundled"
ModelArgument = Annotated[
    str, typer.Argument(help="Package directory, or `bundled` for the model that comes along.")
]


def model_directory(model: str) -> Path:
    """Return the directory that MODEL names."""
    return spiketrain.bundled_model() if model == BUNDLED else Path(model)
