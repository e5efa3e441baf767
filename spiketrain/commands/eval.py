"""`spiketrain eval`: what a package achieves on text."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spiketrain.commands.model_argument import (
    BUNDLED,
    DEFAULT_TABLE_BYTES,
    TABLE_BYTES_HELP,
    ModelArgument,
    model_directory,
)

if TYPE_CHECKING:
    from spiketrain.evaluation.perplexity import Perplexity

app = typer.Typer(no_args_is_help=True, add_completion=False)


class Protocol(str, Enum):
    """How state and text meet; see spiketrain.evaluation.perplexity."""

    carry = "carry"


@app.callback()
def evaluate() -> None:
    """Measure a package on text."""


@app.command()
def ppl(
    data: Annotated[Path, typer.Option(help="UTF-8 text file, plain or .xz.")],
    model: ModelArgument = BUNDLED,
    protocol: Annotated[Protocol, typer.Option(help="One state over all the text.")] = (
        Protocol.carry
    ),
    limit: Annotated[int | None, typer.Option(min=1, help="Score only so many tokens.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the model.")] = 1,
    table_bytes: Annotated[int, typer.Option(help=TABLE_BYTES_HELP, min=0)] = DEFAULT_TABLE_BYTES,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Tokenizer file for a package without one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Perplexity per token and word, and bits per byte, in the carry protocol."""
    from runtime import load_model
    from runtime.errors import TokenizerError
    from runtime.tokenizer import load_tokenizer
    from spiketrain.evaluation.perplexity import measure_perplexity

    directory = model_directory(model)
    loaded = load_model(directory, threads=threads, table_bytes=table_bytes)
    words = load_tokenizer(tokenizer) if tokenizer else loaded.tokenizer
    if words is None:
        raise TokenizerError(f"{directory}: has no tokenizer, name one with --tokenizer")
    with progress_bar(f"{data.name}") as on_progress:
        result = measure_perplexity(loaded, words, data, limit, on_progress)
    settings = {"model": str(directory), "data": str(data), "threads": threads, "limit": limit}
    if as_json:
        print(json.dumps({**result.to_dict(), **settings}, allow_nan=False))
    else:
        print_table(result, settings)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of bytes read, on a terminal only; it goes to stderr and is gone when done."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(title))
        yield lambda done, total: progress.update(task, completed=done, total=total)


def print_table(result: Perplexity, settings: dict[str, Any]) -> None:
    """The result for people, on stdout."""
    from rich.console import Console
    from rich.table import Table

    from spiketrain.evaluation.perplexity import PROTOCOLS

    table = Table(show_header=False, title=f"{settings['model']} on {settings['data']}")
    layers = ", ".join(f"{100 * rate:.1f} %" for rate in result.firing_rates)
    rows = {
        "bits per byte": f"{result.bits_per_byte:.4f}",
        "token perplexity": f"{result.token_perplexity:.3f}",
        "word perplexity": f"{result.word_perplexity:.3f}",
        "tokens, words, bytes": f"{result.tokens:,}, {result.words:,}, {result.bytes:,}",
        "documents": f"{result.documents:,}",
        "nats": f"{result.nll_nats:.3f}",
        "firing rate": f"{100 * result.firing_rate:.1f} % (layers: {layers})",
        "tokens/s": f"{result.tokens_per_s:,.0f} with {settings['threads']} threads",
        "protocol": f"{result.protocol}: {PROTOCOLS[result.protocol]}",
        "model": result.fingerprint,
        "tokenizer": result.tokenizer_hash,
        "text": result.data_hash,
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(width=None if sys.stdout.isatty() else 110).print(table, markup=False)
