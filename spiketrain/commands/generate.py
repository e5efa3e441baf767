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

from spiketrain.commands import request_flags as flags
from spiketrain.commands.exit_codes import INTERRUPTED
from spiketrain.commands.model_argument import (
    BUNDLED,
    DEFAULT_TABLE_BYTES,
    TABLE_BYTES_HELP,
    model_directory,
)
from spiketrain.commands.server_flags import Ca, Cert, Key, Server, TokenFile, connected

if TYPE_CHECKING:
    from spiketrain.serving.request.events import Event, Finish
    from spiketrain.serving.request.request import Request

ACCESS_FLAGS = "--ca, --cert, --key, --token-file"
NOT_FIELDS = (
    "prompt",
    "token_ids",
    "model",
    "server",
    "stats",
    "echo",
    "json_",
    "threads",
    "table_bytes",
    "tokenizer",
    "ca",
    "cert",
    "key",
    "token_file",
)

app = typer.Typer(add_completion=False)


@app.command()
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="Text to continue; - reads standard input.")
    ] = None,
    token_ids: Annotated[
        str | None, typer.Option(help="Token ids with commas, in place of PROMPT.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Package directory; without it the bundled model.")
    ] = None,
    server: Server = None,
    max_new_tokens: flags.MaxNewTokens = None,
    min_new_tokens: flags.MinNewTokens = None,
    temperature: flags.Temperature = None,
    top_k: flags.TopK = None,
    top_p: flags.TopP = None,
    min_p: flags.MinP = None,
    typical_p: flags.TypicalP = None,
    repetition_penalty: flags.RepetitionPenalty = None,
    frequency_penalty: flags.FrequencyPenalty = None,
    presence_penalty: flags.PresencePenalty = None,
    penalty_window: flags.PenaltyWindow = None,
    logit_bias: flags.LogitBias = None,
    allowed_token_ids: flags.AllowedTokenIds = None,
    seed: flags.Seed = None,
    n: Annotated[
        int | None, typer.Option(help="So many completions, with --json where above 1.")
    ] = None,
    stop_sequences: flags.StopSequences = None,
    stop_token_ids: flags.StopTokenIds = None,
    ignore_eos: flags.IgnoreEos = None,
    time_limit_s: flags.TimeLimitS = None,
    dial: flags.Dial = None,
    timeout_s: Annotated[
        float | None, typer.Option(help="Fail if it is not finished after so many seconds.")
    ] = None,
    json_schema: flags.JsonSchema = None,
    regex: flags.Regex = None,
    grammar: flags.Grammar = None,
    logprobs: Annotated[
        bool | None, typer.Option(help="With --json: how likely each token was.")
    ] = None,
    top_logprobs: Annotated[
        int | None, typer.Option(help="Beside each token so many of the likeliest.")
    ] = None,
    prompt_logprobs: Annotated[
        bool | None, typer.Option(help="With --json: how likely each token of the prompt was.")
    ] = None,
    prefix_cache: Annotated[
        bool | None, typer.Option(help="Whether states of prompts are kept and used.")
    ] = None,
    cache_salt: Annotated[
        str | None, typer.Option(help="Share them with requests of the same salt alone.")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print each completion as a JSON object, at its end.")
    ] = False,
    stats: Annotated[bool, typer.Option(help="Figures on standard error at the end.")] = True,
    echo: Annotated[bool, typer.Option(help="Print the prompt before the completion.")] = False,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the model's kernels; default 1.", min=1)
    ] = None,
    table_bytes: Annotated[int | None, typer.Option(help=TABLE_BYTES_HELP, min=0)] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer file or directory, in place of the package's.")
    ] = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    token_file: TokenFile = None,
) -> None:
    """Continue a prompt, in process or over gRPC."""
    given = {name: value for name, value in locals().items() if name not in NOT_FIELDS}
    if server is not None and (model, tokenizer, threads, table_bytes) != (None,) * 4:
        rule = "a server has its own --model, --tokenizer, --threads and --table-bytes"
        raise typer.BadParameter(rule, param_hint="--server")
    access = (ca, cert, key, token_file)
    if server is None and access != (None,) * 4:
        raise typer.BadParameter("are for --server alone", param_hint=ACCESS_FLAGS)
    if not json_ and ((n or 1) > 1 or logprobs or prompt_logprobs):
        raise typer.BadParameter("need --json", param_hint="--n, --logprobs, --prompt-logprobs")
    if json_ and echo:
        raise typer.BadParameter("must be left out with --json", param_hint="--echo")
    from spiketrain.serving.request.request import Request

    try:
        asked = _prompt(prompt) if token_ids is None else flags.to_ids("--token-ids", token_ids)
        request = Request(asked, **flags.to_fields(given))
        if server is not None:
            opened = _remote(server, access, request)
        else:
            most = DEFAULT_TABLE_BYTES if table_bytes is None else table_bytes
            opened = _local(model or BUNDLED, tokenizer, threads or 1, most, request)
        with opened as events:
            if json_:
                _show_json(events)
            else:
                _show(events, asked if echo and isinstance(asked, str) else "", stats)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _prompt(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return prompt
    if sys.stdin is None:
        raise typer.BadParameter("give a text: standard input is closed", param_hint="PROMPT")
    if prompt is None and sys.stdin.isatty():
        raise typer.BadParameter("give a text, or - to type one", param_hint="PROMPT")
    return _read_stdin()


def _read_stdin() -> str:
    from spiketrain.runtime.errors import RequestError

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
    from spiketrain import runtime
    from spiketrain.runtime.tokenizer import load_tokenizer
    from spiketrain.serving.config import ServingConfig
    from spiketrain.serving.engine.engine import Engine
    from spiketrain.serving.engine.sync_stream import sync_stream
    from spiketrain.serving.logs import log_to_stderr
    from spiketrain.serving.request.preparation import MAX_N

    log_to_stderr("warning")
    loaded = runtime.load_model(model_directory(model), threads=threads, table_bytes=table_bytes)
    own = load_tokenizer(tokenizer) if tokenizer is not None else None
    config = ServingConfig(max_batch_size=MAX_N)
    with (
        Engine(loaded, config, tokenizer=own) as engine,
        sync_stream(engine, request) as events,
    ):
        yield events


@contextmanager
def _remote(
    address: str, access: tuple[str | None, ...], request: "Request"
) -> Generator[Iterator["Event"], None, None]:
    with connected(address, *access) as client:
        yield client.generate_stream(request)


def _show_json(events: Iterator["Event"]) -> None:
    from spiketrain.commands.completion_json import to_json
    from spiketrain.serving.request.events import join

    for completed in join(events):
        typer.echo(to_json(completed))


def _show(events: Iterator["Event"], echo: str, stats: bool) -> None:
    from spiketrain.serving.request.events import Delta, Finish, PromptInfo

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
