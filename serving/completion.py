"""Completion: one request under way, from the queue to its last token.

The engine thread alone calls `accept`; what the reader shares (`put`, `close`, `take`) is called
under the engine's lock.
"""

import asyncio
import threading
from typing import Any

from serving.errors import ServingError
from serving.events import Delta, Finish, FinishReason, Timings, Usage
from serving.request import Prepared
from serving.text import CompletionText


class Completion:
    """A request's recurrent state, its text so far, and what its reader has not taken yet.

    `ready` is set when there is something to take: an asyncio.Event of `loop`, or for a reader
    without a loop a threading.Event.
    """

    def __init__(
        self,
        request: Prepared,
        text: CompletionText,
        eos_token_ids: frozenset[int],
        arrived_s: float,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.request = request
        self.loop = loop
        self.ready: Any = threading.Event() if loop is None else asyncio.Event()
        self.state: Any = None
        self.prompt_weight_bytes = 0  # that the prompt touched
        self.token = -1  # sampled last, not yet read by the model
        self.new_tokens = 0
        self.reason: FinishReason | None = None
        self.end: Finish | ServingError | None = None
        self.paused = False  # as the scheduler has it
        self.admitted_s = self.first_token_s = self.last_token_s = self.woken_s = arrived_s
        self.arrived_s = arrived_s
        self._text = text
        self._eos_token_ids = eos_token_ids
        self._unread_text: list[str] = []
        self._unread_tokens: list[int] = []
        self._woken = False

    @property
    def position(self) -> int:
        """Index, in prompt and completion, of the next token to sample."""
        return len(self.request.prompt_ids) + self.new_tokens

    @property
    def num_unread(self) -> int:
        """Tokens that the reader has not taken."""
        return len(self._unread_tokens)

    def accept(self, token: int, now_s: float) -> str:
        """Take a sampled token, give back text to show; sets `reason` when it is the last."""
        if self.new_tokens == 0:
            self.first_token_s = now_s
        self.last_token_s = now_s
        self.token = token
        self.new_tokens += 1
        if token in self._eos_token_ids:
            self.reason = FinishReason.EOS_TOKEN
            shown = self._text.flush()
        else:
            shown = self._text.push(token)
            if not self._text.stop_sequence and self.new_tokens == self.request.max_new_tokens:
                self.reason = FinishReason.LENGTH
                shown += self._text.flush()
        if self._text.stop_sequence:
            self.reason = FinishReason.STOP_SEQUENCE
        return shown

    @property
    def stop_sequence(self) -> str:
        """The stop sequence that ended it, or ''."""
        return self._text.stop_sequence

    def put(self, token: int, text: str) -> None:
        """Leave a token and the text to show for it to the reader."""
        self._unread_tokens.append(token)
        if text:
            self._unread_text.append(text)

    def close(self, end: Finish | ServingError) -> None:
        """Say how it ended: the first word is the last."""
        if self.end is None:
            self.end = end

    def due(self, now_s: float, flush_interval_s: float) -> bool:
        """Whether to wake the reader now; True at most once until it takes."""
        if self._woken:
            return False
        urgent = self.new_tokens == 1 or self.paused or self.end is not None
        if urgent or now_s - self.woken_s >= flush_interval_s:
            self._woken = True
            self.woken_s = now_s
            return True
        return False

    def take(self) -> tuple[Delta | None, Finish | ServingError | None]:
        """Hand all unread text and tokens over, and the end once it is reached."""
        self._woken = False
        delta = None
        if self._unread_tokens:
            delta = Delta("".join(self._unread_text), tuple(self._unread_tokens))
            self._unread_text, self._unread_tokens = [], []
        return delta, self.end

    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(len(self.request.prompt_ids), self.new_tokens)

    def timings(self) -> Timings:
        """Seconds spent in each phase so far."""
        return Timings(
            queue_s=self.admitted_s - self.arrived_s,
            prefill_s=self.first_token_s - self.admitted_s,
            decode_s=self.last_token_s - self.first_token_s,
        )
