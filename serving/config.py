"""ServingConfig: how a model is served. Frozen, checked at birth; opens nothing."""

from dataclasses import dataclass

from serving.errors import ConfigError

# Smallest allowed value of each integer field.
_LEAST = {
    "port": 0,
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
}
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """Addresses, limits and pace of a server.

    host, port: where to listen; port 0 takes a free one. port_file: written with the chosen port.
    max_batch_size: sequences decoded at once. max_queue: requests that may wait for a slot.
    prefill_chunk, prefill_chunk_idle: most prompt tokens read at once while others decode, and
    while nobody does. max_prompt_tokens, max_new_tokens: limits of one request.
    max_unread_tokens: a sequence pauses when its reader is this far behind.
    flush_interval_s: how long tokens may be gathered before a message is sent.
    grace_s: time that running requests get to finish at shutdown.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    port_file: str | None = None
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
    flush_interval_s: float = 0.008
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigError("host must name an address, got ''")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
                rule = f"an integer from {least} to {_MOST}"
                raise ConfigError(f"{name} must be {rule}, got {value!r}")
        if self.port > 65535:
            raise ConfigError(f"port must be at most 65535, got {self.port}")
        for name in ("flush_interval_s", "grace_s"):
            value = getattr(self, name)
            if not 0.0 <= value < float("inf"):
                raise ConfigError(f"{name} must be finite and at least 0, got {value!r}")
