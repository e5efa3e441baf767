"""Messages to requests, events to messages. No policy, no arrays, no `except` of its own."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc

import spiketrain.v1.generation_pb2_grpc as generation_grpc
from serving.caller import caller
from serving.chat_wire import to_chat
from serving.events import Event, Finish, join
from serving.inflight import InFlight
from serving.reply_wire import to_reply, to_response
from serving.request import Request
from serving.status import errors_as_status
from serving.timeout import timeout_s
from serving.tokenization import Tokenization
from serving.turns import Turns
from serving.wire import checked, to_request

if TYPE_CHECKING:
    from serving.metrics import Metrics


class GenerationServicer(generation_grpc.GenerationServicer):
    """Generation: prompts in, completions out."""

    def __init__(
        self,
        turns: Turns,
        tokenization: Tokenization,
        inflight: InFlight,
        metrics: "Metrics | None",
    ) -> None:
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
                wanted = await self._wanted(checked(request), context)
                async with self._turns.stream(wanted, caller()) as events:
                    async for event in events:
                        self._note(event)
                        yield to_reply(event)

    async def Generate(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The same events, joined."""
        with self._inflight:
            async with errors_as_status(context):
                wanted = await self._wanted(checked(request), context)
                async with self._turns.stream(wanted, caller()) as events:
                    heard = [event async for event in events]
        for event in heard:
            self._note(event)
        return to_response(join(heard))

    async def _wanted(self, message: Any, context: grpc.aio.ServicerContext) -> Request:
        """The request, with text in place of messages; refused first where there is no room."""
        self._turns.check_room()
        if message.HasField("chat"):
            chat = to_chat(message.chat)
            message.text = await asyncio.to_thread(self._tokenization.render, chat)
        return to_request(message, timeout_s(context))

    def _note(self, event: Event) -> None:
        if self._metrics is not None and isinstance(event, Finish):
            self._metrics.finished(event)
