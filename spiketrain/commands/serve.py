"""`spiketrain serve [MODEL]`: a gRPC server until SIGTERM or Ctrl-C."""

import asyncio
import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from spiketrain.commands.model_argument import (
    BUNDLED,
    DEFAULT_TABLE_BYTES,
    TABLE_BYTES_HELP,
    model_directory,
)

app = typer.Typer(add_completion=False)


class LogLevel(str, Enum):
    """Levels of log lines, lowest first."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@app.command()
def serve(
    model: Annotated[
        str | None, typer.Argument(help="Package directory; without it the bundled model.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="TOML file of settings; SPIKETRAIN_* and flags go before it.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1.")] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port to listen on; 50051, 0: a free one.", min=0, max=65535),
    ] = None,
    port_file: Annotated[
        str | None, typer.Option(help="Write the port here once the server listens.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the model's kernels; 1.", min=1)
    ] = None,
    table_bytes: Annotated[int | None, typer.Option(help=TABLE_BYTES_HELP, min=0)] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(help="Sequences decoded at once; 32.", min=1)
    ] = None,
    max_queue: Annotated[
        int | None, typer.Option(help="Requests that may wait for a slot; 128.", min=0)
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(help="Calls under way of all clients; 1024.", min=1)
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(help="Connections of all clients; 1024.", min=1)
    ] = None,
    request_bytes: Annotated[
        int | None,
        typer.Option(help="Bytes for requests until they are queued; 96 MiB.", min=1 << 20),
    ] = None,
    request_timeout_s: Annotated[
        float | None, typer.Option(help="Seconds for a call to send its request; 10.", min=0.0)
    ] = None,
    idle_stream_s: Annotated[
        float | None, typer.Option(help="Seconds between messages of a stream; 60.", min=0.0)
    ] = None,
    idle_connection_s: Annotated[
        float | None, typer.Option(help="Seconds of a connection without a call; 300.", min=0.0)
    ] = None,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(help="Longest prompt, in tokens; 65536.", min=1)
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Largest max_new_tokens; 65536.", min=1)
    ] = None,
    state_bytes: Annotated[
        int | None, typer.Option(help="Bytes for states of running sequences; 1 GiB.", min=1)
    ] = None,
    session_bytes: Annotated[
        int | None, typer.Option(help="Bytes for all sessions; 1 GiB.", min=0)
    ] = None,
    session_dir: Annotated[
        str | None, typer.Option(help="Keep sessions here; needs the extra disk. Else in memory.")
    ] = None,
    session_sync: Annotated[
        bool | None, typer.Option(help="Wait for the disk at every change of a session; no.")
    ] = None,
    grace_s: Annotated[
        float | None,
        typer.Option(help="Seconds for running requests to end at shutdown; 10.", min=0.0),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer file or directory, in place of the package's.")
    ] = None,
    chat_template: Annotated[
        str | None, typer.Option(help="Jinja file, in place of the package's chat template.")
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(help="Certificate for TLS, PEM.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Its private key, PEM.")] = None,
    tls_client_ca: Annotated[
        str | None, typer.Option(help="Ask clients for a certificate signed by one of these, PEM.")
    ] = None,
    tokens_file: Annotated[
        str | None, typer.Option(help="TOML file of bearer tokens and what they are good for.")
    ] = None,
    metrics_host: Annotated[str | None, typer.Option(help="For --metrics-port; 127.0.0.1.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Show Prometheus metrics over HTTP here.", min=0, max=65535)
    ] = None,
    otlp_endpoint: Annotated[
        str | None, typer.Option(help="Send OpenTelemetry spans here; needs the extra otel.")
    ] = None,
    log_level: Annotated[
        LogLevel | None, typer.Option(help="Least level of log lines; info.")
    ] = None,
) -> None:
    """Serve a model over gRPC until SIGTERM or Ctrl-C; without one, the bundled model."""
    flags = dict(locals())
    flags.pop("config")
    flags["log_level"] = log_level and log_level.value
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what matters is reported by us
    from spiketrain import runtime
    from spiketrain.runtime.chat_template_file import read_chat_template
    from spiketrain.runtime.tokenizer import load_tokenizer
    from spiketrain.serving.engine.engine import Engine
    from spiketrain.serving.logs import log_to_stderr
    from spiketrain.serving.request.chat_template import ChatTemplate
    from spiketrain.serving.rpc.server import serve as serve_engine
    from spiketrain.serving.settings import read_settings

    loading, serving = read_settings(config, os.environ, flags)
    log_to_stderr(loading.log_level)
    directory = model_directory(loading.model or BUNDLED)
    most = DEFAULT_TABLE_BYTES if loading.table_bytes is None else loading.table_bytes
    engine = Engine(
        runtime.load_model(directory, threads=loading.threads, table_bytes=most),
        serving,
        tokenizer=load_tokenizer(loading.tokenizer) if loading.tokenizer is not None else None,
    )
    template = read_chat_template(directory, loading.chat_template)
    chat = ChatTemplate(*template) if template is not None else None
    asyncio.run(serve_engine(engine, Path(directory).resolve().name, _announce, chat))


def _announce(address: str) -> None:
    typer.echo(f"listening on {address}")
