"""`spiketrain convert` of a checkpoint that fits memory."""

from __future__ import annotations

from typing import Any

import typer

from spiketrain.commands.convert.checkpoint_options import (
    CheckpointOptions,
    OfficialEgru,
    OurModel,
)
from spiketrain.commands.convert.dial import check_places
from spiketrain.commands.convert.fold import folded
from spiketrain.commands.convert.package import (
    Draft,
    checked_files,
    chosen_tokenizer,
    read_text_with,
    write_model,
)


def convert_checkpoint(options: CheckpointOptions) -> None:
    """The model as it is read."""
    _write(options, read_model(options))


def convert_official_egru(options: OfficialEgru) -> None:
    """The model as it is read, or with its projection folded into its head."""
    model = read_model(options)
    _write(options, folded(model) if options.fold_projection else model)


def convert_our_model(options: OurModel) -> None:
    """The model with what the options set: folded, dead zones, dials, its window's cache."""
    model = read_model(options)
    check_family(options, model.config.model_type)
    if options.fold_projection:
        model = folded(model)
    check_places(model, options.max_dial)
    draft = Draft(model=model)
    files = checked_files(options, draft)
    read_text_with(
        draft,
        chosen_tokenizer(options),
        options.calib,
        sparsity=options.target_sparsity,
        max_dial=options.max_dial,
    )
    if options.dry_run:
        describe(options, model)
    else:
        write_model(
            options, draft, files, max_dial=options.max_dial, window_cache=options.window_cache
        )


def read_model(options: CheckpointOptions) -> Any:
    """The model of the source; what was decided about it goes to stderr."""
    from spiketrain.lm.checkpoint import read_checkpoint
    from spiketrain.lm.upstream_choices import UpstreamChoices

    imported = read_checkpoint(options.source, UpstreamChoices(**options.upstream_choices()))
    for line in imported.decisions:
        typer.echo(f"{options.source}: {line}", err=True)
    return imported.model


def check_family(options: OurModel, family: str) -> None:
    """A usage error for an option that models of this family do not have."""
    from spiketrain.lm.checkpoint import family_checkpoints

    choices = family_checkpoints(family).CONVERSION_CHOICES
    for flag, value in options.family_choices().items():
        if flag.name not in choices:
            raise flag.refusal(f"{flag.option.not_for}, this is a model of {family}", value)


def describe(options: CheckpointOptions, model: Any) -> None:
    """What a dry run prints."""
    size = f"{model.num_parameters():,} parameters"
    typer.echo(f"{options.source}: {model.config.model_type}, {size}")


def _write(options: CheckpointOptions, model: Any) -> None:
    draft = Draft(model=model)
    files = checked_files(options, draft)
    if options.dry_run:
        describe(options, model)
    else:
        write_model(options, draft, files)
