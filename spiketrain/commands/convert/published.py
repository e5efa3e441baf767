"""`spiketrain convert` of a published SpikingBrain directory, part by part.

Only a calibration reads the whole model into memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import typer

from spiketrain.commands.convert.checkpoint_options import PublishedSpikingBrain
from spiketrain.commands.convert.dial import NO_TOKENIZER
from spiketrain.commands.convert.flag import flags_of
from spiketrain.commands.convert.package import (
    Draft,
    Files,
    chosen_tokenizer,
    files_along,
    further_files,
    read_text_with,
    report_file,
)
from spiketrain.commands.tokenizer_files import check_tokenizer


@dataclass(frozen=True, kw_only=True)
class Source:
    """The directory: its shards, its config, the format of its weights, what was decided."""

    shards: Any
    config: Any
    weights: str
    decisions: tuple[str, ...]


def convert_published(options: PublishedSpikingBrain) -> None:
    """Write the package; what was decided and how it goes on is told on stderr."""
    files = files_along(options) | further_files(options)
    source = with_spikes(open_source(options))
    check_tokenizer(files, source.config.vocab_size)
    for line in source.decisions:
        typer.echo(f"{options.source}: {line}", err=True)
    check_spikes(options, source.config)
    check_text(options, source)
    files = end_of_text(source.config, files) | files
    tensors, report = source.shards, Files()
    if options.calib is not None and not options.dry_run:
        tensors, report = calibrated(options, source)
    exporter = exporter_of(options, source, tensors)
    if options.dry_run:
        describe(options, source, exporter, files)
    else:
        write(options, source, exporter, files | report)


def open_source(options: PublishedSpikingBrain) -> Source:
    """The directory as it is stored, in the format that the options name or its own."""
    from spiketrain.lm.checkpoint_files import CheckpointError, read_settings
    from spiketrain.lm.families.spikingbrain import upstream_config
    from spiketrain.lm.shards import Shards

    try:
        shards = Shards(options.source)
        config, decisions = upstream_config(
            read_settings(options.source), shards, options.window_keys, options.down_proj
        )
    except ValueError as error:
        raise CheckpointError(f"{options.source}: {error}") from error
    if options.weights is not None:
        return Source(shards=shards, config=config, weights=options.weights, decisions=decisions)
    weights = stored_format(config, shards)
    decisions += (f"weights {weights}: as they are stored",)
    return Source(shards=shards, config=config, weights=weights, decisions=decisions)


def stored_format(config: Any, shards: Any) -> str:
    """The format of weights that the directory has."""
    if config.quant_weight_group_size is not None:
        return "int8"
    return "bfloat16" if shards.half_precision else "float32"


def with_spikes(source: Source) -> Source:
    """The source, with spike counts before matrices of integers."""
    if source.config.spikes or source.weights not in ("int8", "int4"):
        return source
    source.config.spikes = True
    k = source.config.spike_k
    line = f"spike counts at k {k:g} before the blocks' {source.weights} matrices"
    return replace(source, decisions=(*source.decisions, line))


def check_spikes(options: PublishedSpikingBrain, config: Any) -> None:
    """A usage error for an option about spike counts that the model does not make."""
    flags = flags_of(type(options))
    for name in ("max_dial", "target_sparsity"):
        value = getattr(options, name)
        if value is not None and not config.spikes:
            raise flags[name].refusal("needs spike counts before matrices", value)


def check_text(options: PublishedSpikingBrain, source: Source) -> None:
    """A usage error for a text without a tokenizer; the model must fit memory to read a text."""
    from spiketrain.lm.streaming import check_in_memory

    if options.calib is None:
        return
    if chosen_tokenizer(options) is None:
        raise typer.BadParameter(NO_TOKENIZER, param_hint="--calib")
    check_in_memory(source.shards, options.max_memory_bytes)


def end_of_text(config: Any, files: Mapping[str, Any]) -> Files:
    """Sampling defaults with the config's end of text, where no file states one."""
    if "generation_config.json" in files or config.eos_token_id is None:
        return {}
    return {"generation_config.json": json.dumps({"eos_token_id": config.eos_token_id}).encode()}


def calibrated(options: PublishedSpikingBrain, source: Source) -> tuple[Any, Files]:
    """The tensors with dead zones that suit the text, if they are wanted, and the report."""
    from spiketrain.lm.families.spikingbrain import load_published
    from spiketrain.lm.shards import Held

    draft = Draft(model=load_published(source.config, source.shards))
    read_text_with(
        draft,
        chosen_tokenizer(options),
        options.calib,
        sparsity=options.target_sparsity,
        max_dial=options.max_dial,
    )
    sparse = options.target_sparsity is not None
    return Held(draft.model.state_dict()) if sparse else source.shards, report_file(draft.report)


def exporter_of(options: PublishedSpikingBrain, source: Source, tensors: Any) -> Any:
    """What makes the package's tensors, part by part."""
    from spiketrain.lm.families.spikingbrain import Exporter

    exporter = Exporter(source.config, tensors, source.weights, options.head_weights)
    if options.window_cache is not None:
        exporter.window_cache = options.window_cache
    exporter.max_dial = options.max_dial
    return exporter


def describe(
    options: PublishedSpikingBrain, source: Source, exporter: Any, files: Mapping[str, Any]
) -> None:
    """Check the package that would be written, and print its size."""
    from spiketrain.lm.streaming import plan
    from spiketrain.runtime.package import check_config

    check_config(str(options.target), exporter.package_config(), files)
    sizes = plan(exporter, options.max_memory_bytes)
    typer.echo(
        f"{options.source}: spikingbrain, {len(source.shards)} tensors, about "
        f"{sum(sizes.values()) / 1e6:,.1f} MB in {len(sizes)} files, the largest "
        f"{max(sizes.values()) / 1e6:,.1f} MB"
    )


def write(
    options: PublishedSpikingBrain, source: Source, exporter: Any, files: Mapping[str, Any]
) -> None:
    """Write the package; its fingerprint goes to stdout."""
    from spiketrain.lm.streaming import Work, convert_in_parts

    fingerprint = convert_in_parts(
        exporter,
        source.shards,
        options.target,
        attempt_identity(options, source),
        Work(options.max_memory_bytes, options.resume, options.force),
        files,
        options.provenance(),
        lambda line: typer.echo(line, err=True),
    )
    if exporter.corrections:
        count = sum(exporter.corrections.values())
        typer.echo(f"{count} weight codes are outside int8 and kept exactly", err=True)
    typer.echo(f"{options.target}: {fingerprint}")


def attempt_identity(options: PublishedSpikingBrain, source: Source) -> dict[str, Any]:
    """What the tensors depend on beside the source: --resume goes on with the same alone."""
    calib = options.calib
    return {
        "weights": source.weights,
        "head": options.head_weights,
        "window_keys": source.config.window_keys,
        "down_proj": source.config.down_proj,
        "target_sparsity": options.target_sparsity,
        "max_dial": options.max_dial,
        "calib": None if calib is None else hashlib.sha256(calib.read_bytes()).hexdigest(),
    }
