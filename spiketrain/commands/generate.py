"""`spiketrain generate [PROMPT]`: a completion to stdout as it is produced, figures to stderr.

In process or over gRPC: the same engine, so the same text for the same seed. What a pipe or a file
gets is that text to the byte, without a newline of ours.
"""

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from spiketrain.commands.model_argument import (
    BUNDLED,
    DEFAULT_TABLE_BYTES,
    TABLE_BYTES_HELP,
    model_directory,
)

if TYPE_CHECKING:
    from serving.events import Event, Finish
    from serving.request import Request

INTERRUPTED = 130  # what a shell reports for Ctrl-C

app = typer.Typer(add_completion=False)


@app.command()
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="Text to continue; - reads standard input.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Package directory; without it the bundled model.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="HOST:PORT of a running server.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens to generate.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Likeliest tokens to sample; 0: all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Probability mass to sample from.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.")] = None,
    stop_sequences: Annotated[
        list[str] | None, typer.Option(help="End before this text; repeatable.")
    ] = None,
    stats: Annotated[bool, typer.Option(help="Figures on standard error at the end.")] = True,
    echo: Annotated[bool, typer.Option(help="Print the prompt before the completion.")] = False,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the model's kernels; default 1.", min=1)
    ] = None,
    table_bytes: Annotated[int | None, typer.Option(help=TABLE_BYTES_HELP, min=0)] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer file or directory, in place of the package's.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Least probability, relative to the likeliest token's.")
    ] = None,
    typical_p: Annotated[
        float | None, typer.Option(help="Probability mass of the most typical tokens.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1, seen tokens become less likely.")
    ] = None,
    json_schema: Annotated[
        str | None, typer.Option(help="The completion is JSON that obeys this schema.")
    ] = None,
    regex: Annotated[
        str | None, typer.Option(help="The completion matches this regular expression.")
    ] = None,
    ca: Annotated[
        str | None, typer.Option(help="With --server: TLS, who signed the server, PEM.")
    ] = None,
    token_file: Annotated[
        str | None, typer.Option(help="With --server: file of a bearer token.")
    ] = None,
) -> None:
    """Continue a prompt, in process or over gRPC."""
    if server is not None and (model, tokenizer, threads, table_bytes) != (None,) * 4:
        rule = "a server has its own --model, --tokenizer, --threads and --table-bytes"
        raise typer.BadParameter(rule, param_hint="--server")
    if server is None and (ca, token_file) != (None, None):
        raise typer.BadParameter("is for --server alone", param_hint="--ca, --token-file")
    if prompt in (None, "-") and sys.stdin is None:
        raise typer.BadParameter("give a text: standard input is closed", param_hint="PROMPT")
    if prompt is None and sys.stdin.isatty():
        raise typer.BadParameter("give a text, or - to type one", param_hint="PROMPT")
    from serving.request import Request

    try:
        request = Request(
            prompt=_read_stdin() if prompt is None or prompt == "-" else prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            stop_sequences=tuple(stop_sequences or ()),
            min_p=min_p,
            typical_p=typical_p,
            repetition_penalty=repetition_penalty,
            json_schema=json_schema,
            regex=regex,
        )
        if server is not None:
            opened = _remote(server, ca, token_file, request)
        else:
            most = DEFAULT_TABLE_BYTES if table_bytes is None else table_bytes
            opened = _local(model or BUNDLED, tokenizer, threads or 1, most, request)
        with opened as events:
            _show(events, str(request.prompt) if echo else "", stats)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _read_stdin() -> str:
    from runtime.errors import RequestError

    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = data[error.start : error.start + 1]
        raise RequestError("prompt", f"be valid UTF-8 (byte {error.start} is not)", bad) from None


@contextmanager
def _local(
    model: str, tokenizer: str | None, threads: int, table_bytes: int, request: "Request"
) -> Generator[Iterator["Event"], None, None]:
    import runtime
    from runtime.tokenizer import load_tokenizer
    from serving.config import ServingConfig
    from serving.engine import Engine
    from serving.logs import log_to_stderr

    log_to_stderr("warning")
    loaded = runtime.load_model(model_directory(model), threads=threads, table_bytes=table_bytes)
    own = load_tokenizer(tokenizer) if tokenizer is not None else None
    with Engine(loaded, ServingConfig(max_batch_size=1), tokenizer=own) as engine:
        yield engine.run(request)


@contextmanager
def _remote(
    address: str, ca: str | None, token_file: str | None, request: "Request"
) -> Generator[Iterator["Event"], None, None]:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # errors are reported by us
    from serving.channel import Access, read_token
    from serving.client import Client

    token = None if token_file is None else read_token(token_file)
    with Client(address, Access(ca=ca, token=token)) as client:
        yield client.generate_stream(request)


def _show(events: Iterator["Event"], echo: str, stats: bool) -> None:
    from serving.events import Delta, Finish, PromptInfo

    seed, text = 0, ""
    try:
        for event in events:
            if isinstance(event, PromptInfo):
                seed = event.seed
                text = _write(echo) or text
            elif isinstance(event, Delta):
                text = _write(event.text) or text
            elif isinstance(event, Finish) and stats:
                text = _end_line(text)
                typer.echo(_figures(event, seed), err=True)
    finally:
        _end_line(text)  # an error message comes next, or the shell's prompt


def _write(text: str) -> str:
    typer.echo(text, nl=False)
    return text


def _end_line(text: str) -> str:
    """See to it that what follows `text` starts a line, unless a pipe or a file takes `text`."""
    if text and not text.endswith("\n"):
        if sys.stdout is not None and sys.stdout.isatty():
            typer.echo()
        elif _share_a_file():
            typer.echo(err=True)
    return ""


def _share_a_file() -> bool:
    """Whether standard output and standard error end up in one file, as with 2>&1."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (AttributeError, OSError):  # closed, or replaced by something that is no file
        return False


def _figures(finish: "Finish", seed: int) -> str:
    timings, activity = finish.timings, finish.activity
    decoded = max(finish.usage.new_tokens - 1, 0)  # the prompt gave the first
    touched = activity.weight_bytes_touched_per_token
    dense = activity.weight_bytes_dense_per_token
    parts = [
        f"{finish.usage.new_tokens} tokens ({finish.reason.value})",
        f"{decoded / timings.decode_s:,.0f} tokens/s" if timings.decode_s > 0 else "",
        f"firing rate {100 * activity.firing_rate:.1f} %",
        f"{_kilobytes(touched)} of {_kilobytes(dense)} weights touched per token" if dense else "",
        f"first token after {1e3 * (timings.queue_s + timings.prefill_s):.1f} ms",
        f"seed {seed}",
    ]
    return ", ".join(part for part in parts if part)


def _kilobytes(size: float) -> str:
    return f"{size / 1000:,.0f} kB"
