"""`spiketrain convert --target-sparsity`: dead zones are set on a text, and reported."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from spiketrain.commands.convert.dial import NO_TOKENIZER


def make_sparse(model: Any, tokenizer: Path | None, calib: Path, sparsity: float) -> dict[str, Any]:
    """Set the model's dead zones on a text; the report of it is printed too."""
    from spiketrain.lm.conversion.sparsity import calibrate_sparsity
    from spiketrain.training.conversion import calibration_ids

    if tokenizer is None:
        raise typer.BadParameter(NO_TOKENIZER, param_hint="--calib")
    ids = calibration_ids(tokenizer, calib)
    try:
        measured = calibrate_sparsity(model, ids, sparsity)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--target-sparsity") from error
    report = {
        "target_sparsity": sparsity,
        "calibrated_on": calib.name,
        "token_perplexity_before": math.exp(measured["nats_before"]),
        "token_perplexity": math.exp(measured["nats_after"]),
        **measured,
    }
    _print(report)
    return report


def _print(report: Mapping[str, Any]) -> None:
    """Places with their zeros, on stderr."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{100 * report['sparsity']:.1f} % of inputs are 0; token perplexity on"
        f" {report['calibrated_on']}: {report['token_perplexity_before']:.3f} before,"
        f" {report['token_perplexity']:.3f} after"
    )
    for name in ("place", "zeros before", "zeros", "dead zone"):
        table.add_column(name, justify="left" if name == "place" else "right")
    for place in report["places"]:
        shares = (f"{100 * place[name]:.1f} %" for name in ("zeros_before", "zeros"))
        table.add_row(place["name"], *shares, f"{place['dead_zone']:.3f}")
    Console(stderr=True).print(table)
