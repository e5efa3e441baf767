"""A client: plain data in and out, errors of the server as ServerError, retries where safe."""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from types import GenericAlias
from typing import Any, TypeVar

import grpc

from spiketrain.serving.client.channel import Access, open_channel
from spiketrain.serving.client.description import Blocking, Stream, Unary, with_methods
from spiketrain.serving.client.methods import Methods
from spiketrain.serving.client.retry import Retry, ServerError
from spiketrain.serving.client.stubs import stubs

T = TypeVar("T")


def _reply_method(describe: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: "Client", *args: Any, **kwargs: Any) -> Any:
        call = describe(self, *args, **kwargs)
        if isinstance(call, Unary):
            return self._reply(call)
        return call.gather(self._events(call.stream))

    return method


def _stream_method(describe: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: "Client", *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        yield from self._events(describe(self, *args, **kwargs))

    return method


@with_methods(
    _reply_method, _stream_method, lambda event: GenericAlias(Generator, (event, None, None))
)
class Client(Methods, Blocking):
    """A connection to one server, address "host:port"; a context that closes it. Any thread."""

    def __init__(
        self, address: str, access: Access | None = None, retry: Retry | None = None
    ) -> None:
        """Connects when first used. Raises ConfigError for what is no address."""
        access = access or Access()
        self._channel = open_channel(grpc, address, access)
        self._metadata = access.metadata
        self._retry = retry or Retry()
        self._stubs = stubs(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; running calls are cancelled."""
        self._channel.close()

    def _reply(self, call: Unary[T]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return call.read(self._stubs[call.rpc](call.sent, metadata=self._metadata))
            except grpc.RpcError as failure:
                error = ServerError(failure)
            self._wait(call, error, attempt)

    def _events(self, call: Stream[T]) -> Generator[T, None, None]:
        attempt = 0
        while True:
            attempt += 1
            begun = False
            try:
                with closing(self._events_of_one(call)) as events:
                    for event in events:
                        begun = True
                        yield event
                return
            except ServerError as failure:
                if begun:
                    raise
                error = failure
            self._wait(call, error, attempt)

    def _events_of_one(self, call: Stream[T]) -> Generator[T, None, None]:
        """The events of one attempt."""
        replies = self._stubs[call.rpc](call.sent, timeout=call.timeout_s, metadata=self._metadata)
        try:
            for reply in replies:
                event = call.read(reply)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise ServerError(error) from None
        finally:
            replies.cancel()

    def _wait(self, call: Unary[Any] | Stream[Any], error: ServerError, attempt: int) -> None:
        """Until the call may be made again; raises the error where it must not."""
        wait_s = None if call.once else self._retry.wait_s(error, attempt, call.changes)
        if wait_s is None:
            raise error
        time.sleep(wait_s)
