"""Chat messages <-> plain data, both ways."""

from typing import Any

import spiketrain.v1.generation_pb2 as pb
from spiketrain.serving.request.chat import Chat, Message


def to_chat(message: Any) -> Chat:
    """The message Chat as data."""
    turns = tuple(Message(turn.role, turn.content) for turn in message.messages)
    given = message.HasField("add_generation_prompt")
    return Chat(turns, message.add_generation_prompt if given else True)


def from_chat(chat: Chat) -> Any:
    """Data as the message Chat."""
    turns = [pb.ChatMessage(role=turn.role, content=turn.content) for turn in chat.messages]
    return pb.Chat(messages=turns, add_generation_prompt=chat.add_generation_prompt)
