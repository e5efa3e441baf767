"""A model in memory becomes a package: its tokenizer and files, and what a text says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from spiketrain.commands.convert.dial import measured_dials
from spiketrain.commands.convert.options import Options
from spiketrain.commands.convert.sparsity import make_sparse
from spiketrain.commands.tokenizer_files import check_tokenizer, tokenizer_beside, tokenizer_files

Files = dict[str, bytes | Path]


@dataclass(kw_only=True)
class Draft:
    """A model on its way to a package; report: of report.json; codes: stored tensors."""

    model: Any
    report: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, Any] = field(default_factory=dict)


def chosen_tokenizer(options: Options) -> Path | None:
    """The tokenizer that is named, or the one beside the source, if there is one."""
    return options.tokenizer or tokenizer_beside(options.source)


def files_along(options: Options) -> Files:
    """The tokenizer's files, as far as there is one."""
    tokenizer = chosen_tokenizer(options)
    return {} if tokenizer is None else tokenizer_files(tokenizer)


def further_files(options: Options) -> Files:
    """The files that --file names."""
    return {path.name: path for path in options.extra}


def report_file(report: Mapping[str, Any]) -> Files:
    """report.json, if there is anything to report."""
    return {"report.json": (json.dumps(report, indent=1) + "\n").encode()} if report else {}


def read_text_with(
    draft: Draft,
    tokenizer: Path | None,
    calib: Path | None,
    *,
    sparsity: float | None = None,
    max_dial: float | None = None,
) -> None:
    """Set dead zones and measure dials on the text `calib`, as far as there are any."""
    if calib is None:
        return
    if sparsity is not None:
        draft.report = make_sparse(draft.model, tokenizer, calib, sparsity)
    if max_dial is not None:
        draft.report["dials"] = measured_dials(draft.model, tokenizer, calib, max_dial)


def write_model(
    options: Options,
    draft: Draft,
    files: Files,
    *,
    max_dial: float | None = None,
    window_cache: str | None = None,
) -> None:
    """Write the package; its fingerprint goes to stdout."""
    from spiketrain.lm.export import export_model

    fingerprint = export_model(
        draft.model,
        options.target,
        weights=options.weights or "float32",
        head=options.head_weights,
        files={**files, **report_file(draft.report), **further_files(options)},
        provenance=options.provenance(),
        force=options.force,
        codes=draft.codes,
        max_dial=max_dial,
        window_cache=window_cache,
    )
    typer.echo(f"{options.target}: {fingerprint}")


def checked_files(options: Options, draft: Draft) -> Files:
    """The tokenizer's files; SpiketrainError if the model cannot have this tokenizer."""
    files = files_along(options)
    check_tokenizer(files, draft.model.config.vocab_size)
    return files
