"""`spiketrain convert` of a GGUF file, part by part and without torch."""

from __future__ import annotations

import json
from typing import Any

import typer

from spiketrain.commands.convert.gguf_options import GgufToSpiking
from spiketrain.commands.convert.package import Files, further_files
from spiketrain.commands.tokenizer_files import check_tokenizer, kept_settings, tokenizer_files
from spiketrain.lm.conversion.gguf import GgufExporter, check_state_memory, gguf_spec
from spiketrain.lm.conversion.gguf.state_memory import machine_memory
from spiketrain.lm.sources.gguf import Source, open_gguf
from spiketrain.lm.streaming import Work, convert_in_parts, plan
from spiketrain.runtime.package import check_config

_GENERATION = "generation_config.json"


def convert_gguf(options: GgufToSpiking) -> None:
    """Write the package; what the file leaves open and how work goes on is told on stderr."""
    source = open_gguf(options.source)
    for line in (*source.summary().splitlines(), *source.notes):
        typer.echo(f"{options.source}: {line}", err=True)
    exporter = _exporter(options, source)
    check_state_memory(exporter.spec, machine_memory())
    files = _files(options, source)
    check_tokenizer(files, exporter.spec.vocab_size)
    source.check_values()  # a bad scale is said before the first part is written
    if options.dry_run:
        _describe(options, exporter, files)
    else:
        _write(options, exporter, files)


def _exporter(options: GgufToSpiking, source: Source) -> GgufExporter:
    """What makes the package's tensors, part by part."""
    spec = gguf_spec(
        source.config,
        weights=options.stored_weights,
        head=options.head_weights,
        spikes=options.spikes is not None,
        window_keys=options.window_keys,
        window_cache=options.stored_cache,
        max_dial=options.max_dial,
    )
    typer.echo(f"{options.source}: state of a sequence: {spec.state_formula}", err=True)
    return GgufExporter(spec, source, options.spikes)


def _files(options: GgufToSpiking, source: Source) -> Files:
    """The file's own tokenizer, or the one that is named, and further files."""
    if options.tokenizer is not None:
        return tokenizer_files(options.tokenizer) | further_files(options)
    texts = source.tokenizer_files()
    generation = json.dumps(kept_settings(json.loads(texts[_GENERATION])))
    files = {name: text.encode() for name, text in (texts | {_GENERATION: generation}).items()}
    return files | further_files(options)


def _describe(options: GgufToSpiking, exporter: GgufExporter, files: Files) -> None:
    """Check the package that would be written, and print its size."""
    check_config(str(options.target), exporter.package_config(), files)
    sizes = plan(exporter, options.max_memory_bytes)
    typer.echo(
        f"{options.source}: {exporter.spec.model_type}, {exporter.spec.num_parameters:,} "
        f"parameters, {sum(sizes.values()) / 1e6:,.1f} MB in {len(sizes)} files"
    )


def _write(options: GgufToSpiking, exporter: GgufExporter, files: Files) -> None:
    """Write the package; its fingerprint goes to stdout."""
    fingerprint = convert_in_parts(
        exporter,
        exporter.source,
        options.target,
        _identity(options),
        Work(options.max_memory_bytes, options.resume, options.force),
        files,
        {**options.provenance(), **_origin(exporter.source)},
        lambda line: typer.echo(line, err=True),
    )
    typer.echo(f"{options.target}: {fingerprint}")


def _identity(options: GgufToSpiking) -> dict[str, Any]:
    """What the tensors depend on beside the source: --resume goes on with the same alone."""
    return {
        "weights": options.stored_weights,
        "head": options.head_weights,
        "spikes": options.spikes,
    }


def _origin(source: Source) -> dict[str, Any]:
    """What the file says about the model that it was made from."""
    return {"gguf": dict(source.provenance)} if source.provenance else {}
