"""ChatTemplate renders the messages of a conversation as the prompt that a chat model expects."""

import functools
import json
import time
from collections.abc import Mapping

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.errors import ConfigError
from spiketrain.serving.isolation.confined_process import Limits, Refused
from spiketrain.serving.isolation.confinement import Confinement, Died
from spiketrain.serving.request import template_rendering
from spiketrain.serving.request.chat import ROLES, Chat
from spiketrain.serving.request.template_sandbox import TemplateSandbox

RENDERING = Limits(cpu_s=2.0, wall_s=10.0, memory_bytes=256 << 20)


class ChatTemplate:
    """A template that is rendered in a process with limits; any thread.

    special_tokens: such as bos_token, by name.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], where: str) -> None:
        """`where` is what errors call it. Raises ConfigError if it does not compile."""
        try:
            TemplateSandbox().from_string(source)
        except Exception as error:  # also Python's, where it cannot compile what jinja2 writes
            raise ConfigError(f"{where}: must be a Jinja template ({error!s:.200})") from None
        setup = functools.partial(template_rendering.setup_of, source, special_tokens)
        self._confinement = Confinement(template_rendering, setup, RENDERING)

    def render(self, chat: Chat) -> str:
        """The prompt.

        Raises RequestError if the template refuses the messages or does too much; TooManyQuestions;
        ConfinementFailed.
        """
        for message in chat.messages:
            if message.role not in ROLES:
                raise RequestError("messages", f"have a role of {', '.join(ROLES)}", message.role)
        if not chat.messages:
            raise RequestError("messages", "hold at least one message", 0)
        messages = [{"role": turn.role, "content": turn.content} for turn in chat.messages]
        question = {
            "messages": messages,
            "add_generation_prompt": chat.add_generation_prompt,
            "now_s": time.time(),
        }
        try:
            return self._confinement.ask(json.dumps(question).encode()).decode()
        except Refused as refusal:
            reason = str(refusal)
        except Died as error:
            reason = f"it {error}"
        rule = f"suit the chat template ({reason:.200})"
        raise RequestError("messages", rule, len(messages))

    def warm(self) -> None:
        """Start the process, beside all else, so that the first chat need not wait."""
        self._confinement.warm_beside()

    def close(self) -> None:
        """End the process."""
        self._confinement.close()
