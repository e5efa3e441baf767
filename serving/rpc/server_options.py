"""Options of gRPC's core for a server: bounds on what it takes in before we see any of it."""

from spiketrain.serving.config import ServingConfig

KEEPALIVE_S = 60.0  # a client that answers no ping is gone
KEEPALIVE_TIMEOUT_S = 20.0
HANDSHAKE_TIMEOUT_S = 10.0  # of TLS and of HTTP/2
METADATA_BYTES = 16 << 10
MORE_STREAMS = 128  # of one connection than calls may be: for refusals, and for Health
UNREAD_BYTES = 64 << 10  # of a stream that nobody reads yet


def server_options(config: ServingConfig) -> list[tuple[str, int]]:
    """Names and values, times in milliseconds."""
    return [
        ("grpc.so_reuseport", 0),  # a port in use is an error, not a shared port
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.http2.lookahead_bytes", UNREAD_BYTES),
        ("grpc.http2.bdp_probe", 0),  # it would raise what is taken unread to megabytes
        ("grpc.max_concurrent_streams", config.max_calls + MORE_STREAMS),
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        ("grpc.max_connection_idle_ms", _ms(config.idle_connection_s)),
        ("grpc.server_handshake_timeout_ms", _ms(HANDSHAKE_TIMEOUT_S)),
        ("grpc.keepalive_time_ms", _ms(KEEPALIVE_S)),
        ("grpc.keepalive_timeout_ms", _ms(KEEPALIVE_TIMEOUT_S)),
    ]


def _ms(seconds: float) -> int:
    return min(round(1e3 * seconds), 2**31 - 1)
