"""`spiketrain convert --max-dial`: which models have dials, and what dials do to a text."""

import math
from pathlib import Path
from typing import Any

import typer

HINT = "--max-dial"
NO_TOKENIZER = "needs a tokenizer to read it with"


def check_places(model: Any, most: float | None) -> None:
    """A usage error where the model has no spike counts that a dial could silence."""
    if most is not None and not any(hasattr(module, "dial") for module in model.modules()):
        raise typer.BadParameter(f"needs spike counts before matrices, got {most}", param_hint=HINT)


def measured_dials(
    model: Any, tokenizer: Path | None, calib: Path, most: float
) -> list[dict[str, float]]:
    """What dials up to `most` do to a text: dial, zeros, nats and token perplexity; printed too."""
    from spiketrain.lm.conversion.dial import measure_dials
    from spiketrain.training.conversion import calibration_ids

    if tokenizer is None:
        raise typer.BadParameter(NO_TOKENIZER, param_hint="--calib")
    rows = measure_dials(model, calibration_ids(tokenizer, calib), most)
    rows = [{**row, "token_perplexity": math.exp(row["nats"])} for row in rows]
    _print(rows, calib.name)
    return rows


def _print(rows: list[dict[str, float]], text: str) -> None:
    """Dials with zeros and perplexity, on stderr."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"dials, on {text}")
    for name in ("dial", "zero inputs", "token perplexity"):
        table.add_column(name, justify="right")
    for row in rows:
        zeros, perplexity = f"{100 * row['zeros']:.1f} %", f"{row['token_perplexity']:.3f}"
        table.add_row(f"{row['dial']:.3f}", zeros, perplexity)
    Console(stderr=True).print(table)
