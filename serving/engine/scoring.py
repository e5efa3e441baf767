"""Scoring: how likely a model finds tokens. A job like any other, so streams go on beside it."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.dial import checked_dial
from spiketrain.runtime.errors import RequestError
from spiketrain.runtime.scoring import MAX_BLOCK_LOGITS, MAX_BLOCK_TOKENS, token_nats
from spiketrain.runtime.state import State
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.engine.job import Job, Origin
from spiketrain.serving.engine.scheduler import Chunk
from spiketrain.serving.engine.starting_point import Start
from spiketrain.serving.errors import TooManyStreams
from spiketrain.serving.isolation.beside import beside
from spiketrain.serving.model import Model
from spiketrain.serving.request.confined_tokenizer import is_confined
from spiketrain.serving.request.preparation import prompt_ids

Content = str | Sequence[int]  # a text or its token ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Of N tokens: token ids, nats (N,), whether each was the likeliest (N,), and their bytes."""

    token_ids: tuple[int, ...]
    nats: NDArray[np.float64]
    greedy: NDArray[np.bool_]
    num_bytes: int

    @property
    def log_probability(self) -> float:
        """Sum over the tokens, in nats; 0 for none."""
        return -float(self.nats.sum()) if self.nats.size else 0.0


NO_SCORES = Scores(token_ids=(), nats=np.empty(0), greedy=np.empty(0, np.bool_), num_bytes=0)


class ScoreJob(Job):
    """Tokens of which those from `first` on are scored, each by what comes before it."""

    def __init__(
        self,
        tokens: tuple[int, ...],
        first: int,
        origin: Origin,
        arrived_s: float,
        loop: asyncio.AbstractEventLoop,
        timeout_s: float | None,
    ) -> None:
        super().__init__(tokens[:-1], origin, arrived_s, loop, timeout_s)
        self.nats = np.empty(len(tokens) - first, np.float64)
        self.greedy = np.empty(len(tokens) - first, np.bool_)
        self._targets = np.asarray(tokens[first:], np.int64)
        self._first = first - 1  # index of the token whose logits are the first that matter

    def read(self, model: Model, chunk: Chunk[Job]) -> None:
        """Have the model read a chunk, and look at the logits of what is to be scored."""
        start = min(max(chunk.start, self._first), chunk.stop)
        if start > chunk.start:
            before = self.prompt_ids[chunk.start : start]
            model.forward(self.state, before, last_only=True, cancelled=self.cancelled)
        size = max(1, min(MAX_BLOCK_TOKENS, MAX_BLOCK_LOGITS // model.vocab_size))
        for at in range(start, chunk.stop, size):
            stop = min(at + size, chunk.stop)
            ids = self.prompt_ids[at:stop]
            logits = model.forward(self.state, ids, last_only=False, cancelled=self.cancelled)
            part = slice(at - self._first, stop - self._first)
            self.nats[part] = token_nats(logits, self._targets[part])
            self.greedy[part] = logits.argmax(axis=1) == self._targets[part]


class Scoring:
    """Scores with an engine; used on one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._vocab_size = engine.model.vocab_size
        self._longest = engine.config.max_prompt_tokens
        self._most_streams = engine.max_sequences + engine.config.max_queue
        self._streams = 0
        self._waits = is_confined(engine.tokenizer)
        eos = engine.model.eos_token_ids
        self.before: tuple[int, ...] = tuple(eos[:1])  # a text without a beginning

    @contextmanager
    def stream(self) -> Generator[None, None, None]:
        """While a stream is open, which may hold a state. Raises TooManyStreams.

        As many may be as sequences run or wait, so that idle streams cannot take all memory.
        """
        if self._streams >= self._most_streams:
            raise TooManyStreams(self._most_streams)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def score(
        self,
        context: Content,
        continuation: Content,
        timeout_s: float | None,
        dial: float | None = None,
    ) -> Scores:
        """Scores of a continuation, text or token ids like its context. Raises RequestError."""
        self._engine.check_room()
        dial = self.dial(dial)
        if isinstance(context, str) != isinstance(continuation, str):
            raise RequestError("continuation", "be of the kind of the context", type(continuation))
        before, tokens = await beside(self._waits, self._split, context, continuation)
        if len(before) + len(tokens) > self._longest:
            rule = f"be at most {self._longest} tokens with its context"
            raise RequestError("continuation", rule, len(before) + len(tokens))
        return (await self.run(before, tokens, None, timeout_s, dial))[0]

    async def run(
        self,
        before: tuple[int, ...],
        tokens: tuple[int, ...],
        start: Start | None,
        timeout_s: float | None,
        dial: float,
    ) -> tuple[Scores, State]:
        """Scores of `tokens` after `before`, and the state that has read all but the last one."""
        loop = asyncio.get_running_loop()
        origin = Origin(start=start, dial=dial)
        job = ScoreJob((*before, *tokens), len(before), origin, self._engine.now_s, loop, timeout_s)
        await self._engine.finish(job, begun=start is not None)
        scores = Scores(
            token_ids=tokens, nats=job.nats, greedy=job.greedy, num_bytes=self._num_bytes(tokens)
        )
        return scores, job.state

    def dial(self, dial: float | None) -> float:
        """The dial that was asked for, else the model's. Raises RequestError."""
        model = self._engine.model
        return model.dial if dial is None else checked_dial(dial, model.max_dial)

    def _split(
        self, context: Content, continuation: Content
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if not isinstance(context, str) or not isinstance(continuation, str):
            before = self.ids("context", context)
            return before, self.ids("continuation", continuation)
        stripped = context.rstrip()
        self.ids("context", context, least=0)
        whole = self.ids("continuation", context + continuation)
        start = len(self.ids("context", stripped, least=0))
        before = whole[:start] or self.before
        if not before:
            raise RequestError("context", "hold at least one token for this model", context)
        if len(whole) <= start:
            raise RequestError("continuation", "hold at least one token", continuation)
        return before, whole[start:]

    def ids(self, field: str, content: Content, least: int = 1) -> tuple[int, ...]:
        """Checked token ids of a text or a list. Raises RequestError, NoTokenizer."""
        tokenizer = self._engine.tokenizer
        return prompt_ids(field, content, self._longest, self._vocab_size, tokenizer, least)

    async def read(self, content: Content) -> tuple[int, ...]:
        """Checked token ids of a piece, beside the event loop. Raises as `ids`."""
        return await beside(self._waits, self.ids, "content", content, 0)

    def _num_bytes(self, tokens: Sequence[int]) -> int:
        tokenizer = self._engine.tokenizer
        if tokenizer is None:
            return 0
        return sum(len(tokenizer.piece_bytes(t)) for t in tokens if t < tokenizer.vocab_size)


class ScoreStream:
    """One text of any length, scored piece by piece; holds a state and the last token."""

    def __init__(self, scoring: Scoring, dial: float | None = None) -> None:
        """Raises RequestError for a dial that the model has not."""
        self._dial = scoring.dial(dial)
        self._scoring = scoring
        self._start: Start | None = None
        self._last = scoring.before
        self.log_probability = 0.0
        self.num_tokens = 0
        self.num_bytes = 0

    async def score(self, content: Content, timeout_s: float | None) -> Scores:
        """Scores of the next piece. Raises RequestError; then the stream is where it was."""
        tokens = await self._scoring.read(content)
        if not self._last and tokens:
            self._last, tokens = tokens[:1], tokens[1:]
        if not tokens:
            return NO_SCORES
        scores, state = await self._scoring.run(
            self._last, tokens, self._start, timeout_s, self._dial
        )
        self._start, self._last = Start(state), tokens[-1:]
        self.log_probability += scores.log_probability
        self.num_tokens += len(tokens)
        self.num_bytes += scores.num_bytes
        return scores
