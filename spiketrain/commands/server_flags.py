"""Flags of `generate` and `chat` that say which server answers, and as whom it is asked."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spiketrain.serving.client.client import Client

Server = Annotated[str | None, typer.Option(help="HOST:PORT of a running server.")]
Ca = Annotated[str | None, typer.Option(help="With --server: TLS, who signed the server, PEM.")]
Cert = Annotated[
    str | None, typer.Option(help="With --server: TLS, certificate of this client, PEM.")
]
Key = Annotated[str | None, typer.Option(help="With --server: TLS, its private key, PEM.")]
TokenFile = Annotated[str | None, typer.Option(help="With --server: file of a bearer token.")]


@contextmanager
def connected(
    address: str, ca: str | None, cert: str | None, key: str | None, token_file: str | None
) -> Iterator["Client"]:
    """A client of the server. Raises ConfigError."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # errors are reported by us
    from spiketrain.serving.client.channel import Access, read_token
    from spiketrain.serving.client.client import Client

    token = None if token_file is None else read_token(token_file)
    with Client(address, Access(ca=ca, cert=cert, key=key, token=token)) as client:
        yield client
