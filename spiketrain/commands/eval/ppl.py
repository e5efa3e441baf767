"""`spiketrain eval ppl`: perplexity of one model, or of two on the same text."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spiketrain.commands.exit_codes import INTERRUPTED
from spiketrain.commands.model_argument import (
    BUNDLED,
    DEFAULT_TABLE_BYTES,
    NO_DIAL,
    TABLE_BYTES_HELP,
    DialOption,
    ModelArgument,
)

if TYPE_CHECKING:
    from spiketrain.evaluation.perplexity import Perplexity


class Protocol(str, Enum):
    """How state and text meet; see spiketrain.evaluation.protocols."""

    carry = "carry"
    rolling = "rolling"
    stride = "stride"
    half_window = "half-window"
    egru_published = "egru-published"


class Backend(str, Enum):
    """What runs the model."""

    runtime = "runtime"
    torch = "torch"


class Split(str, Enum):
    """The parts of a corpus that is known by its name."""

    test = "test"
    valid = "valid"
    train = "train"


def ppl(
    data: Annotated[
        str, typer.Option(help="Text, .xz, .jsonl, a folder of those, or `wikitext2`.")
    ],
    model: ModelArgument = BUNDLED,
    split: Annotated[Split, typer.Option(help="Which part of wikitext2.")] = Split.test,
    protocol: Annotated[Protocol, typer.Option(help="How state and text meet.")] = Protocol.carry,
    ctx: Annotated[int | None, typer.Option(help="Tokens of a window.")] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens from window to window.")] = None,
    prefix_token: Annotated[
        str, typer.Option(help="Id before the text: a number, none, or auto (see docs).")
    ] = "auto",
    warmup: Annotated[
        int, typer.Option(help="First tokens (rolling: of a document) not scored.", min=0)
    ] = 0,
    batch: Annotated[int, typer.Option(help="Windows or documents side by side.", min=1)] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only so many tokens.")] = None,
    documents: Annotated[
        Path | None, typer.Option(help="Write a JSON line for each document to this file.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run that wrote --documents stopped.")
    ] = False,
    word_level: Annotated[
        bool | None,
        typer.Option(help="Line ends count as words; default: for wikitext2."),
    ] = None,
    backend: Annotated[
        Backend, typer.Option(help="A package runs in the runtime, a checkpoint in torch.")
    ] = Backend.runtime,
    baseline: Annotated[
        str | None, typer.Option(help="A second model: differences with a paired interval.")
    ] = None,
    baseline_backend: Annotated[Backend, typer.Option(help="What runs the baseline.")] = (
        Backend.runtime
    ),
    dial: DialOption = NO_DIAL,
    baseline_dial: Annotated[float, typer.Option(help="That of the baseline.")] = NO_DIAL,
    parity: Annotated[
        bool, typer.Option("--parity", help="The same weights in both backends, token by token.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="With --parity: the checkpoint that a package came from.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the model.")] = 1,
    table_bytes: Annotated[int, typer.Option(help=TABLE_BYTES_HELP, min=0)] = DEFAULT_TABLE_BYTES,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokenizer file for a model without one; .txt: one word a line."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Perplexity per token, word and byte, and bits per byte, in a stated protocol."""
    from spiketrain.commands.eval.compare import compare, open_parity, print_comparison
    from spiketrain.commands.eval.models import choose_tokenizer, open_model
    from spiketrain.evaluation.measure import measure_perplexity
    from spiketrain.evaluation.sources import open_source

    if resume and documents is None:
        raise typer.BadParameter(
            "needs --documents, which keeps the progress", param_hint="--resume"
        )
    if parity and baseline is not None:
        raise typer.BadParameter("names another model", param_hint="--baseline, --parity")
    if checkpoint is not None and not parity:
        raise typer.BadParameter("needs --parity", param_hint="--checkpoint")
    if baseline_dial != NO_DIAL and baseline is None:
        raise typer.BadParameter("needs --baseline", param_hint="--baseline-dial")
    source = open_source(data, split.value, word_level)
    in_torch = backend is Backend.torch
    other: Any = None
    if parity:
        loaded, other, own = open_parity(model, checkpoint, in_torch, threads, table_bytes, dial)
    else:
        loaded, own = open_model(model, in_torch, threads, table_bytes, dial)
    words = choose_tokenizer(own, tokenizer, data, loaded.vocab_size, model)
    prefix = prefix_id(prefix_token, protocol.value, loaded, words)
    settings = settings_from(protocol.value, ctx, stride, warmup, prefix)
    given = {"model": model, "data": source.name, "backend": backend.value, "threads": threads,
             "limit": limit, "batch": batch, "dial": loaded.dial}  # fmt: skip
    other_words = words
    if baseline is not None:
        second = baseline_backend is Backend.torch
        other, its = open_model(baseline, second, threads, table_bytes, baseline_dial)
        other_words = choose_tokenizer(its, tokenizer, data, other.vocab_size, baseline)
    with interruptible(documents), progress_bar(source.name) as source.on_progress:
        if other is None:
            result = measure_perplexity(
                loaded, words, source, settings, limit, batch, documents, resume
            )
        else:
            found = compare(
                loaded, other, (words, other_words), source, settings, limit, batch, documents,
                resume,
            )  # fmt: skip
    if other is not None:
        if as_json:
            given |= {"baseline": baseline, "baseline_dial": other.dial}
            print(json.dumps({**found.to_dict(), **given}, allow_nan=False))
        else:
            print_comparison(found, (model, baseline or "its twin in the other backend"))
    elif as_json:
        print(json.dumps({**result.to_dict(), **given}, allow_nan=False))
    else:
        print_table(result, given)


@contextmanager
def interruptible(documents: Path | None) -> Iterator[None]:
    """Ctrl-C is exit code 130, and a line that says how to go on if `documents` are kept."""
    try:
        yield
    except KeyboardInterrupt:
        if documents is not None:
            typer.echo(f"interrupted: go on with --documents {documents} --resume", err=True)
        raise typer.Exit(INTERRUPTED) from None


def prefix_id(text: str, protocol: str, model: Any, tokenizer: Any) -> int | None:
    """The token that stands before the text; usage errors.

    auto: the end-of-text id (of a word list: the end of a line) if there is one and the protocol
    is not one of windows over the whole text, whose conventions have none.
    """
    hint = "--prefix-token"
    if text == "none":
        return None
    if text == "auto":
        if protocol in ("stride", "half-window"):
            return None
        if model.eos_token_ids:
            return int(model.eos_token_ids[0])
        return getattr(tokenizer, "end_of_line", None)
    if not text.isdecimal() or int(text) >= model.vocab_size:
        rule = f"must be auto, none or an id below {model.vocab_size}, got {text}"
        raise typer.BadParameter(rule, param_hint=hint)
    return int(text)


def settings_from(
    protocol: str, ctx: int | None, stride: int | None, warmup: int, prefix: int | None
) -> Any:
    """Settings of a protocol; what it cannot take is a usage error."""
    from spiketrain.evaluation.protocols import settle

    try:
        return settle(protocol, ctx, stride, warmup, prefix)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


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


def print_table(result: Perplexity, given: dict[str, Any]) -> None:
    """The result for people, on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, title=f"{given['model']} on {given['data']}")
    layers = ", ".join(f"{100 * rate:.1f} %" for rate in result.firing_rates)
    rows = {
        "bits per byte": _with_error(
            f"{result.bits_per_byte:.4f}", result.standard_error_bits_per_byte, 4
        ),
        "token perplexity": _with_error(
            f"{result.token_perplexity:.3f}", result.standard_error_token_perplexity, 3
        ),
        "word perplexity": f"{result.word_perplexity:.3f}",
        "byte perplexity": f"{result.byte_perplexity:.4f}",
        "tokens, words, bytes": f"{result.tokens:,}, {result.words:,}, {result.bytes:,}",
        "documents": f"{result.documents:,} ({result.lossless_documents:,} come back unchanged "
        "from the tokenizer)",
        "nats": f"{result.nll_nats:.3f}",
        "standard error": f"over {result.standard_error_count:,} {result.standard_error_over}",
        "firing rate": f"{100 * result.firing_rate:.1f} % (layers: {layers})"
        if result.firing_rate
        else "none: nothing in this model spikes",
        "tokens/s": f"{result.tokens_per_s:,.0f} in {given['backend']}, {given['threads']} threads",
        "peak memory": f"{result.peak_memory_bytes / 1e6:,.0f} MB",
        "protocol": result.protocol_text,
        "model": result.fingerprint,
        "tokenizer": result.tokenizer_hash,
        "text": result.data_hash,
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(width=None if sys.stdout.isatty() else 110).print(table, markup=False)


def _with_error(value: str, error: float | None, digits: int) -> str:
    return value if error is None else f"{value} ± {error:.{digits}f} (standard error)"
