"""Messages to requests, events to messages. No policy, no arrays, no `except` of its own."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc

import spiketrain.v1.generation_pb2 as generation_pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc
from serving.chat_wire import to_chat
from serving.engine import Engine
from serving.events import Delta, Event, Finish, PromptInfo
from serving.inflight import InFlight
from serving.request import Request
from serving.status import errors_as_status
from serving.tokenization import Tokenization
from serving.wire import checked, to_delta, to_finish, to_prompt_info, to_reply, to_request

if TYPE_CHECKING:
    from serving.metrics import Metrics

LEAST_TIMEOUT_S = 1e-6  # for a deadline that passed on the way
NO_TIMEOUT_S = 1e8  # gRPC says "about forever" for calls without a deadline


class GenerationServicer(generation_grpc.GenerationServicer):
    """Generation: prompts in, completions out."""

    def __init__(
        self,
        engine: Engine,
        tokenization: Tokenization,
        inflight: InFlight,
        metrics: "Metrics | None",
    ) -> None:
        self._engine = engine
        self._tokenization = tokenization
        self._inflight = inflight
        self._metrics = metrics

    async def GenerateStream(
        self, request: Any, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Any]:
        """Events as they come."""
        async with errors_as_status(context):
            with self._inflight:
                wanted = await self._wanted(checked(request), context)
                async with self._engine.stream(wanted) as events:
                    async for event in events:
                        self._note(event)
                        yield to_reply(event)

    async def Generate(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The same events, joined."""
        reply = generation_pb.GenerateResponse()
        texts: list[str] = []
        async with errors_as_status(context):
            with self._inflight:
                wanted = await self._wanted(checked(request), context)
                async with self._engine.stream(wanted) as events:
                    async for event in events:
                        self._note(event)
                        if isinstance(event, Delta):
                            texts.append(event.text)
                            reply.token_ids.extend(event.token_ids)
                            reply.logprobs.extend(to_delta(event).logprobs)
                        elif isinstance(event, PromptInfo):
                            reply.prompt.CopyFrom(to_prompt_info(event))
                        elif isinstance(event, Finish):
                            reply.finish.CopyFrom(to_finish(event))
        reply.text = "".join(texts)
        return reply

    async def _wanted(self, message: Any, context: grpc.aio.ServicerContext) -> Request:
        """The request, with text in place of messages."""
        timeout_s = _timeout_s(context)
        if message.HasField("chat"):
            chat = to_chat(message.chat)
            message.text = await asyncio.to_thread(self._tokenization.render, chat)
        return to_request(message, timeout_s)

    def _note(self, event: Event) -> None:
        if self._metrics is not None and isinstance(event, Finish):
            self._metrics.finished(event)


def _timeout_s(context: grpc.aio.ServicerContext) -> float | None:
    left_s = context.time_remaining()
    if left_s is None or left_s > NO_TIMEOUT_S:
        return None
    return max(left_s, LEAST_TIMEOUT_S)
