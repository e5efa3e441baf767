"""What `spiketrain eval ppl` does with two models: --baseline, and --parity of the two backends."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spiketrain.commands.eval.models import open_checkpoint, open_package
from spiketrain.commands.model_argument import NO_DIAL

if TYPE_CHECKING:
    from spiketrain.evaluation.comparison import Comparison
    from spiketrain.evaluation.protocols import Settings
    from spiketrain.evaluation.sources import Source


def open_parity(
    model: str,
    checkpoint: Path | None,
    in_torch: bool,
    threads: int,
    table_bytes: int,
    dial: float,
) -> tuple[Any, Any, Any]:
    """Two models of the same weights, the one that MODEL names first, and a tokenizer or None.

    MODEL is a package beside its checkpoint, or (in torch) a checkpoint that becomes a float32
    package in a temporary directory.
    """
    if in_torch == (checkpoint is not None):
        rule = "names the checkpoint of a package: give it unless --backend torch has one"
        raise typer.BadParameter(rule, param_hint="--checkpoint")
    if checkpoint is not None:
        package, tokenizer = open_package(model, threads, table_bytes, dial)
        torch_model, own = open_checkpoint(checkpoint, dial)
        return package, torch_model, own if tokenizer is None else tokenizer
    torch_model, tokenizer = open_checkpoint(Path(model), dial)
    from spiketrain.lm.export import export_model

    with tempfile.TemporaryDirectory() as folder:
        most = dial if dial > NO_DIAL else None
        export_model(torch_model.torch, Path(folder) / "package", max_dial=most)
        package, _ = open_package(str(Path(folder) / "package"), threads, table_bytes, dial)
    return torch_model, package, tokenizer


def compare(
    model: Any,
    baseline: Any,
    tokenizers: tuple[Any, Any],
    source: Source,
    settings: Settings,
    limit: int | None,
    batch: int,
    lines: Path | None,
    resume: bool,
) -> Comparison:
    """Token by token with one tokenizer, else document by document, which allows no limit."""
    from spiketrain.evaluation.comparison import compare_documents, compare_tokens
    from spiketrain.runtime.errors import DataError

    if tokenizers[0].hash == tokenizers[1].hash:
        return compare_tokens(
            model, baseline, tokenizers[0], source, settings, limit, batch, lines, resume
        )
    if limit is not None:
        raise DataError(f"limit must be left out where tokenizers differ, got {limit}")
    prefix = settings.prefix
    if prefix is not None:
        prefix = baseline.eos_token_ids[0] if baseline.eos_token_ids else None
    second = replace(source, on_progress=None)
    both = (settings, replace(settings, prefix=prefix))
    return compare_documents(
        model, baseline, tokenizers, (source, second), both, batch, lines, resume
    )


def print_comparison(found: Comparison, names: tuple[str, str]) -> None:
    """The comparison for people, on stdout."""
    from rich.console import Console
    from rich.table import Table

    low, high = found.difference_low, found.difference_high
    interval = "no interval from one unit"
    if low is not None and high is not None:
        interval = f"95 % interval {low:+.5f} to {high:+.5f}"
    table = Table(show_header=False, title=f"{names[0]} against {names[1]}")
    rows = {
        "bits per byte": f"{found.bits_per_byte:.5f}, baseline {found.baseline_bits_per_byte:.5f}",
        "difference": f"{found.difference_bits_per_byte:+.5f} bits per byte, {interval}, "
        f"{found.interval_count:,} {found.interval_over} paired",
        "tokens, bytes": f"{found.tokens:,}, {found.bytes:,}",
        "KL divergence": _with_error(found.kl_divergence, found.kl_standard_error, " nats"),
        "same top 1": _with_error(found.same_top_1, found.same_top_1_standard_error, " of tokens"),
        "largest difference": "needs one tokenizer"
        if found.largest_nll_difference is None
        else f"{found.largest_nll_difference:.3g} nats, of token {found.largest_at:,}",
        "protocol": found.protocol_text,
        "model": found.fingerprint,
        "baseline": found.baseline_fingerprint,
        "tokenizer": found.tokenizer_hash,
        "text": found.data_hash,
    }
    if found.baseline_tokenizer_hash != found.tokenizer_hash:
        rows["baseline's tokenizer"] = found.baseline_tokenizer_hash
    for name, value in rows.items():
        table.add_row(name, value)
    Console(width=None if sys.stdout.isatty() else 110).print(table, markup=False)


def _with_error(value: float | None, error: float | None, unit: str) -> str:
    if value is None:
        return "needs one tokenizer"
    return f"{value:.6f}{unit}" + ("" if error is None else f" ± {error:.6f} (standard error)")
