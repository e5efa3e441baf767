"""Measures the speed of a package: decoding, prefill, first token, memory, threads, batches.

Tokens are random, so that a text's habits do not flatter a table of first products; times are
medians over rounds. The bandwidth limit is what one thread reads sequentially from memory in the
same run; a share above 1 means that weights stayed in a cache.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain import runtime
from spiketrain.evaluation.perplexity import peak_memory_bytes
from spiketrain.runtime.dial import NO_DIAL

Row = dict[str, Any]

READ_BYTES = 256 << 20
PIECE_BYTES = 4 << 20
FEED = 1024  # tokens of context read in one call
WARM_UP_S = 0.3
MIN_ROUND_S = 0.1


def read_bandwidth() -> float:
    """Bytes per second of sequential reading, one thread: the median over pieces."""
    memory = np.ones(READ_BYTES, np.uint8)
    times = []
    for start in range(0, memory.size, PIECE_BYTES):
        piece = memory[start : start + PIECE_BYTES]
        begin = time.perf_counter()
        piece.max()
        times.append(time.perf_counter() - begin)
    return PIECE_BYTES / statistics.median(times)


class Bench:
    """One package; `tokens` are decoded a round, over `rounds` rounds, at a dial."""

    def __init__(
        self, path: str, tokens: int, rounds: int, table_bytes: int, dial: float = NO_DIAL
    ) -> None:
        self._path, self._table_bytes, self._dial = path, table_bytes, dial
        self._tokens, self._rounds = tokens, rounds
        self._random = np.random.default_rng(0)
        self.models: dict[int, Any] = {}

    def model(self, threads: int) -> Any:
        """The model with so many threads; loaded once."""
        if threads not in self.models:
            model = runtime.load_model(self._path, threads, self._table_bytes, self._dial)
            self.models = {threads: model}
        return self.models[threads]

    def by_context(self, threads: int, contexts: Sequence[int], bandwidth: float) -> Iterator[Row]:
        """Decoding after so many tokens: speed, bytes a token, share of the bandwidth limit."""
        model = self.model(threads)
        state = model.new_state()
        for context in sorted(contexts):
            while state.position < context:
                feed = min(FEED, context - state.position)
                model.forward(state, self._ids(model, feed), last_only=True)
            model.reset_activity()
            seconds = self._median(partial(self._decode, model, [state.copy()]))
            touched = model.activity().weight_bytes_touched_per_token
            yield {
                "context": context,
                "tokens_per_s": self._tokens / seconds,
                "weight_bytes_per_token": touched,
                "share_of_read_bandwidth": touched * self._tokens / seconds / bandwidth,
                "state_bytes": state.nbytes,
                "peak_memory_bytes": peak_memory_bytes(),
            }

    def prefill(self, threads: int, lengths: Sequence[int]) -> Iterator[Row]:
        """Reading prompts of so many tokens; the first token comes when all is read."""
        model = self.model(threads)
        for length in lengths:
            ids = self._ids(model, length)
            seconds = self._median(partial(_first_logits, model, ids))
            yield {"tokens": length, "tokens_per_s": length / seconds, "first_token_s": seconds}

    def by_batch(self, threads: int, batches: Sequence[int]) -> Iterator[Row]:
        """Decoding so many sequences in one call, tokens of all of them a second."""
        model = self.model(threads)
        for batch in batches:
            states = [model.new_state() for _ in range(batch)]
            seconds = self._median(partial(self._decode, model, states))
            total = batch * self._tokens / seconds
            yield {"batch": batch, "tokens_per_s": total, "a_sequence": total / batch}

    def by_threads(self, most: int) -> Iterator[Row]:
        """Decoding one sequence on 1 to `most` threads."""
        for threads in range(1, most + 1):
            model = self.model(threads)
            seconds = self._median(partial(self._decode, model, [model.new_state()]))
            yield {"threads": threads, "tokens_per_s": self._tokens / seconds}

    def _decode(self, model: Any, states: list[Any]) -> None:
        for ids in self._random.integers(0, model.vocab_size, (self._tokens, len(states))):
            model.step(states, ids)

    def _ids(self, model: Any, count: int) -> NDArray[np.int64]:
        return self._random.integers(0, model.vocab_size, count)

    def _median(self, work: Callable[[], None]) -> float:
        """Seconds of one call, after calls that warm up; short ones are timed several at once."""
        begin, calls = time.perf_counter(), 0
        while not calls or time.perf_counter() - begin < WARM_UP_S:
            work()
            calls += 1
        a_call = (time.perf_counter() - begin) / calls
        repeats = math.ceil(max(1.0, MIN_ROUND_S / a_call))
        times = []
        for _ in range(self._rounds):
            begin = time.perf_counter()
            for _ in range(repeats):
                work()
            times.append((time.perf_counter() - begin) / repeats)
        return statistics.median(times)


def _first_logits(model: Any, ids: NDArray[np.int64]) -> None:
    model.forward(model.new_state(), ids, last_only=True)
