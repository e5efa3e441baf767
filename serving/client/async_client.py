"""`client.py` for event loops: the same methods, to be awaited."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import GenericAlias
from typing import Any, TypeVar

import grpc

from spiketrain.serving.client.channel import Access, open_channel
from spiketrain.serving.client.description import Awaited, Stream, Unary, with_methods
from spiketrain.serving.client.methods import Methods
from spiketrain.serving.client.retry import Retry, ServerError
from spiketrain.serving.client.stubs import stubs

T = TypeVar("T")


def _reply_method(describe: Callable[..., Any]) -> Callable[..., Any]:
    async def method(self: "AsyncClient", *args: Any, **kwargs: Any) -> Any:
        call = describe(self, *args, **kwargs)
        if isinstance(call, Unary):
            return await self._reply(call)
        async with aclosing(self._events(call.stream)) as events:
            return call.gather([event async for event in events])

    return method


def _stream_method(describe: Callable[..., Any]) -> Callable[..., Any]:
    async def method(self: "AsyncClient", *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(self._events(describe(self, *args, **kwargs))) as events:
            async for event in events:
                yield event

    return method


@with_methods(
    _reply_method, _stream_method, lambda event: GenericAlias(AsyncGenerator, (event, None))
)
class AsyncClient(Methods, Awaited):
    """A connection to one server, address "host:port"; a context that closes it. One loop."""

    def __init__(
        self, address: str, access: Access | None = None, retry: Retry | None = None
    ) -> None:
        """Connects when first used. Raises ConfigError for what is no address."""
        access = access or Access()
        self._channel = open_channel(grpc.aio, address, access)
        self._metadata = access.metadata
        self._retry = retry or Retry()
        self._stubs = stubs(self._channel)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; running calls are cancelled."""
        await self._channel.close()

    async def _reply(self, call: Unary[T]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return call.read(await self._stubs[call.rpc](call.sent, metadata=self._metadata))
            except grpc.RpcError as failure:
                error = ServerError(failure)
            await self._wait(call, error, attempt)

    async def _events(self, call: Stream[T]) -> AsyncGenerator[T, None]:
        attempt = 0
        while True:
            attempt += 1
            begun = False
            try:
                async with aclosing(self._events_of_one(call)) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except ServerError as failure:
                if begun:
                    raise
                error = failure
            await self._wait(call, error, attempt)

    async def _events_of_one(self, call: Stream[T]) -> AsyncGenerator[T, None]:
        """The events of one attempt."""
        replies = self._stubs[call.rpc](call.sent, timeout=call.timeout_s, metadata=self._metadata)
        try:
            async for reply in replies:
                event = call.read(reply)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise ServerError(error) from None
        finally:
            replies.cancel()

    async def _wait(self, call: Unary[Any] | Stream[Any], error: ServerError, attempt: int) -> None:
        """Until the call may be made again; raises the error where it must not."""
        wait_s = None if call.once else self._retry.wait_s(error, attempt, call.changes)
        if wait_s is None:
            raise error
        await asyncio.sleep(wait_s)
