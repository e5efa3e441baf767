"""Descriptions of calls: what is sent where, how a reply is read, when it may be made again.

A method of both clients is one function that describes its call. Each client has an executor that
makes such calls: one waits in the caller's thread, the other one on the caller's event loop.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args, get_type_hints, overload

Arguments = ParamSpec("Arguments")
Reply = TypeVar("Reply")
Event = TypeVar("Event")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary(Generic[Reply]):
    """A call with one reply.

    rpc: "Service.Method". sent: the message, or all messages of a client's stream. read: what the
    reply says. changes: whether the call must not be made twice. once: whether no error lets the
    client make the call again.
    """

    rpc: str
    sent: Any
    read: Callable[[Any], Reply]
    changes: bool = False
    once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Generic[Event]):
    """A call with a stream of replies; closing its iterator cancels it. Fields as of Unary.

    read: None for a reply that is to be skipped. timeout_s: None for no deadline.
    """

    rpc: str
    sent: Any
    read: Callable[[Any], Event | None]
    changes: bool = False
    once: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered(Generic[Event, Reply]):
    """One reply that is made of all events of a stream."""

    stream: Stream[Event]
    gather: Callable[[Iterable[Event]], Reply]


class Blocking:
    """A client whose methods wait."""


class Awaited:
    """A client whose methods are awaited."""


class ReplyMethod(Generic[Arguments, Reply]):
    """A method of both clients that gives one reply; decorates the function that describes it."""

    def __init__(
        self,
        describe: Callable[Concatenate[Any, Arguments], Unary[Reply] | Gathered[Any, Reply]],
    ) -> None:
        self.describe = describe

    @overload
    def __get__(self, client: Blocking, owner: Any) -> Callable[Arguments, Reply]: ...

    @overload
    def __get__(
        self, client: Awaited, owner: Any
    ) -> Callable[Arguments, Coroutine[Any, Any, Reply]]: ...

    @overload
    def __get__(self, client: None, owner: Any) -> Any: ...

    def __get__(self, client: Any, owner: Any) -> Any:
        """The description: each client has a function of its own in its place."""
        return self


class StreamMethod(Generic[Arguments, Event]):
    """A method of both clients that gives an iterator; decorates the function that describes it."""

    def __init__(self, describe: Callable[Concatenate[Any, Arguments], Stream[Event]]) -> None:
        self.describe = describe

    @overload
    def __get__(
        self, client: Blocking, owner: Any
    ) -> Callable[Arguments, Generator[Event, None, None]]: ...

    @overload
    def __get__(
        self, client: Awaited, owner: Any
    ) -> Callable[Arguments, AsyncGenerator[Event, None]]: ...

    @overload
    def __get__(self, client: None, owner: Any) -> Any: ...

    def __get__(self, client: Any, owner: Any) -> Any:
        """The description: each client has a function of its own in its place."""
        return self


Client = TypeVar("Client", bound=Blocking | Awaited)
Function = Callable[..., Any]


def with_methods(
    reply: Callable[[Function], Function],
    stream: Callable[[Function], Function],
    iterator: Callable[[Any], Any],
) -> Callable[[type[Client]], type[Client]]:
    """A decorator that gives a client a function for each description that its bases hold.

    reply, stream: the executor's function for a description. iterator: the type of what a stream's
    function returns, from the type of its events.
    """

    def decorate(client: type[Client]) -> type[Client]:
        members = [member for base in client.__bases__ for member in vars(base).items()]
        for name, description in members:
            if isinstance(description, ReplyMethod):
                function, result = reply(description.describe), _described(description.describe)
            elif isinstance(description, StreamMethod):
                function = stream(description.describe)
                result = iterator(_described(description.describe))
            else:
                continue
            setattr(client, name, _as_method(description.describe, function, result))
        return client

    return decorate


def _described(describe: Function) -> Any:
    """The type of a description's reply or events."""
    return get_args(get_type_hints(describe)["return"])[-1]


def _as_method(describe: Function, function: Function, result: Any) -> Function:
    """The function under a description's name, parameters and docstring."""
    method: Any = wraps(describe)(function)
    method.__annotations__ = {**describe.__annotations__, "return": result}
    method.__signature__ = signature(describe).replace(return_annotation=result)
    return method  # type: ignore[no-any-return]
