"""Conversation: turns of a person and a model, through a client."""

from collections.abc import Iterator, Mapping
from typing import Any

from spiketrain.serving.client.client import Client
from spiketrain.serving.errors import ConfigError
from spiketrain.serving.request.chat import Chat, Message
from spiketrain.serving.request.events import Delta
from spiketrain.serving.request.request import Request, SessionTurn


class Conversation:
    """With a chat template, messages; without one, lines of one text on a session.

    sampling: fields of Request. Raises ConfigError for a system message that nothing could show to
    the model, ServerError.
    """

    def __init__(self, client: Client, system: str | None, sampling: Mapping[str, Any]) -> None:
        self._client = client
        self._system = system
        self._sampling = sampling
        self._has_template = "chat" in client.get_model().capabilities
        if system is not None and not self._has_template:
            raise ConfigError("system must be left out for a model without a chat template")
        self._messages: list[Message] = []
        self._session = ""
        self.reset()

    @property
    def description(self) -> str:
        """What the model does with a line."""
        if self._has_template:
            return "the model answers"
        return "no chat template: the model continues what you write"

    def reset(self) -> None:
        """Forget everything that was said."""
        if self._session:
            self._client.delete_session(self._session)
            self._session = ""
        self._messages = [] if self._system is None else [Message("system", self._system)]

    def say(self, line: str) -> Iterator[str]:
        """The model's answer, as it comes; what is not taken to its end is forgotten."""
        if self._has_template:
            yield from self._answer(line)
        else:
            yield from self._continue(line)

    def _answer(self, line: str) -> Iterator[str]:
        messages = [*self._messages, Message("user", line)]
        answer = []
        for event in self._client.generate_stream(Request(Chat(messages), **self._sampling)):
            if isinstance(event, Delta):
                answer.append(event.text)
                yield event.text
        self._messages = [*messages, Message("assistant", "".join(answer))]

    def _continue(self, line: str) -> Iterator[str]:
        if not self._session:
            self._session = self._client.create_session(dial=self._sampling.get("dial")).id
        turn = SessionTurn(self._session)
        request = Request(line, session=turn, **self._sampling)
        for event in self._client.generate_stream(request):
            if isinstance(event, Delta):
                yield event.text
