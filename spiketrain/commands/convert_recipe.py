"""`spiketrain convert --recipe`: an artificial network becomes a spiking one, step by step."""

import json
from pathlib import Path
from typing import Any

import typer

MOST_RATES = 4  # that the table lists one by one


def convert_by_recipe(
    recipe: str,
    teacher: Path,
    calibration: Path | None,
    measure: Path | None,
    target_sparsity: float | None,
    variant: str | None,
    fine_tune: Path | None,
    overrides: list[str],
    folder: Path,
    weights: str,
) -> tuple[Any, dict[str, bytes | Path], dict[str, Any]]:
    """The spiking model, its package's files (report.json) and the codes of its matrices, if any.

    The steps are printed as a table.  Firing rates are calibrated into [0.8, 1] times what
    target_sparsity leaves; of a Transformer's copy, to it, and not at all without one.
    """
    if calibration is None:
        raise typer.BadParameter("a recipe needs a text to calibrate on", param_hint="--calib")
    of_transformer = recipe == "transformer-to-spiking"
    if target_sparsity is None and not of_transformer:
        target_sparsity = 0.85
    from spiketrain.training.conversion import Conversion, convert_run

    high = 1.0 - (target_sparsity or 0.0)
    asked = Conversion(
        recipe, teacher, calibration, measure or calibration, 0.8 * high, high, variant,
        fine_tune, tuple(overrides),
    )  # fmt: skip
    codes: dict[str, Any] = {}
    if of_transformer:
        from spiketrain.training.transformer_conversion import convert_transformer

        made = convert_transformer(asked, target_sparsity, weights, folder)
        model, report, codes = made.model, made.report, made.codes
    else:
        model, report = convert_run(asked, folder)
    _print(report)
    return model, {"report.json": (json.dumps(report, indent=1) + "\n").encode()}, codes


def _print(report: dict[str, Any]) -> None:
    """The steps, on stderr: results of a conversion are its package."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{report['recipe']}, {report['variant']}, measured on {report['measured_on']}"
    )
    for name in ("step", "parameters", "bits per byte", "token perplexity", "firing rates"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for stage in report["stages"]:
        table.add_row(
            stage["stage"],
            f"{stage['parameters']:,}",
            f"{stage['bits_per_byte']:.4f}",
            f"{stage['token_perplexity']:.2f}",
            _rates(stage["firing_rates"]),
        )
    Console(stderr=True).print(table)


def _rates(rates: list[float]) -> str:
    """Firing rates of layers, or the mean and the range of many."""
    if len(rates) <= MOST_RATES:
        return ", ".join(f"{100 * rate:.1f} %" for rate in rates)
    mean = sum(rates) / len(rates)
    return f"{100 * mean:.1f} % ({100 * min(rates):.1f} to {100 * max(rates):.1f} %)"
