"""Flags that several kinds of source have."""

from pathlib import Path
from typing import Annotated

from spiketrain.commands.convert.flag import Option
from spiketrain.commands.convert.rules import (
    above_up_to,
    at_least,
    between,
    number_of_bytes,
    one_of,
)

MAX_DIAL = 16.0  # as MAX_DIAL in spiketrain.runtime.dial, which is not imported for --help
MAX_SILENT = 0.98  # as MAX_QUIET in spiketrain.lm.conversion.sparsity, which imports torch
SPARSITY_HELP = (
    "Share of inputs that are 0 after calibration; default: what rounding leaves. gru-to-egru and"
    " rwkv-to-spikegpt: share of zero outputs, by default 0.85."
)
SPARSITY_IS_FOR = (
    "needs --recipe, or of a SpikingBrain --calib with --target-sparsity or --max-dial"
)
NEEDS_PUBLISHED = "needs a published SpikingBrain directory"
_NEEDS_PARTS = "needs a published SpikingBrain directory or a GGUF file"

Calib = Annotated[
    Path | None,
    Option(help="The text that thresholds are set and dials measured on.", not_for=SPARSITY_IS_FOR),
]
InputSparsity = Annotated[
    float | None,
    Option(help=SPARSITY_HELP, rule=between(0, MAX_SILENT), not_for=SPARSITY_IS_FOR),
]
OutputSparsity = Annotated[
    float | None, Option(help=SPARSITY_HELP, rule=between(0, 1), not_for=SPARSITY_IS_FOR)
]
MaxDial = Annotated[
    float | None,
    Option(
        help="How far requests may raise the thresholds of spike counts; above 1.",
        rule=above_up_to(1, MAX_DIAL),
        not_for="needs spike counts before matrices",
    ),
]
FoldProjection = Annotated[
    bool,
    Option(
        help="Of an EGRU: multiply the projection into the head, which then skips rows.",
        not_for="needs an EGRU with a projection",
    ),
]
WindowCache = Annotated[
    str | None,
    Option(
        help="Of a SpikingBrain: float32, bfloat16 or int8 keys and values.",
        rule=one_of("float32", "bfloat16", "int8"),
        not_for="is for SpikingBrain",
    ),
]
WindowKeys = Annotated[
    int | None,
    Option(
        help="Keys that a query sees; default: the window + 1, all of the context of a GGUF file.",
        rule=at_least(1),
        not_for=_NEEDS_PARTS,
    ),
]
MaxMemory = Annotated[
    str | None,
    Option(
        help="Refuse a conversion that needs more memory than this, such as 4G.",
        rule=number_of_bytes,
        not_for=_NEEDS_PARTS,
    ),
]
Resume = Annotated[
    bool,
    Option(
        spelling="--resume",
        help="Go on where an attempt was cut off.",
        not_for=_NEEDS_PARTS,
        of_attempt=True,
    ),
]
DryRun = Annotated[
    bool, Option(spelling="--dry-run", help="Read and check the source; write nothing.")
]
