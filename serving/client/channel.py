"""Where a client connects, and as whom: addresses, TLS and tokens, the same for both clients."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from spiketrain.serving.errors import ConfigError

OPTIONS = (("grpc.max_receive_message_length", -1),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a server asks of its clients; nothing for one that listens in clear.

    ca: PEM file of who signed the server's certificate; with it, or with `tls`, TLS is used (the
    system's authorities by default). cert, key: PEM files of this client, for mutual TLS.
    token: a bearer token, sent over TLS or to this machine alone. Checked at birth: ConfigError.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    token: str | None = None
    tls: bool = False

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigError("cert and key must be given together")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ConfigError("token must be printable ASCII")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What is sent along with every call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def credentials(self, address: str) -> grpc.ChannelCredentials | None:
        """For TLS, else None. Raises ConfigError rather than send a token in clear to a network."""
        if not self.tls and self.ca is None and self.cert is None:
            if self.token is not None and not _is_local(address):
                raise ConfigError(f"token must not be sent in clear to {address}: use TLS")
            return None
        files = [None if path is None else _read(path) for path in (self.ca, self.key, self.cert)]
        return grpc.ssl_channel_credentials(*files)


def open_channel(api: Any, address: str, access: Access) -> Any:
    """A channel of `grpc` or of `grpc.aio` to HOST:PORT. Raises ConfigError."""
    check_address(address)
    credentials = access.credentials(address)
    if credentials is None:
        return api.insecure_channel(address, options=OPTIONS)
    return api.secure_channel(address, credentials, options=OPTIONS)


def check_address(address: str) -> None:
    """Refuse what gRPC would take for another port: 443 for none, 34463 for 99999."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 1 <= int(port) <= 65535:
        raise ConfigError(f"server must be HOST:PORT, port from 1 to 65535, got {address!r}")


def read_token(path: str) -> str:
    """A token that is alone in a file. Raises ConfigError."""
    try:
        return _read(path).decode("ascii").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: must hold a token in ASCII") from None


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
