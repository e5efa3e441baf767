"""What happens around every call: who may, what it is called, what is counted, what is refused.

One interceptor does it all, with one wrapper for each method that is made at its first call.
"""

import inspect
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from spiketrain.serving.errors import ServingError
from spiketrain.serving.rpc.bodies import OURS, Bodies
from spiketrain.serving.rpc.caller import set_caller
from spiketrain.serving.rpc.refusals import REQUEST_ID, Refusal, Refusals
from spiketrain.serving.rpc.tokens import CertificatesAlone, Tokens
from spiketrain.serving.rpc.tracing import Tracing

if TYPE_CHECKING:
    from spiketrain.serving.rpc.metrics import Metrics

OPEN = "/grpc.health."  # what asks for health has no token
TRACE = "traceparent"
_GOOD_ID = re.compile(r"[\x21-\x7e]{1,128}")

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Method:
    """What has to be known of a method before a call of it goes on."""

    name: str  # "/package.Service/Method"
    service: str  # the short name
    is_ours: bool
    has_authority: bool
    room: Callable[[str], None]


class Calls(grpc.aio.ServerInterceptor):
    """Lets calls through, or refuses them before their requests are read.

    A call of our services has an id that log lines, errors and trailers bear, is counted, and has a
    span. Health needs no token. From its beginning `caller()` says who makes a call.
    """

    def __init__(
        self,
        bodies: Bodies,
        metrics: "Metrics | None" = None,
        tracing: Tracing | None = None,
        authority: Tokens | CertificatesAlone | None = None,
    ) -> None:
        """authority: says whether a call may be made; None lets everybody."""
        self._bodies = bodies
        self._metrics = metrics
        self._tracing = tracing
        self._authority = authority
        self._refusals = Refusals()
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler of a method, wrapped."""
        name = handler_call_details.method
        wrapped = self._handlers.get(name)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None or handler.request_deserializer is None:
                return handler  # unknown, or made for bytes that nobody has to read here
            wrapped = self._handlers[name] = self._wrapped(self._method(name), handler)
        return wrapped

    def _method(self, name: str) -> _Method:
        service = short_name(name.lstrip("/").partition("/")[0])
        has_authority = self._authority is not None and not name.startswith(OPEN)
        return _Method(
            name=name,
            service=service,
            is_ours=name.startswith(OURS),
            has_authority=has_authority,
            room=self._bodies.room(name),
        )

    def _wrapped(self, method: _Method, handler: Any) -> Any:
        """The handler with its work done after `_admit`, and inside `_around`."""
        handler = self._bodies.of_bytes(method.name, handler)
        inner = handler.stream_stream or handler.stream_unary

        async def unary(request: Any, context: Any) -> Any:
            metadata = _metadata(context)
            await self._admit(method, metadata, context)
            async with self._around(method, metadata, context):
                return await inner(request, context)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            metadata = _metadata(context)
            await self._admit(method, metadata, context)
            async with self._around(method, metadata, context):
                async for reply in inner(request, context):
                    yield reply

        if handler.response_streaming:
            writes = inspect.iscoroutinefunction(inner)
            return handler._replace(stream_stream=unary if writes else stream)
        return handler._replace(stream_unary=unary)

    async def _admit(self, method: _Method, metadata: dict[str, str], context: Any) -> None:
        """Let a call go on, or end it with a status. Raises grpc.aio.AbortError."""
        try:
            name = ""
            if method.has_authority and self._authority is not None:
                header, names = metadata.get("authorization"), _certificate_names(context)
                name = self._authority.authorise(header, method.service, names)
                set_caller(name)
            method.room(name)
        except ServingError as error:
            await self._refuse(method, metadata, context, self._refusals.of(error))
        structlog.contextvars.clear_contextvars()
        if name:
            structlog.contextvars.bind_contextvars(caller=name)

    async def _refuse(
        self, method: _Method, metadata: dict[str, str], context: Any, refusal: Refusal
    ) -> None:
        """End a call; it has a span only within a trace of its client's."""
        request_id = _request_id(metadata) if method.is_ours else None
        if method.is_ours and self._metrics is not None:
            self._metrics.ended(method.name.lstrip("/"), refusal.code.name)
        if method.is_ours and self._tracing is not None and TRACE in metadata:
            with self._tracing.span(method.name, metadata) as span:
                _describe(span, refusal.code.name, request_id)
        await refusal.end(context, request_id)

    @asynccontextmanager
    async def _around(
        self, method: _Method, metadata: dict[str, str], context: Any
    ) -> AsyncIterator[None]:
        """Name, count and trace a call of our services."""
        if not method.is_ours:
            yield
            return
        request_id = _request_id(metadata)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        tracing = self._tracing
        with tracing.span(method.name, metadata) if tracing else nullcontext() as span:
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
                    self._metrics.ended(method.name.lstrip("/"), code)
                if span is not None:
                    _describe(span, code, request_id)


def short_name(service: str) -> str:
    """The last part of a service's name: Generation of spiketrain.v1.Generation."""
    return service.rpartition(".")[2]


def _describe(span: Any, code: str, request_id: str | None) -> None:
    span.set_attribute("rpc.grpc.status_code", code)
    span.set_attribute("spiketrain.request_id", request_id)


def _request_id(metadata: dict[str, str]) -> str:
    """The client's id where it is a good one, else a new one."""
    sent = metadata.get(REQUEST_ID, "")
    return sent if _GOOD_ID.fullmatch(sent) else uuid.uuid4().hex


def _metadata(context: Any) -> dict[str, str]:
    pairs = context.invocation_metadata() or ()
    return {key: value for key, value in pairs if isinstance(value, str)}


def _certificate_names(context: Any) -> frozenset[str]:
    """Names that a client's certificate bears: alternative ones, or without any its common one."""
    attributes = context.auth_context()
    names = (
        attributes.get("x509_subject_alternative_name") or attributes.get("x509_common_name") or ()
    )
    return frozenset(name.decode(errors="backslashreplace") for name in names)


def _code(context: Any) -> str:
    """Canonical name of the status that a call ends with."""
    code = context.code() or 0
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code
    return next(status.name for status in grpc.StatusCode if status.value[0] == number)
