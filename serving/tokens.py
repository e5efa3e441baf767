"""Bearer tokens: who may call which service. Knows nothing of gRPC.

The file is TOML, one table for each caller:

    [callers.alice]
    token = "..."                       # or sha256 = "64 hexadecimal digits" of it
    services = ["Generation", "Models"] # without it: every service

Tokens are compared by their digests, all of them each time, so that the time a refusal takes says
nothing about any token.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any

from serving.errors import ConfigError, PermissionDenied, Unauthenticated
from serving.toml_file import read_toml

LEAST_LENGTH = 16  # characters of a token
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who holds a token. services: short names; None for all."""

    name: str
    digest: bytes
    services: frozenset[str] | None

    def may_call(self, service: str) -> bool:
        """Whether the token is good for a service, by its short name."""
        return self.services is None or service in self.services


class Tokens:
    """The callers of one file."""

    def __init__(self, callers: tuple[Caller, ...]) -> None:
        self._callers = callers

    def authorise(self, authorization: str | None, service: str) -> str:
        """The caller's name, from an `authorization` header and the short name of a service.

        Raises Unauthenticated without a known token, PermissionDenied for another service.
        """
        scheme, _, token = (authorization or "").partition(" ")
        digest = hashlib.sha256(token.strip().encode()).digest()
        found = None
        for caller in self._callers:  # all of them: no early end
            if hmac.compare_digest(caller.digest, digest):
                found = caller
        if found is None or scheme.lower() != "bearer":
            raise Unauthenticated
        if not found.may_call(service):
            raise PermissionDenied(found.name, service)
        return found.name


def read_tokens(path: str, services: frozenset[str]) -> Tokens:
    """The tokens of a file; `services` are the short names that may occur.

    Raises ConfigError naming file, caller and rule, never a token.
    """
    table = read_toml(path)
    callers = table.pop("callers", None)
    for name in table:
        raise ConfigError(f"{path}: {name} is unknown")
    if not isinstance(callers, dict) or not callers:
        raise ConfigError(f"{path}: must have a table [callers.NAME] for each caller")
    read = tuple(_caller(path, name, entry, services) for name, entry in callers.items())
    if len({caller.digest for caller in read}) < len(read):
        raise ConfigError(f"{path}: every caller must have a token of its own")
    return Tokens(read)


def _caller(path: str, name: str, entry: Any, known: frozenset[str]) -> Caller:
    where = f"{path}: callers.{name}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} must be a table")
    for key in entry.keys() - {"token", "sha256", "services"}:
        raise ConfigError(f"{where}.{key} is unknown")
    services = entry.get("services")
    if services is not None:
        if not isinstance(services, list) or not set(map(str, services)) <= known:
            raise ConfigError(f"{where}.services must be a list of {', '.join(sorted(known))}")
        services = frozenset(services)
    return Caller(name, _digest(where, entry), services)


def _digest(where: str, entry: dict[str, Any]) -> bytes:
    token, sha256 = entry.get("token"), entry.get("sha256")
    if (token is None) == (sha256 is None):
        raise ConfigError(f"{where} must have one of token and sha256")
    if sha256 is not None:
        if not isinstance(sha256, str) or not _HEX.fullmatch(sha256):
            raise ConfigError(f"{where}.sha256 must be 64 hexadecimal digits in lower case")
        return bytes.fromhex(sha256)
    if not isinstance(token, str) or len(token) < LEAST_LENGTH or not token.isascii():
        raise ConfigError(f"{where}.token must be at least {LEAST_LENGTH} ASCII characters")
    return hashlib.sha256(token.encode()).digest()
