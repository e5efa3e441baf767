"""`spiketrain convert --max-dial`, `--target-sparsity`: ranges, and what dials do to a text."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

HINT = "--max-dial"
NO_TOKENIZER = "needs a tokenizer to read it with"
MOST_DIAL = 16.0  # as in spiketrain.runtime.dial


def check_range(most: float | None, recipe: str | None, variant: str | None) -> None:
    """A usage error for a range that is none, or that a recipe's model cannot have."""
    if most is None:
        return
    if not 1.0 < most <= MOST_DIAL:
        rule = f"must be above 1 and at most {MOST_DIAL:g}, got {most}"
        raise typer.BadParameter(rule, param_hint=HINT)
    driven = recipe == "rwkv-to-spikegpt" and variant == "projections"
    if recipe not in (None, "transformer-to-spiking") and not driven:
        raise typer.BadParameter(f"needs spike counts before matrices, got {most}", param_hint=HINT)


def check_sparsity(sparsity: float | None, most: float) -> None:
    """A usage error for a share of zeros that is not between 0 and `most`."""
    if sparsity is not None and not 0.0 < sparsity < most:
        rule = f"must be between 0 and {most:g}, got {sparsity}"
        raise typer.BadParameter(rule, param_hint="--target-sparsity")


def check_places(model: Any, most: float | None) -> None:
    """A usage error where the model has no spike counts that a dial could silence."""
    if most is not None and not any(hasattr(module, "dial") for module in model.modules()):
        raise typer.BadParameter(f"needs spike counts before matrices, got {most}", param_hint=HINT)


def add_dials(
    made: Mapping[str, bytes | Path], model: Any, tokenizer: Path | None, calib: Path, most: float
) -> dict[str, bytes | Path]:
    """The package's files, report.json with what dials up to `most` do to a text; printed too."""
    from spiketrain.lm.conversion.dial import measure_dials
    from spiketrain.training.conversion import calibration_ids

    if tokenizer is None:
        raise typer.BadParameter(NO_TOKENIZER, param_hint="--calib")
    before = made.get("report.json", b"{}")
    report = json.loads(before if isinstance(before, bytes) else before.read_bytes())
    rows = measure_dials(model, calibration_ids(tokenizer, calib), most)
    report["dials"] = [{**row, "token_perplexity": math.exp(row["nats"])} for row in rows]
    _print(report["dials"], calib.name)
    return {**made, "report.json": (json.dumps(report, indent=1) + "\n").encode()}


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
