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

from spiketrain.commands.model_argument import BUNDLED, DEFAULT_TABLE_BYTES, model_directory

if TYPE_CHECKING:
    from serving.client import Client
    from serving.conversation import Conversation

INTERRUPTED = 130  # what a shell reports for Ctrl-C
HELP = "/reset starts anew, /quit or Ctrl-D ends"

app = typer.Typer(add_completion=False)


@app.command()
def chat(
    model: Annotated[
        str | None, typer.Option(help="Package directory; without it the bundled model.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="HOST:PORT of a running server.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message to begin with.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Likeliest tokens to sample; 0: all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Probability mass to sample from.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed and lines, same answers.")] = None,
    stop_sequences: Annotated[
        list[str] | None, typer.Option(help="End an answer before this text; repeatable.")
    ] = None,
    chat_template: Annotated[
        str | None, typer.Option(help="Jinja file, in place of the package's chat template.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer file or directory, in place of the package's.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the model's kernels; default 1.", min=1)
    ] = None,
    ca: Annotated[str | None, typer.Option(help="TLS: who signed the server, PEM.")] = None,
    token_file: Annotated[str | None, typer.Option(help="File of a bearer token.")] = None,
) -> None:
    """Talk to a model; each line of standard input is a turn."""
    if server is not None and (model, chat_template, tokenizer, threads) != (None,) * 4:
        rule = "a server has its own --model, --chat-template, --tokenizer and --threads"
        raise typer.BadParameter(rule, param_hint="--server")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # errors are reported by us
    from serving.conversation import Conversation

    sampling = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "stop_sequences": tuple(stop_sequences or ()),
    }
    try:
        if server is not None:
            opened = _remote(server, ca, token_file)
        else:
            opened = _local(model or BUNDLED, chat_template, tokenizer, threads or 1)
        with opened as client:
            _talk(Conversation(client, system, sampling))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _remote(address: str, ca: str | None, token_file: str | None) -> Iterator["Client"]:
    from serving.channel import Access, read_token
    from serving.client import Client

    token = None if token_file is None else read_token(token_file)
    with Client(address, Access(ca=ca, token=token)) as client:
        yield client


@contextmanager
def _local(
    model: str, chat_template: str | None, tokenizer: str | None, threads: int
) -> Iterator["Client"]:
    import runtime
    from runtime.chat_template_file import read_chat_template
    from runtime.tokenizer import load_tokenizer
    from serving.chat_template import ChatTemplate
    from serving.client import Client
    from serving.config import ServingConfig
    from serving.engine import Engine
    from serving.local import serving_locally
    from serving.logs import log_to_stderr

    log_to_stderr("warning")
    directory = model_directory(model)
    source = read_chat_template(directory, chat_template)
    loaded: Any = runtime.load_model(directory, threads=threads, table_bytes=DEFAULT_TABLE_BYTES)
    own = load_tokenizer(tokenizer) if tokenizer is not None else None
    engine = Engine(loaded, ServingConfig(max_batch_size=1), tokenizer=own)
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
