"""ChatTemplate: messages of a conversation -> the prompt a chat model was trained on."""

import threading
from collections.abc import Mapping

import jinja2

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.errors import ConfigError
from spiketrain.serving.request.chat import ROLES, Chat
from spiketrain.serving.request.template_sandbox import MAX_TEXT, TemplateSandbox, TemplateTooLong


class ChatTemplate:
    """A compiled template; any thread. special_tokens: such as bos_token, by name."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], where: str) -> None:
        """`where` is what errors call it. Raises ConfigError if it does not compile."""
        self._sandbox = TemplateSandbox()
        self._special_tokens = dict(special_tokens)
        self._lock = threading.Lock()
        try:
            self._template = self._sandbox.from_string(source)
        except (jinja2.TemplateError, RecursionError, KeyError) as error:
            raise ConfigError(f"{where}: must be a Jinja template ({error})") from None

    def render(self, chat: Chat) -> str:
        """The prompt. Raises RequestError if the template refuses the messages or does too much."""
        for message in chat.messages:
            if message.role not in ROLES:
                raise RequestError("messages", f"have a role of {', '.join(ROLES)}", message.role)
        if not chat.messages:
            raise RequestError("messages", "hold at least one message", 0)
        messages = [{"role": turn.role, "content": turn.content} for turn in chat.messages]
        pieces, length = [], 0
        with self._lock:
            self._sandbox.rendering()
            try:
                for piece in self._template.generate(
                    messages=messages,
                    add_generation_prompt=chat.add_generation_prompt,
                    raise_exception=_refuse,
                    **self._special_tokens,
                ):
                    length += len(piece)
                    if length > MAX_TEXT:
                        raise TemplateTooLong(f"more than {MAX_TEXT} characters")
                    pieces.append(piece)
            except (
                jinja2.TemplateError, TemplateTooLong, ArithmeticError, LookupError, RecursionError,
                TypeError, ValueError,
            ) as error:  # fmt: skip
                rule = f"suit the chat template ({error!s:.200})"
                raise RequestError("messages", rule, len(messages)) from None
        return "".join(pieces)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
