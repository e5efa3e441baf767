"""TLS credentials of a server from PEM files, checked before gRPC sees them."""

import ssl
from pathlib import Path

import grpc

from spiketrain.serving.config import ServingConfig
from spiketrain.serving.errors import ConfigError


def server_credentials(config: ServingConfig) -> grpc.ServerCredentials | None:
    """Credentials of tls_cert and tls_key, asking clients for a certificate of tls_client_ca.

    None without TLS. Raises ConfigError naming setting and file.
    """
    if config.tls_cert is None or config.tls_key is None:
        return None
    cert, key = _read("tls_cert", config.tls_cert), _read("tls_key", config.tls_key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            config.tls_cert, config.tls_key, password=lambda: ""
        )
    except (ssl.SSLError, ValueError) as error:
        files = f"{config.tls_cert} and {config.tls_key}"
        raise ConfigError(
            f"tls_cert and tls_key must be a PEM certificate and its key without a password, "
            f"got {files} ({error})"
        ) from None
    if config.tls_client_ca is None:
        return grpc.ssl_server_credentials([(key, cert)])
    authority = _read("tls_client_ca", config.tls_client_ca)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(config.tls_client_ca)
    except ssl.SSLError as error:
        rule = f"must hold PEM certificates, got {config.tls_client_ca} ({error})"
        raise ConfigError(f"tls_client_ca {rule}") from None
    return grpc.ssl_server_credentials([(key, cert)], authority, require_client_auth=True)


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read ({error.strerror})") from None
