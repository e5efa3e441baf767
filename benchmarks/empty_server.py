"""`spiketrain serve` with one more method, which answers at once: what gRPC itself costs.

    python benchmarks/empty_server.py serve MODEL --port 50051

The method `EMPTY` goes past everything that the server does around a call of its own services.
"""

from __future__ import annotations

from typing import Any

import grpc

from spiketrain.cli import main
from spiketrain.serving.rpc import server

EMPTY = "/empty.Empty/Empty"


async def answer(request: bytes, context: Any) -> bytes:
    """No bytes, at once."""
    return b""


class EmptyHandler(grpc.GenericRpcHandler):
    """Offers the method `EMPTY` alone."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler; None for other methods."""
        if handler_call_details.method != EMPTY:
            return None
        return grpc.unary_unary_rpc_method_handler(answer)


class EmptyServer(server.Server):
    """The server, with the method beside its services."""

    async def start(self) -> int:
        """Add the method, then listen."""
        self._server.add_generic_rpc_handlers((EmptyHandler(),))
        return await super().start()


if __name__ == "__main__":
    server.Server = EmptyServer  # type: ignore[misc]
    main()
