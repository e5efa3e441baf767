"""Bodies: requests are read once their call may be made, and refused before they are parsed.

gRPC's server for Python parses the request of a call with one request before anybody may look at
its metadata. Here all calls are taken as streams of bytes, which look the same to a client, so that
whoever stands around a call decides first, and a message that is too much is never parsed.
"""

import inspect
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.message import DecodeError
from grpc.aio import EOF  # type: ignore[attr-defined]

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.isolation.beside import beside
from spiketrain.serving.isolation.budget import Budget, Held
from spiketrain.serving.rpc.arrivals import Arrivals
from spiketrain.serving.rpc.caller import caller
from spiketrain.serving.rpc.status import errors_as_status
from spiketrain.serving.rpc.wire_scan import malformed, scan, shape_of

OURS = "/spiketrain."
OTHERS_BYTES = 4096  # of a message to another service than ours: health, reflection
LARGE_BYTES = 4096  # a message from here on is parsed beside the event loop


class Parser:
    """Messages of one kind from bytes; raises RequestError for bytes that are none."""

    def __init__(self, parse: Callable[[bytes], Any], most_bytes: int | None = None) -> None:
        """parse: `FromString` of a generated class. most_bytes: None for gRPC's limit alone."""
        self._parse = parse
        self._shape = shape_of(parse.__self__.DESCRIPTOR)  # type: ignore[attr-defined]
        self._most_bytes = most_bytes

    async def message(self, data: bytes) -> Any:
        """The message; beside the event loop where it is large."""
        if self._most_bytes is not None and len(data) > self._most_bytes:
            raise RequestError("request", f"be at most {self._most_bytes} bytes", len(data))
        return (
            await beside(False, self.parsed, data)
            if len(data) >= LARGE_BYTES
            else self.parsed(data)
        )

    def parsed(self, data: bytes) -> Any:
        """The message, whatever takes its time."""
        scan(data, self._shape)
        try:
            return self._parse(data)
        except DecodeError:
            raise malformed(len(data)) from None


class Reading:
    """How calls of one server get their requests: within its budget, as they arrive."""

    def __init__(
        self,
        budget: Budget,
        arrivals: Arrivals,
        rooms: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        """rooms: what raises an error for a method while there is no room for its calls."""
        self._budget = budget
        self._arrivals = arrivals
        self._rooms = rooms or {}

    def room(self, method: str) -> Callable[[str], None]:
        """What raises an error where a caller of a method has no room for a call."""
        check = self._rooms.get(method)

        def room(caller: str) -> None:
            if check is not None:
                check()
            self._budget.check_call(caller)

        return room

    def enter(self, context: Any) -> Held:
        """Begin a call, until gRPC is done with it. Raises ServerBusy."""
        held = self._budget.enter(caller())
        context.add_done_callback(lambda _: held.end())
        return held

    async def one(self, context: Any, parser: Parser, held: Held) -> Any:
        """The message of a call that has one."""
        data = await self._arrivals.request(context.read)
        if data is EOF:
            raise RequestError("request", "be one message", "none")
        await self._budget.hold(held, len(data))
        return await parser.message(data)

    async def each(self, context: Any, parser: Parser, held: Held) -> AsyncIterator[Any]:
        """The messages of a call that has any number; one is held until the next is asked for."""
        while (data := await self._arrivals.message(context.read)) is not EOF:
            await self._budget.hold(held, len(data))
            yield await parser.message(data)
            held.shrink(0)


class Bodies:
    """Reads and parses the requests of all calls.

    ours, others: how the requests of our services and of others (health, reflection) are read.
    """

    def __init__(self, ours: Reading, others: Reading) -> None:
        self._ours = ours
        self._others = others

    def room(self, method: str) -> Callable[[str], None]:
        """What raises an error where a caller of a method has no room for a call."""
        return self._of(method).room(method)

    def of_bytes(self, method: str, handler: Any) -> Any:
        """The handler of a method as one of a stream of bytes; its replies may be bytes as well."""
        most_bytes = None if method.startswith(OURS) else OTHERS_BYTES
        parser = Parser(handler.request_deserializer, most_bytes)
        return _of_bytes(handler, parser, self._of(method))

    def _of(self, method: str) -> Reading:
        return self._ours if method.startswith(OURS) else self._others


def _of_bytes(handler: Any, parser: Parser, reading: Reading) -> Any:
    serialize = _bytes_or(handler.response_serializer)
    streamed = handler.response_streaming
    work = (
        _streamed(handler, parser, reading)
        if streamed
        else _answered(handler, parser, reading, serialize)
    )
    return handler._replace(
        request_streaming=True,
        request_deserializer=None,
        response_serializer=serialize,
        unary_unary=None,
        unary_stream=None,
        stream_unary=None if streamed else work,
        stream_stream=work if streamed else None,
    )


def _answered(
    handler: Any,
    parser: Parser,
    reading: Reading,
    serialize: Callable[[Any], bytes],
) -> Any:
    # A message is never a variable here: who has taken what it says may forget it.
    async def one(_: Any, context: Any) -> bytes:
        async with _ended(context):
            held = reading.enter(context)
            request = reading.one(context, parser, held)
            return settled(held, await handler.unary_unary(await request, context))

    async def each(_: Any, context: Any) -> bytes:
        async with _ended(context):
            held = reading.enter(context)
            requests = reading.each(context, parser, held)
            return settled(held, await handler.stream_unary(requests, context))

    def settled(held: Held, reply: Any) -> bytes:
        data = serialize(reply)
        held.shrink(len(data))
        return data

    return each if handler.request_streaming else one


def _streamed(handler: Any, parser: Parser, reading: Reading) -> Any:
    async def one(_: Any, context: Any) -> AsyncIterator[Any]:
        async with _ended(context):
            held = reading.enter(context)
            request = await reading.one(context, parser, held)
            replies = handler.unary_stream(request, context)
            del request
            async for reply in replies:
                yield reply

    async def writes(_: Any, context: Any) -> None:
        async with _ended(context):
            held = reading.enter(context)
            await handler.unary_stream(await reading.one(context, parser, held), context)

    async def each(_: Any, context: Any) -> AsyncIterator[Any]:
        async with _ended(context):
            held = reading.enter(context)
            requests = reading.each(context, parser, held)
            async for reply in handler.stream_stream(requests, context):
                yield reply

    if handler.request_streaming:
        return each
    return writes if inspect.iscoroutinefunction(handler.unary_stream) else one


@asynccontextmanager
async def _ended(context: Any) -> AsyncIterator[None]:
    """Errors as the status of a call, of whose frames no variable is kept.

    gRPC keeps the exception that ended a call in a cycle of references: what its frames hold would
    stay until the collector of such cycles runs, which megabytes of text do not hasten.
    """
    try:
        async with errors_as_status(context):
            yield
    except BaseException as error:
        _forget(error)
        raise


def _forget(error: BaseException | None) -> None:
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error.__context__, error = None, error.__context__


def _bytes_or(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A serializer that takes bytes for a message that is serialized already."""
    return lambda reply: reply if isinstance(reply, bytes) else serialize(reply)
