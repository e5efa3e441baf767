"""How long the client of a call still waits."""

import grpc

MIN_TIMEOUT_S = 1e-6  # for a deadline that passed on the way
NO_TIMEOUT_S = 1e8  # gRPC says "about forever" for calls without a deadline


def timeout_s(context: grpc.aio.ServicerContext) -> float | None:
    """Seconds to the deadline of a call, above 0; None without one."""
    left_s = context.time_remaining()
    if left_s is None or left_s > NO_TIMEOUT_S:
        return None
    return max(left_s, MIN_TIMEOUT_S)
