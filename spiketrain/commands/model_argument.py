"""The MODEL argument of every subcommand: a package directory, or a bundled model's name.

Beside it what loading a model may take of memory, and the dial of what it reads.
"""

from pathlib import Path
from typing import Annotated

import typer

import spiketrain

BUNDLED = "bundled"
DEFAULT_TABLE_BYTES = 1 << 30  # as in spiketrain.runtime.model, which is not imported for --help
NO_DIAL = 1.0  # as in spiketrain.runtime.dial
TABLE_BYTES_HELP = "Most memory for a table of first products by token, in bytes."
ModelArgument = Annotated[
    str,
    typer.Argument(
        help="Package directory, or one that comes along: `bundled` (stories-egru) or its name."
    ),
]
DialOption = Annotated[
    float, typer.Option(help="Above 1, fewer inputs count; as far as the package says.")
]


def model_directory(model: str) -> Path:
    """Return the directory that MODEL names; one that exists comes before a bundled name."""
    if model == BUNDLED:
        return spiketrain.bundled_model()
    if model in spiketrain.BUNDLED_MODELS and not Path(model).exists():
        return spiketrain.bundled_model(model)
    return Path(model)
