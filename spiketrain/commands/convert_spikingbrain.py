"""`spiketrain convert` of a published SpikingBrain directory: part by part, or calibrated."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from spiketrain.commands.convert_dial import NO_TOKENIZER, add_dials
from spiketrain.commands.tokenizer_files import check_tokenizer

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `convert` that concern a published SpikingBrain."""

    source: Path
    target: Path
    weights: str | None
    head: str | None
    window_keys: int | None
    down_proj: str | None
    window_cache: str | None
    max_memory: int | None
    resume: bool
    force: bool
    dry_run: bool
    tokenizer: Path | None
    calib: Path | None
    target_sparsity: float | None
    max_dial: float | None


def memory(text: str | None) -> int | None:
    """Bytes of a number with K, M or G; a usage error for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,12})([KMG]?)B?", text.upper())
    if found is None or int(found[1]) < 1:
        raise typer.BadParameter(
            f"must be a number of bytes such as 4G, got {text}", param_hint="--max-memory"
        )
    return int(found[1]) * UNITS[found[2]]


def convert_published(
    asked: Asked, files: Mapping[str, bytes | Path], provenance: Mapping[str, Any]
) -> None:
    """Write the package; what was decided and how it goes on is told on stderr."""
    from spiketrain.lm.checkpoint import CheckpointError, read_settings
    from spiketrain.lm.families.spikingbrain import Exporter, load_published, upstream_config
    from spiketrain.lm.shards import Held, Shards
    from spiketrain.lm.streaming import Work, check_in_memory, convert_shards, plan
    from spiketrain.runtime.package import check_config

    try:
        shards = Shards(asked.source)
        settings = read_settings(asked.source)
        config, said = upstream_config(settings, shards, asked.window_keys, asked.down_proj)
    except ValueError as error:
        raise CheckpointError(f"{asked.source}: {error}") from error
    weights = asked.weights
    if weights is None:
        own = config.quant_weight_group_size is not None
        weights = "int8" if own else "bfloat16" if shards.half_precision else "float32"
        said += (f"weights {weights}: as they are stored",)
    if not config.spikes and weights in ("int8", "int4"):
        config.spikes = True
        said += (f"spike counts at k {config.spike_k:g} before the blocks' {weights} matrices",)
    check_tokenizer(files, config.vocab_size)
    for line in said:
        typer.echo(f"{asked.source}: {line}", err=True)
    asks = {"--max-dial": asked.max_dial, "--target-sparsity": asked.target_sparsity}
    for flag, value in asks.items():
        if value is not None and not config.spikes:
            rule = f"needs spike counts before matrices, got {value}"
            raise typer.BadParameter(rule, param_hint=flag)
    if asked.calib is not None and asked.tokenizer is None:
        raise typer.BadParameter(NO_TOKENIZER, param_hint="--calib")
    made: dict[str, bytes | Path] = {}
    if "generation_config.json" not in files and config.eos_token_id is not None:
        made["generation_config.json"] = json.dumps({"eos_token_id": config.eos_token_id}).encode()
    tensors: Any = shards
    if asked.calib is not None:
        check_in_memory(shards, asked.max_memory)
    if asked.calib is not None and not asked.dry_run:
        model = load_published(config, shards)  # in memory: text is read with it
        if asked.target_sparsity is not None:
            made |= make_sparse(model, asked.tokenizer, asked.calib, asked.target_sparsity)
            tensors = Held(model.state_dict())
        if asked.max_dial is not None:
            made = add_dials(made, model, asked.tokenizer, asked.calib, asked.max_dial)
    exporter = Exporter(config, tensors, weights, asked.head)
    if asked.window_cache is not None:
        exporter.window_cache = asked.window_cache
    exporter.max_dial = asked.max_dial
    if asked.dry_run:
        check_config(str(asked.target), exporter.package_config(), {**files, **made})
        sizes = plan(exporter, asked.max_memory)
        typer.echo(
            f"{asked.source}: spikingbrain, {len(shards)} tensors, about "
            f"{sum(sizes.values()) / 1e6:,.1f} MB in {len(sizes)} files, the largest "
            f"{max(sizes.values()) / 1e6:,.1f} MB"
        )
        return
    options = {
        "weights": weights,
        "head": asked.head,
        "window_keys": config.window_keys,
        "down_proj": config.down_proj,
        "target_sparsity": asked.target_sparsity,
        "max_dial": asked.max_dial,
        "calib": hashlib.sha256(asked.calib.read_bytes()).hexdigest() if asked.calib else None,
    }
    work = Work(asked.max_memory, asked.resume, asked.force)
    fingerprint = convert_shards(
        exporter, shards, asked.target, options, work, {**files, **made}, provenance,
        lambda line: typer.echo(line, err=True),
    )  # fmt: skip
    if exporter.corrections:
        count = sum(exporter.corrections.values())
        typer.echo(f"{count} weight codes are outside int8 and kept exactly", err=True)
    typer.echo(f"{asked.target}: {fingerprint}")


def make_sparse(
    model: Any, tokenizer: Path | None, calib: Path, sparsity: float
) -> dict[str, bytes | Path]:
    """Set the model's dead zones on a text; what was found is printed and kept in report.json."""
    from spiketrain.lm.conversion.sparsity import calibrate_sparsity
    from spiketrain.training.conversion import calibration_ids

    if tokenizer is None:
        raise typer.BadParameter(NO_TOKENIZER, param_hint="--calib")
    ids = calibration_ids(tokenizer, calib)
    try:
        found = calibrate_sparsity(model, ids, sparsity)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--target-sparsity") from error
    report = {
        "target_sparsity": sparsity,
        "calibrated_on": calib.name,
        "token_perplexity_before": math.exp(found["nats_before"]),
        "token_perplexity": math.exp(found["nats_after"]),
        **found,
    }
    _print(report)
    return {"report.json": (json.dumps(report, indent=1) + "\n").encode()}


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
