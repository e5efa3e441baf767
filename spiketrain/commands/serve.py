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
    ModelArgument,
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
    model: ModelArgument = BUNDLED,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = 50051,
    port_file: Annotated[
        str | None, typer.Option(help="Write the port here once the server listens.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of the model's kernels.", min=1)] = 1,
    table_bytes: Annotated[int, typer.Option(help=TABLE_BYTES_HELP, min=0)] = DEFAULT_TABLE_BYTES,
    max_batch_size: Annotated[int, typer.Option(help="Sequences decoded at once.", min=1)] = 32,
    max_queue: Annotated[int, typer.Option(help="Requests that may wait for a slot.", min=0)] = 128,
    max_prompt_tokens: Annotated[
        int, typer.Option(help="Longest prompt, in tokens.", min=1)
    ] = 65536,
    max_new_tokens: Annotated[int, typer.Option(help="Largest max_new_tokens.", min=1)] = 65536,
    grace_s: Annotated[
        float, typer.Option(help="Seconds for running requests to end at shutdown.", min=0.0)
    ] = 10.0,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer file or directory, in place of the package's.")
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="Least level of log lines.")] = LogLevel.INFO,
) -> None:
    """Serve a model over gRPC until SIGTERM or Ctrl-C."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what matters is reported by us
    import runtime
    from runtime.tokenizer import load_tokenizer
    from serving.config import ServingConfig
    from serving.engine import Engine
    from serving.logs import log_to_stderr
    from serving.server import serve as serve_engine

    log_to_stderr(log_level.value)
    config = ServingConfig(
        host=host,
        port=port,
        port_file=port_file,
        max_batch_size=max_batch_size,
        max_queue=max_queue,
        max_prompt_tokens=max_prompt_tokens,
        max_new_tokens=max_new_tokens,
        grace_s=grace_s,
    )
    directory = model_directory(model)
    engine = Engine(
        runtime.load_model(directory, threads=threads, table_bytes=table_bytes),
        config,
        tokenizer=load_tokenizer(tokenizer) if tokenizer is not None else None,
    )
    asyncio.run(serve_engine(engine, Path(directory).resolve().name, _announce))


def _announce(address: str) -> None:
    typer.echo(f"listening on {address}")
