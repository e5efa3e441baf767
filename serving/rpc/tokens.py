"""Who may call which service: bearer tokens and clients' certificates. Knows nothing of gRPC.

The file is TOML, one table for each caller:

    [callers.alice]
    token = "..."                       # or sha256 = "64 hexadecimal digits" of it
    services = ["Generation", "Models"] # without it: every service
    certificate = "client@example.org"  # the name that the client's certificate has to bear

A caller with a certificate alone needs no token; one with both needs both. Tokens are compared by
their digests, all of them each time, so that the time a refusal takes says nothing about any token.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any

from spiketrain.serving.errors import ConfigError, PermissionDenied, Unauthenticated
from spiketrain.serving.toml_file import read_toml

MIN_LENGTH = 16  # characters of a token
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who holds a token, a certificate or both. services: short names; None for all."""

    name: str
    digest: bytes | None
    services: frozenset[str] | None
    certificate: str | None = None

    def may_call(self, service: str) -> bool:
        """Whether the caller may use a service, by its short name."""
        return self.services is None or service in self.services


class Tokens:
    """The callers of one file."""

    def __init__(self, callers: tuple[Caller, ...]) -> None:
        self._callers = callers

    @property
    def with_certificate(self) -> str | None:
        """A caller who needs a certificate, if there is one."""
        return next((caller.name for caller in self._callers if caller.certificate), None)

    def authorise(
        self, authorization: str | None, service: str, certificate: frozenset[str] = frozenset()
    ) -> str:
        """The caller's name, from an `authorization` header and the names of a certificate.

        service: its short name. Raises Unauthenticated for who is not known, PermissionDenied for
        another service.
        """
        if authorization is None:
            found = self._by_certificate(certificate)
        else:
            found = self._by_token(authorization)
        if found is None or not (found.certificate is None or found.certificate in certificate):
            raise Unauthenticated
        if not found.may_call(service):
            raise PermissionDenied(found.name, service)
        return found.name

    def _by_token(self, authorization: str) -> Caller | None:
        scheme, _, token = authorization.partition(" ")
        digest = hashlib.sha256(token.strip().encode()).digest()
        found = None
        for caller in self._callers:  # all of them: no early end
            if caller.digest is not None and hmac.compare_digest(caller.digest, digest):
                found = caller
        return found if scheme.lower() == "bearer" else None

    def _by_certificate(self, names: frozenset[str]) -> Caller | None:
        alone = (caller for caller in self._callers if caller.digest is None)
        return next((caller for caller in alone if caller.certificate in names), None)


class CertificatesAlone:
    """Where nobody needs a token: each client is who its certificate says, and may call all."""

    def authorise(
        self, authorization: str | None, service: str, certificate: frozenset[str]
    ) -> str:
        """The caller's name, as of Tokens. Raises Unauthenticated for a nameless certificate."""
        if not certificate:
            raise Unauthenticated
        return "certificate:" + ",".join(sorted(certificate))


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
    if len({caller.digest or caller.certificate for caller in read}) < len(read):
        raise ConfigError(f"{path}: every caller must have a token or certificate of its own")
    return Tokens(read)


def _caller(path: str, name: str, entry: Any, known: frozenset[str]) -> Caller:
    where = f"{path}: callers.{name}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} must be a table")
    for key in entry.keys() - {"token", "sha256", "services", "certificate"}:
        raise ConfigError(f"{where}.{key} is unknown")
    services = entry.get("services")
    if services is not None:
        if not isinstance(services, list) or not set(map(str, services)) <= known:
            raise ConfigError(f"{where}.services must be a list of {', '.join(sorted(known))}")
        services = frozenset(services)
    certificate = entry.get("certificate")
    if certificate is not None and (not isinstance(certificate, str) or not certificate):
        raise ConfigError(f"{where}.certificate must be a name, got {certificate!r:.100}")
    return Caller(
        name=name,
        digest=_digest(where, entry),
        services=services,
        certificate=certificate,
    )


def _digest(where: str, entry: dict[str, Any]) -> bytes | None:
    token, sha256 = entry.get("token"), entry.get("sha256")
    if token is None and sha256 is None and "certificate" in entry:
        return None
    if (token is None) == (sha256 is None):
        raise ConfigError(f"{where} must have one of token and sha256, or a certificate")
    if sha256 is not None:
        if not isinstance(sha256, str) or not _HEX.fullmatch(sha256):
            raise ConfigError(f"{where}.sha256 must be 64 hexadecimal digits in lower case")
        return bytes.fromhex(sha256)
    if not isinstance(token, str) or len(token) < MIN_LENGTH or not token.isascii():
        raise ConfigError(f"{where}.token must be at least {MIN_LENGTH} ASCII characters")
    return hashlib.sha256(token.encode()).digest()
