"""The Tokenization service: messages to calls and back. No policy, no `except` of its own."""

import asyncio
from typing import Any

import grpc

import spiketrain.v1.tokenization_pb2 as pb
import spiketrain.v1.tokenization_pb2_grpc as tokenization_grpc
from spiketrain.serving.isolation.beside import beside
from spiketrain.serving.request.tokenization import Tokenization
from spiketrain.serving.rpc.chat_wire import to_chat
from spiketrain.serving.rpc.status import errors_as_status
from spiketrain.serving.rpc.wire import checked

PART_TOKENS = 4096  # of a reply that are put into it at once


class TokenizationServicer(tokenization_grpc.TokenizationServicer):
    """Tokenizers and templates are run beside the event loop: a text may have megabytes."""

    def __init__(self, tokenization: Tokenization) -> None:
        self._tokenization = tokenization

    async def Tokenize(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Text to token ids."""
        async with errors_as_status(context):
            waits = self._tokenization.waits
            return await beside(waits, self._tokenized, checked(request).text)

    def _tokenized(self, text: str) -> Any:
        """The reply, made in parts between which others have their turn."""
        ids, pieces = self._tokenization.tokenize(text)
        reply = pb.TokenizeResponse()
        for start in range(0, len(ids), PART_TOKENS):
            reply.token_ids.extend(ids[start : start + PART_TOKENS])
            reply.pieces.extend(pieces[start : start + PART_TOKENS])
        return reply

    async def Detokenize(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Token ids to text."""
        async with errors_as_status(context):
            ids = tuple(checked(request).token_ids)
            text = await asyncio.to_thread(self._tokenization.detokenize, ids, request.continues)
        return pb.DetokenizeResponse(text=text)

    async def RenderChat(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Messages to a prompt."""
        async with errors_as_status(context):
            chat = to_chat(checked(request).chat)
            text = await beside(True, self._tokenization.render, chat)
            ids, _ = await beside(self._tokenization.waits, self._tokenization.tokenize, text)
        return pb.RenderChatResponse(text=text, token_ids=ids)
