"""What happens around every call of our services: who may, what it is called, what is counted."""

import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc_status import rpc_status

from spiketrain.serving.errors import PermissionDenied, Unauthenticated
from spiketrain.serving.rpc.bodies import OURS, Continuation
from spiketrain.serving.rpc.caller import set_caller
from spiketrain.serving.rpc.status import to_status
from spiketrain.serving.rpc.tokens import CertificatesAlone, Tokens
from spiketrain.serving.rpc.tracing import Tracing

if TYPE_CHECKING:
    from spiketrain.serving.rpc.metrics import Metrics

OPEN = "/grpc.health."  # what asks for health has no token
REQUEST_ID = "x-request-id"
_GOOD_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Authorisation(grpc.aio.ServerInterceptor):
    """Lets a call through if its token or certificate is good for its service; health needs none.

    From then on `caller()` says who makes it.
    """

    def __init__(self, tokens: Tokens | CertificatesAlone) -> None:
        self._tokens = tokens

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Have the call refused, or done by its caller."""
        method = handler_call_details.method
        if method.startswith(OPEN):
            return await continuation(handler_call_details)
        header = _metadata(handler_call_details).get("authorization")
        service = short_name(method.lstrip("/").partition("/")[0])

        @asynccontextmanager
        async def around(context: Any) -> AsyncIterator[None]:
            try:
                name = self._tokens.authorise(header, service, _certificate_names(context))
            except (Unauthenticated, PermissionDenied) as error:
                await context.abort_with_status(rpc_status.to_status(to_status(error)))
            set_caller(name)
            structlog.contextvars.bind_contextvars(caller=name)
            yield

        return _wrapped(await continuation(handler_call_details), around)


class Calls(grpc.aio.ServerInterceptor):
    """Gives each call an id that log lines, errors and trailers bear; counts it; makes its span."""

    def __init__(self, metrics: "Metrics | None", tracing: Tracing | None) -> None:
        self._metrics = metrics
        self._tracing = tracing

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Wrap the handler of our own services."""
        method, metadata = handler_call_details.method, _metadata(handler_call_details)
        if not method.startswith(OURS):
            return await continuation(handler_call_details)
        asked = metadata.get(REQUEST_ID, "")
        request_id = asked if _GOOD_ID.fullmatch(asked) else uuid.uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)

        @asynccontextmanager
        async def around(context: Any) -> AsyncIterator[None]:
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
            tracing = self._tracing
            with tracing.span(method, metadata) if tracing else nullcontext() as span:
                cancelled = True
                try:
                    yield
                    cancelled = False
                except grpc.aio.AbortError:
                    cancelled = False
                    raise
                finally:
                    code = "CANCELLED" if cancelled else _code(context)
                    if self._metrics is not None:
                        self._metrics.ended(method.lstrip("/"), code)
                    if span is not None:
                        span.set_attribute("rpc.grpc.status_code", code)
                        span.set_attribute("spiketrain.request_id", request_id)

        return _wrapped(await continuation(handler_call_details), around)


def short_name(service: str) -> str:
    """The last part of a service's name: Generation of spiketrain.v1.Generation."""
    return service.rpartition(".")[2]


def _metadata(details: grpc.HandlerCallDetails) -> dict[str, str]:
    pairs: Any = details.invocation_metadata or ()
    return {key: value for key, value in pairs if isinstance(value, str)}


def _certificate_names(context: Any) -> frozenset[str]:
    """Names that a client's certificate bears: alternative ones, or without any its common one."""
    found = context.auth_context()
    names = found.get("x509_subject_alternative_name") or found.get("x509_common_name") or ()
    return frozenset(name.decode(errors="backslashreplace") for name in names)


def _code(context: Any) -> str:
    """Canonical name of the status that a call ends with."""
    code = context.code() or 0
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code
    return next(status.name for status in grpc.StatusCode if status.value[0] == number)


def _wrapped(handler: Any, around: Callable[[Any], Any]) -> Any:
    """The handler with its work done inside `around(context)`."""
    if handler is None:
        return None
    inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
    if handler.response_streaming:
        inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async with around(context):
                async for reply in inner(request, context):
                    yield reply

        return _replaced(handler, stream)

    async def unary(request: Any, context: Any) -> Any:
        async with around(context):
            return await inner(request, context)

    return _replaced(handler, unary)


def _replaced(handler: Any, behaviour: Any) -> Any:
    requests = "stream" if handler.request_streaming else "unary"
    replies = "stream" if handler.response_streaming else "unary"
    return handler._replace(**{f"{requests}_{replies}": behaviour})
