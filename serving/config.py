"""ServingConfig: how a model is served. Frozen, checked at birth; opens nothing."""

from dataclasses import dataclass

from spiketrain.serving.errors import ConfigError

# Smallest allowed value of each integer field.
_LEAST = {
    "port": 0,
    "metrics_port": 0,
    "max_batch_size": 1,
    "max_queue": 0,
    "prefill_chunk": 1,
    "prefill_chunk_idle": 1,
    "max_prompt_tokens": 1,
    "max_new_tokens": 1,
    "max_stop_sequences": 0,
    "max_stop_sequence_bytes": 1,
    "max_grammar_bytes": 1,
    "max_unread_tokens": 1,
    "max_message_bytes": 1024,
    "max_calls": 1,
    "max_connections": 1,
    "request_bytes": 1 << 20,
    "state_bytes": 1,
    "prefix_cache_bytes": 0,
    "session_bytes": 0,
}
_ABOVE_ZERO = (
    "max_stall_s",
    "session_ttl_s",
    "request_timeout_s",
    "idle_stream_s",
    "idle_connection_s",
)
_MOST = 2**31 - 1
_MAX_BYTES = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """Addresses, limits and pace of a server.

    host, port: where to listen; port 0 takes a free one. port_file: written with the chosen port.
    tls_cert, tls_key: PEM files of the server; tls_client_ca: of who signed the clients'.
    tokens_file: bearer tokens (`tokens.py`). metrics_host, metrics_port: where metrics are shown,
    if at all. otlp_endpoint: where spans are sent, if at all.
    max_batch_size: sequences decoded at once. max_queue: requests that may wait for a slot.
    prefill_chunk, prefill_chunk_idle: most prompt tokens read at once while others decode, and
    while nobody does. max_prompt_tokens, max_new_tokens: limits of one request.
    max_unread_tokens: a sequence pauses when its reader is this far behind.
    max_calls, max_connections: of all clients at once. request_bytes: for requests that are read,
    parsed and encoded; a byte of one counts 40. request_timeout_s: how long a call may take to send
    its request; idle_stream_s: a stream, to send the next message. idle_connection_s: how long a
    connection may have no call.
    flush_interval_s: how long tokens may be gathered before a message is sent.
    grace_s: time that running requests get to finish at shutdown.
    state_bytes: for the states and logits of running sequences, which may be fewer than
    max_batch_size for it. max_stall_s: how long running streams may wait for others' prompts.
    prefix_cache_bytes: for states of prompts' beginnings, 0 for none.
    session_bytes: for all sessions. session_ttl_s: longest time to live of a session.
    session_dir: keeps sessions over restarts; None keeps them in memory. session_sync: whether
    every change waits until it is on disk.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    port_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    tokens_file: str | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    otlp_endpoint: str | None = None
    max_batch_size: int = 32
    max_queue: int = 128
    prefill_chunk: int = 64
    prefill_chunk_idle: int = 512
    max_prompt_tokens: int = 65536
    max_new_tokens: int = 65536
    max_stop_sequences: int = 16
    max_stop_sequence_bytes: int = 256
    max_grammar_bytes: int = 64 << 10
    max_unread_tokens: int = 1024
    max_message_bytes: int = 4 << 20
    max_calls: int = 1024
    max_connections: int = 1024
    request_bytes: int = 96 << 20
    request_timeout_s: float = 10.0
    idle_stream_s: float = 60.0
    idle_connection_s: float = 300.0
    flush_interval_s: float = 0.008
    grace_s: float = 10.0
    state_bytes: int = 1 << 30
    max_stall_s: float = 0.05
    prefix_cache_bytes: int = 256 << 20
    session_bytes: int = 1 << 30
    session_ttl_s: float = 3600.0
    session_dir: str | None = None
    session_sync: bool = False

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigError("host must name an address, got ''")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name == "metrics_port":
                continue
            most = _MAX_BYTES if name.endswith("_bytes") else _MOST
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                rule = f"an integer from {least} to {most}"
                raise ConfigError(f"{name} must be {rule}, got {value!r}")
        if self.port > 65535:
            raise ConfigError(f"port must be at most 65535, got {self.port}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls_cert and tls_key must be given together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ConfigError("tls_client_ca must be left out without tls_cert and tls_key")
        for name in ("flush_interval_s", "grace_s"):
            value = getattr(self, name)
            if not 0.0 <= value < float("inf"):
                raise ConfigError(f"{name} must be finite and at least 0, got {value!r}")
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if not 0.0 < value < float("inf"):
                raise ConfigError(f"{name} must be finite and above 0, got {value!r}")
