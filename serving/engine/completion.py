"""Completion: a job that samples, from the queue to its last token.

The engine thread alone calls `accept`; what the reader shares (`put`, `close`, `take`) is called
under the engine's lock.
"""

import asyncio
from collections import deque
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.logprobs import TokenLogprob, token_logprob
from spiketrain.serving.engine.job import Job, Origin, Wake
from spiketrain.serving.engine.sampler import Choice, Sampler
from spiketrain.serving.engine.scheduler import Chunk
from spiketrain.serving.engine.starting_point import MAX_RECENT_IDS, Start, latest
from spiketrain.serving.engine.text import CompletionText
from spiketrain.serving.errors import ServingError
from spiketrain.serving.model import Model
from spiketrain.serving.request.constraint import Constraint
from spiketrain.serving.request.events import Delta, Finish, FinishReason, Timings, Usage
from spiketrain.serving.request.preparation import Prepared

LOGPROB_BLOCK = 64  # prompt tokens whose logits are held at once


class Fork(NamedTuple):
    """Where another completion of the same prompt begins."""

    start: Start
    constraint: Constraint | None


class Completion(Job):
    """A request's recurrent state, its text so far, and what its reader has not taken yet."""

    end: Finish | ServingError | None

    def __init__(
        self,
        request: Prepared,
        text: CompletionText,
        origin: Origin,
        arrived_s: float,
        loop: asyncio.AbstractEventLoop,
        num_forks: int = 0,
    ) -> None:
        super().__init__(request.prompt_ids, origin, arrived_s, loop, request.timeout_s)
        self.request = request
        self.prompt_weight_bytes = 0  # that the prompt touched
        self.token = -1  # sampled last, not yet read by the model
        self.new_tokens = 0
        self.reason: FinishReason | None = None
        self.first_token_s = self.last_token_s = arrived_s
        self.sampler = Sampler(
            request.sampling, request.rules, request.constraint, super().recent_ids
        )
        self._text = text
        self._new_ids: deque[int] = deque(maxlen=MAX_RECENT_IDS)  # of a turn
        self._unread_text: list[str] = []
        self._unread_tokens: list[int] = []
        self._unread_logprobs: list[TokenLogprob] = []
        self._prompt_logprobs: list[TokenLogprob] = []
        self.num_forks = num_forks  # other completions that start where the prompt ends
        self.forks: list[Fork] = []  # one for each, once it is read

    @property
    def position(self) -> int:
        """Index, in the whole sequence, of the next token to sample."""
        return self.first_position + len(self.prompt_ids) + self.new_tokens

    @property
    def recent_ids(self) -> tuple[int, ...]:
        """The latest tokens, those of prompt and completion included."""
        return latest(super().recent_ids, tuple(self._new_ids))

    @property
    def urgent(self) -> bool:
        """Whether the reader must hear at once: of the first token, of the end, or to go on."""
        return self.new_tokens == 1 or self.paused or self.end is not None

    @property
    def leaving(self) -> bool:
        """Whether the last token is there, and a turn still has to read it."""
        over = self.reason is not None or self.giving_up is not None
        return over and self.turn is not None

    @property
    def can_leave(self) -> bool:
        """Whether a turn can be left where it is, once its last token is read."""
        return self.turn is not None and self.new_tokens > 0

    @property
    def can_be_kept(self) -> bool:
        """Whether a turn that is given up now leaves something."""
        return self.can_leave and self.turn is not None and self.turn.keep_cancelled

    @property
    def num_unread(self) -> int:
        """Tokens that the reader has not taken."""
        return len(self._unread_tokens)

    def read(self, model: Model, chunk: Chunk[Job]) -> None:
        """As any job does; where the request asks, with the log-probability of each token."""
        if self.request.prompt_top is None:
            super().read(model, chunk)
            return
        for start in range(chunk.start, chunk.stop, LOGPROB_BLOCK):
            tokens = self.prompt_ids[start : min(start + LOGPROB_BLOCK, chunk.stop)]
            logits = model.forward(self.state, tokens, cancelled=self.cancelled)
            self._note_prompt(tokens, logits, self.request.prompt_top)

    def _note_prompt(self, tokens: tuple[int, ...], logits: NDArray[np.float32], top: int) -> None:
        """Note how likely tokens (T,) were that the model has read; logits (T, V) come after."""
        if self.logits is not None:  # nothing says how likely the first token of a text is
            self._prompt_logprobs.append(token_logprob(self.logits, tokens[0], top))
        for row, token in zip(logits, tokens[1:], strict=False):
            self._prompt_logprobs.append(token_logprob(row, token, top))
        self.logits = logits[-1].copy()

    def prompt_is_read(self) -> None:
        """Leave a fork to each of the completions that wait for it."""
        assert self.logits is not None
        before = self.origin.start.recent_ids if self.origin.start else ()
        constraint = self.request.constraint
        for _ in range(self.num_forks):
            state = self.state.copy()
            state.events = state.neurons = state.weight_bytes = 0  # counted once, here
            start = Start(state, self.logits.copy(), before)
            self.forks.append(Fork(start, None if constraint is None else constraint.copy()))

    def accept(self, token: int, now_s: float) -> str:
        """Take a sampled token, give back text to show; sets `reason` when it is the last."""
        if self.new_tokens == 0:
            self.first_token_s = now_s
        self.last_token_s = now_s
        self.token = token
        self.new_tokens += 1
        if self.turn is not None:
            self._new_ids.append(token)
        self.reason = self.request.end_token_ids.get(token)
        if self.reason is not None:
            shown = self._text.flush()
        else:
            shown = self._text.push(token)
            if not self._text.stop_sequence:
                self.reason = self._used_up()
                shown += self._text.flush() if self.reason else ""
        if self._text.stop_sequence:
            self.reason = FinishReason.STOP_SEQUENCE
        return shown

    def _used_up(self) -> FinishReason | None:
        if self.sampler.complete:
            return FinishReason.CONSTRAINT
        return FinishReason.LENGTH if self.new_tokens == self.request.max_new_tokens else None

    @property
    def expires_s(self) -> float:
        """When its time is over, by the deadline or the time limit; infinity for never."""
        limits = (self.request.timeout_s, self.request.time_limit_s)
        return self.arrived_s + min((limit for limit in limits if limit is not None), default=inf)

    def out_of_time(self) -> bool:
        """End it at its time limit, keeping what it wrote; False if the deadline came first."""
        timeout_s, limit_s = self.request.timeout_s, self.request.time_limit_s
        if limit_s is None or (timeout_s is not None and timeout_s <= limit_s):
            return False
        self._unread_text.append(self._text.flush())
        met = self._text.stop_sequence
        self.reason = FinishReason.STOP_SEQUENCE if met else FinishReason.TIME_LIMIT
        return True

    @property
    def stop_sequence(self) -> str:
        """The stop sequence that ended it, or ''."""
        return self._text.stop_sequence

    def put(self, choice: Choice, text: str) -> None:
        """Leave a token and the text to show for it to the reader."""
        self._unread_tokens.append(choice.token)
        if choice.logprob is not None:
            self._unread_logprobs.append(choice.logprob)
        if text:
            self._unread_text.append(text)

    def take(self) -> tuple[Delta | None, Finish | ServingError | None]:
        """Hand all unread text and tokens over, and the end once it is reached."""
        self._woken = Wake.NOT
        delta = None
        if self._unread_tokens or any(self._unread_text):
            delta = Delta(
                text="".join(self._unread_text),
                token_ids=tuple(self._unread_tokens),
                logprobs=tuple(self._unread_logprobs),
                prompt_logprobs=tuple(self._prompt_logprobs),
                index=self.request.sampling.index,
            )
            self._unread_text, self._unread_tokens = [], []
            self._unread_logprobs, self._prompt_logprobs = [], []
        return delta, self.end

    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(len(self.prompt_ids), self.new_tokens)

    def timings(self) -> Timings:
        """Seconds spent in each phase so far."""
        return Timings(
            queue_s=self.admitted_s - self.arrived_s,
            prefill_s=self.first_token_s - self.admitted_s if self.new_tokens else 0.0,
            decode_s=self.last_token_s - self.first_token_s,
        )
