"""Messages to requests, events to messages. No policy, no arrays, no `except` of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import grpc

import spiketrain.v1.generation_pb2_grpc as generation_grpc
from spiketrain.runtime.errors import RequestError
from spiketrain.runtime.logprobs import TokenLogprob
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.isolation.beside import beside
from spiketrain.serving.request.events import Delta, Event, Finish, join
from spiketrain.serving.request.request import Request
from spiketrain.serving.request.tokenization import Tokenization
from spiketrain.serving.rpc.caller import caller
from spiketrain.serving.rpc.chat_wire import to_chat
from spiketrain.serving.rpc.inflight import InFlight
from spiketrain.serving.rpc.reply_wire import to_reply, to_response
from spiketrain.serving.rpc.status import errors_as_status
from spiketrain.serving.rpc.timeout import timeout_s
from spiketrain.serving.rpc.wire import to_request
from spiketrain.serving.sessions.turns import Turns

if TYPE_CHECKING:
    from spiketrain.serving.rpc.metrics import Metrics


MAX_LOGPROBS = 1 << 18  # in a reply, alternatives counted: some 4 MB of message
MANY_LOGPROBS = 64  # take so long to put into a message that others have their turn meanwhile


class GenerationServicer(generation_grpc.GenerationServicer):
    """Generation: prompts in, completions out."""

    def __init__(
        self,
        engine: Engine,
        turns: Turns,
        tokenization: Tokenization,
        inflight: InFlight,
        metrics: "Metrics | None",
    ) -> None:
        self._engine = engine
        self._turns = turns
        self._tokenization = tokenization
        self._inflight = inflight
        self._metrics = metrics

    async def GenerateStream(
        self, request: Any, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Any]:
        """Events as they come."""
        with self._inflight:
            async with errors_as_status(context):
                request = await self._prompted(request, context)  # the message is forgotten
                async with self._stream(request) as events:
                    async for event in events:
                        self._note(event)
                        yield await _message(to_reply, event, [event])

    async def Generate(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The same events, joined."""
        with self._inflight:
            async with errors_as_status(context):
                request = await self._prompted(request, context)  # the message is forgotten
                async with self._stream(request) as events:
                    heard = await _gathered(events)
        for event in heard:
            self._note(event)
        return await _message(lambda events: to_response(join(events)), heard, heard)

    async def _prompted(self, message: Any, context: grpc.aio.ServicerContext) -> Request:
        """The request, with text in place of messages; refused first where there is no room."""
        self._engine.check_room()
        if message.HasField("chat"):
            message.text = await beside(True, self._rendered, message.chat)
        return to_request(message, timeout_s(context))

    def _rendered(self, chat: Any) -> str:
        return self._tokenization.render(to_chat(chat))

    def _stream(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """The events of a request, from its session's turns where it names one."""
        if request.session is None:
            return self._engine.stream(request)
        return self._turns.stream(request, caller())

    def _note(self, event: Event) -> None:
        if self._metrics is not None and isinstance(event, Finish):
            self._metrics.finished(event)


async def _gathered(events: AsyncIterator[Event]) -> list[Event]:
    """All events of a reply, RequestError if they hold more log-probabilities than one may."""
    heard, count = list[Event](), 0
    async for event in events:
        heard.append(event)
        count += sum(1 + len(token.top) for token in _logprobs(event))
        if count > MAX_LOGPROBS:
            rule = f"be at most {MAX_LOGPROBS} with top_logprobs, or asked of GenerateStream"
            raise RequestError("logprobs", rule, count)
    return heard


async def _message(make: Callable[[Any], Any], content: Any, events: Iterable[Event]) -> Any:
    """The message of events; beside the event loop where they hold many log-probabilities."""
    count = sum(len(_logprobs(event)) for event in events)
    return await asyncio.to_thread(make, content) if count > MANY_LOGPROBS else make(content)


def _logprobs(event: Event) -> tuple[TokenLogprob, ...]:
    return (*event.prompt_logprobs, *event.logprobs) if isinstance(event, Delta) else ()
