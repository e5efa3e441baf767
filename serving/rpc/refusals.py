"""Refusals: statuses that are made once, and sent to every call that ends with the same error.

A server that has too much to do refuses many calls. So a refusal makes no message but that of the
request id, and is one write.
"""

from typing import Any

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from spiketrain.serving.rpc.status import status_of

DETAILS = "grpc-status-details-bin"
REQUEST_ID = "x-request-id"
MAX_KEPT = 128  # statuses: the texts of refusals differ in few numbers and names


class Refusal:
    """The status of one error: code, text, and the bytes of its details."""

    def __init__(self, error: Exception) -> None:
        """error: one of the table of `status.py`; its status is made outside any call."""
        status = status_of(error, None)
        sent = rpc_status.to_status(status)
        self.code = sent.code
        self._text = status.message
        self._details = status.SerializeToString()

    async def end(self, context: Any, request_id: str | None) -> None:
        """End a call with this status; None: it has no id. Raises grpc.aio.AbortError."""
        details = self._details
        trailers: tuple[tuple[str, str], ...] = ()
        if request_id is not None:
            # Messages merge where their bytes are joined: the id is one more of the details.
            details += _with_id(request_id)
            trailers = ((REQUEST_ID, request_id),)
        await context.abort(self.code, self._text, (*trailers, (DETAILS, details)))


class Refusals:
    """Refusals that have occurred, the latest `MAX_KEPT` of them. Used on one event loop."""

    def __init__(self) -> None:
        self._kept: dict[tuple[type, str], Refusal] = {}

    def of(self, error: Exception) -> Refusal:
        """The refusal of an error, made where none of its kind and text is kept."""
        key = type(error), str(error)
        refusal = self._kept.get(key)
        if refusal is None:
            while len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            refusal = self._kept[key] = Refusal(error)
        return refusal


def _with_id(request_id: str) -> bytes:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RequestInfo(request_id=request_id))
    content: bytes = status_pb2.Status(details=[detail]).SerializeToString()
    return content
