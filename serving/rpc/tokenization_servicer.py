"""The Tokenization service: messages to calls and back. No policy, no `except` of its own."""

from collections.abc import Sequence
from typing import Any

import grpc

import spiketrain.v1.tokenization_pb2 as pb
import spiketrain.v1.tokenization_pb2_grpc as tokenization_grpc
from spiketrain.serving.isolation.beside import beside
from spiketrain.serving.request.tokenization import Tokenization
from spiketrain.serving.rpc.chat_wire import to_chat
from spiketrain.serving.rpc.status import errors_as_status

PART_TOKENS = 4096  # of a reply that are put into it at once


class TokenizationServicer(tokenization_grpc.TokenizationServicer):
    """Tokenizers and templates are run beside the event loop: a text may have megabytes."""

    def __init__(self, tokenization: Tokenization) -> None:
        self._tokenization = tokenization

    async def Tokenize(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Text to token ids."""
        async with errors_as_status(context):
            return await beside(self._tokenization.waits, self._tokenized, request.text)

    async def Detokenize(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Token ids to text."""
        async with errors_as_status(context):
            args = (request.token_ids, request.continues)
            text = await beside(False, self._tokenization.detokenize, *args)
        return pb.DetokenizeResponse(text=text)

    async def RenderChat(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Messages to a prompt."""
        async with errors_as_status(context):
            return await beside(True, self._rendered, request.chat)

    def _tokenized(self, text: str) -> bytes:
        ids, pieces = self._tokenization.tokenize(text)
        return _in_parts(pb.TokenizeResponse, token_ids=ids, pieces=pieces)

    def _rendered(self, chat: Any) -> bytes:
        text = self._tokenization.render(to_chat(chat))
        ids, _ = self._tokenization.tokenize(text)
        head: bytes = pb.RenderChatResponse(text=text).SerializeToString()
        return head + _in_parts(pb.RenderChatResponse, token_ids=ids)


def _in_parts(message: Any, **lists: Sequence[Any]) -> bytes:
    """A serialized message with long lists, made in parts between which others have their turn.

    Messages of one kind that stand one behind the other are one message with all their entries.
    """
    longest = max(map(len, lists.values()))
    starts = range(0, longest, PART_TOKENS)
    parts = ({name: of[at : at + PART_TOKENS] for name, of in lists.items()} for at in starts)
    return b"".join(message(**part).SerializeToString() for part in parts)
