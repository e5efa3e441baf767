"""Error kind -> gRPC status with details: one table. Raises nothing of its own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from spiketrain.runtime.errors import RequestError, TokenizerError
from spiketrain.serving.errors import (
    Cancelled,
    ConfinementFailed,
    ConstraintFailed,
    DeadlineExceeded,
    Draining,
    EngineFailure,
    Internal,
    NoChatTemplate,
    NothingAllowed,
    NoTokenizer,
    PermissionDenied,
    QueueFull,
    RequestLate,
    Unauthenticated,
)
from spiketrain.serving.sessions.errors import (
    BlobDamaged,
    BlobForeign,
    CheckpointNotFound,
    SessionBusy,
    SessionChanged,
    SessionNotFound,
    SessionsNotKept,
    SessionStoreFull,
)

log = structlog.get_logger()

_NO_FAULTS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
DOMAIN = "spiketrain"
MAX_MESSAGE = 300  # characters

# Error kind -> canonical code and reason (ErrorInfo.reason, stable).
TABLE: dict[type[Exception], tuple[int, str]] = {
    RequestError: (code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST"),
    TokenizerError: (code_pb2.INVALID_ARGUMENT, "NOT_ENCODABLE"),
    NoTokenizer: (code_pb2.FAILED_PRECONDITION, "NO_TOKENIZER"),
    NoChatTemplate: (code_pb2.FAILED_PRECONDITION, "NO_CHAT_TEMPLATE"),
    NothingAllowed: (code_pb2.INVALID_ARGUMENT, "NOTHING_ALLOWED"),
    ConstraintFailed: (code_pb2.INVALID_ARGUMENT, "CONSTRAINT_FAILED"),
    Unauthenticated: (code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED"),
    PermissionDenied: (code_pb2.PERMISSION_DENIED, "PERMISSION_DENIED"),
    QueueFull: (code_pb2.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    Draining: (code_pb2.UNAVAILABLE, "SHUTTING_DOWN"),
    RequestLate: (code_pb2.DEADLINE_EXCEEDED, "REQUEST_LATE"),
    DeadlineExceeded: (code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    SessionNotFound: (code_pb2.NOT_FOUND, "SESSION_NOT_FOUND"),
    CheckpointNotFound: (code_pb2.NOT_FOUND, "CHECKPOINT_NOT_FOUND"),
    SessionChanged: (code_pb2.ABORTED, "SESSION_CHANGED"),
    SessionBusy: (code_pb2.ABORTED, "SESSION_BUSY"),
    SessionStoreFull: (code_pb2.RESOURCE_EXHAUSTED, "SESSIONS_FULL"),
    SessionsNotKept: (code_pb2.UNAVAILABLE, "SESSIONS_NOT_KEPT"),
    BlobDamaged: (code_pb2.DATA_LOSS, "SESSION_DAMAGED"),
    BlobForeign: (code_pb2.FAILED_PRECONDITION, "SESSION_OF_ANOTHER_MODEL"),
    Cancelled: (code_pb2.CANCELLED, "CANCELLED"),
    EngineFailure: (code_pb2.INTERNAL, "MODEL_FAILED"),
    ConfinementFailed: (code_pb2.INTERNAL, "INTERNAL"),
    Internal: (code_pb2.INTERNAL, "INTERNAL"),
}


@asynccontextmanager
async def errors_as_status(context: Any) -> AsyncIterator[None]:
    """Abort the RPC with the table's status when the body raises one of its errors.

    Anything else is answered as an Internal, also what is no Exception: a panic of a library would
    leave the call without an answer.
    """
    try:
        yield
    except tuple(TABLE) as error:
        failure: Exception = error
    except (grpc.aio.AbortError, *_NO_FAULTS):
        raise
    except BaseException as error:
        log.error("a call failed", error=repr(error), exc_info=error)
        failure = Internal()
    else:
        return
    await context.abort_with_status(rpc_status.to_status(to_status(failure)))


def to_status(error: Exception) -> status_pb2.Status:
    """The google.rpc.Status of an error of the table, with the id of the call under way."""
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    return status_of(error, request_id)


def status_of(error: Exception, request_id: str | None) -> status_pb2.Status:
    """The same with this id; None for none."""
    text = _short(str(error))
    code, reason = next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)]
    if isinstance(error, RequestError):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=text)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, SessionNotFound | CheckpointNotFound):
        kind, name = error.resource
        details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name))
    if isinstance(error, QueueFull | Draining | SessionBusy | SessionStoreFull | SessionsNotKept):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(1e9 * error.retry_after_s))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if request_id is not None:
        details.append(error_details_pb2.RequestInfo(request_id=request_id))
    return status_pb2.Status(code=code, message=text, details=_pack(details))


def _short(text: str) -> str:
    """A text that fits the trailers of a call, which gRPC limits, twice; a long value is cut."""
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "\u2026"


def _pack(details: Sequence[Message]) -> list[any_pb2.Any]:
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return packed
