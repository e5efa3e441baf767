"""Chat: a conversation as a prompt. Plain data."""

from collections.abc import Sequence
from dataclasses import dataclass

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. role: one of ROLES. content: its text."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Chat:
    """What was said, in order. add_generation_prompt: whether the model's turn is opened."""

    messages: Sequence[Message]
    add_generation_prompt: bool = True
