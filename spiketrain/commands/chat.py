"""`spiketrain chat`: a conversation on the terminal, over gRPC or with a model of this process.

With a chat template the model answers messages. Without one it continues a story that both write:
each line is read as it stands, on a session that remembers the rest.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spiketrain.commands import request_flags as flags
from spiketrain.commands.exit_codes import INTERRUPTED
from spiketrain.commands.model_argument import BUNDLED, DEFAULT_TABLE_BYTES, model_directory
from spiketrain.commands.server_flags import Ca, Cert, Key, Server, TokenFile, connected

if TYPE_CHECKING:
    from spiketrain.serving.client.client import Client
    from spiketrain.serving.client.conversation import Conversation

NOT_FIELDS = (
    "model",
    "server",
    "system",
    "chat_template",
    "tokenizer",
    "threads",
    "ca",
    "cert",
    "key",
    "token_file",
)
HELP = "/reset starts anew, /quit or Ctrl-D ends"

app = typer.Typer(add_completion=False)


@app.command()
def chat(
    model: Annotated[
        str | None, typer.Option(help="Package directory; without it the bundled model.")
    ] = None,
    server: Server = None,
    system: Annotated[str | None, typer.Option(help="A system message to begin with.")] = None,
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
    stop_sequences: flags.StopSequences = None,
    stop_token_ids: flags.StopTokenIds = None,
    ignore_eos: flags.IgnoreEos = None,
    time_limit_s: flags.TimeLimitS = None,
    dial: flags.Dial = None,
    json_schema: flags.JsonSchema = None,
    regex: flags.Regex = None,
    grammar: flags.Grammar = None,
    chat_template: Annotated[
        str | None, typer.Option(help="Jinja file, in place of the package's chat template.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer file or directory, in place of the package's.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the model's kernels; default 1.", min=1)
    ] = None,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    token_file: TokenFile = None,
) -> None:
    """Talk to a model; each line of standard input is a turn."""
    given = {name: value for name, value in locals().items() if name not in NOT_FIELDS}
    if server is not None and (model, chat_template, tokenizer, threads) != (None,) * 4:
        rule = "a server has its own --model, --chat-template, --tokenizer and --threads"
        raise typer.BadParameter(rule, param_hint="--server")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # errors are reported by us
    from spiketrain.serving.client.conversation import Conversation

    try:
        if server is not None:
            opened = connected(server, ca, cert, key, token_file)
        else:
            opened = _local(model or BUNDLED, chat_template, tokenizer, threads or 1)
        with opened as client:
            _talk(Conversation(client, system, flags.to_fields(given)))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _local(
    model: str, chat_template: str | None, tokenizer: str | None, threads: int
) -> Iterator["Client"]:
    from spiketrain import runtime
    from spiketrain.runtime.chat_template_file import read_chat_template
    from spiketrain.runtime.tokenizer import load_tokenizer
    from spiketrain.serving.client.client import Client
    from spiketrain.serving.config import ServingConfig
    from spiketrain.serving.engine.engine import Engine
    from spiketrain.serving.logs import log_to_stderr
    from spiketrain.serving.request.chat_template import ChatTemplate
    from spiketrain.serving.rpc.local import serving_locally

    log_to_stderr("warning")
    directory = model_directory(model)
    source = read_chat_template(directory, chat_template)
    loaded: Any = runtime.load_model(directory, threads=threads, table_bytes=DEFAULT_TABLE_BYTES)
    own = load_tokenizer(tokenizer) if tokenizer is not None else None
    engine = Engine(loaded, ServingConfig(port=0, max_batch_size=1), tokenizer=own)
    template = ChatTemplate(*source) if source is not None else None
    with serving_locally(engine, directory.name, template) as address, Client(address) as client:
        yield client


def _talk(conversation: "Conversation") -> None:
    asks = sys.stdin is not None and sys.stdin.isatty()
    if asks:
        typer.echo(f"{conversation.description}; {HELP}", err=True)
    while True:
        if asks:
            typer.echo("> ", nl=False, err=True)
        line = sys.stdin.readline() if sys.stdin is not None else ""
        if not line or line.strip() == "/quit":
            return
        if line.strip() == "/reset":
            conversation.reset()
        elif line.strip():
            for text in conversation.say(line.rstrip("\n")):
                typer.echo(text, nl=False)
            typer.echo()
