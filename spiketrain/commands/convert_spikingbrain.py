"""`spiketrain convert` of a published SpikingBrain directory: part by part, or calibrated."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

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
    from lm.checkpoint import CheckpointError, read_settings
    from lm.families.spikingbrain import Exporter, upstream_config
    from lm.shards import Shards
    from lm.streaming import Work, convert_shards, plan

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
    for line in said:
        typer.echo(f"{asked.source}: {line}", err=True)
    exporter = Exporter(config, shards, weights, asked.head)
    if asked.window_cache is not None:
        exporter.window_cache = asked.window_cache
    if asked.dry_run:
        sizes = plan(exporter, asked.max_memory)
        typer.echo(
            f"{asked.source}: spikingbrain, {len(shards)} tensors, about "
            f"{sum(sizes.values()) / 1e9:.2f} GB in {len(sizes)} files, the largest "
            f"{max(sizes.values()) / 1e9:.2f} GB"
        )
        return
    options = {
        "weights": weights,
        "head": asked.head,
        "window_keys": config.window_keys,
        "down_proj": config.down_proj,
    }
    work = Work(asked.max_memory, asked.resume, asked.force)
    fingerprint = convert_shards(
        exporter, shards, asked.target, options, work, files, provenance,
        lambda line: typer.echo(line, err=True),
    )  # fmt: skip
    if exporter.corrections:
        count = sum(exporter.corrections.values())
        typer.echo(f"{count} weight codes are outside int8 and kept exactly", err=True)
    typer.echo(f"{asked.target}: {fingerprint}")
