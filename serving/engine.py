"""Engine: one thread that runs a model for many readers. Knows nothing of gRPC.

Each round takes the scheduler's batch, reads prompt chunks, decodes one token for every running
sequence in a single call, and wakes the readers that have waited long enough: one call into their
event loop a round at most. The lock is never held while the model runs.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import structlog

from runtime.tokenizer import Detokenizer
from serving.completion import Completion
from serving.config import ServingConfig
from serving.constraint import Grammars
from serving.errors import Cancelled, DeadlineExceeded, Draining, EngineFailure, ServingError
from serving.events import Delta, Event, Finish, PromptInfo
from serving.request import Defaults, Prepared, Request, check_tokenizer, prepare
from serving.runner import Outcome, Runner
from serving.scheduler import Batch, Scheduler
from serving.text import CompletionText
from serving.waking import wake

log = structlog.get_logger()

LONG_PROMPT = 4096  # characters or tokens; read outside the event loop


class Engine:
    """Serves one model from one thread; every public method may be called from any thread.

    model: the runtime's surface (docs/architecture.md). config: limits and pace. tokenizer: in
    place of the model's own; ConfigError if it has more tokens. clock: seconds, monotonic.
    """

    def __init__(
        self,
        model: Any,
        config: ServingConfig,
        tokenizer: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.config = config
        self.tokenizer = tokenizer or model.tokenizer
        check_tokenizer(self.tokenizer, model.vocab_size)
        self.defaults = Defaults.from_generation_config(model.generation_config)
        self._clock = clock
        self._scheduler: Scheduler[Completion] = Scheduler(
            config.max_batch_size,
            config.max_queue,
            config.prefill_chunk,
            config.prefill_chunk_idle,
        )
        self._grammars = None
        if self.tokenizer is not None:
            self._grammars = Grammars(self.tokenizer, model.vocab_size, model.eos_token_ids)
        self._runner = Runner(model, clock)
        self._deadlines: dict[Completion, float] = {}
        self._changed = threading.Condition()  # its lock guards scheduler, deadlines, completions
        self._refusing = self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def refuse(self) -> None:
        """Take no new requests from now on; those that are queued or running go on."""
        with self._changed:
            self._refusing = True

    def stop(self) -> None:
        """End every completion with Draining, then wait for the thread to end."""
        with self._changed:
            self._refusing = self._stopping = True
            for completion in self._scheduler.sequences():
                self._end(completion, Draining())
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> "Engine":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def num_running(self) -> int:
        """Slots in use."""
        with self._changed:
            return self._scheduler.num_running

    @property
    def num_waiting(self) -> int:
        """Requests in the queue."""
        with self._changed:
            return self._scheduler.num_waiting

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[Event]]:
        """Run a request for a reader on an event loop; leaving the context frees the slot.

        Raises RequestError, NoTokenizer, QueueFull or Draining on entry; the iterator raises
        DeadlineExceeded, Draining or EngineFailure.
        """
        arrived_s = self._clock()
        if request.constraint or len(request.prompt) > LONG_PROMPT:
            prepared = await asyncio.to_thread(self._prepare, request)
        else:
            prepared = self._prepare(request)
        completion = self._submit(prepared, arrived_s, asyncio.get_running_loop())
        try:
            yield self._read(completion)
        finally:
            self._cancel(completion)
            _log_end(completion)

    def run(self, request: Request) -> Iterator[Event]:
        """Run a request for a reader without an event loop; errors as in `stream`."""
        completion = self._submit(self._prepare(request), self._clock(), None)
        try:
            yield _prompt_info(completion)
            end = None
            while end is None:
                completion.ready.wait()
                completion.ready.clear()
                delta, end = self._take(completion)
                if delta is not None:
                    yield delta
            yield _finish_or_raise(end)
        finally:
            self._cancel(completion)

    async def _read(self, completion: Completion) -> AsyncIterator[Event]:
        yield _prompt_info(completion)
        end = None
        while end is None:
            await completion.ready.wait()
            completion.ready.clear()
            delta, end = self._take(completion)
            if delta is not None:
                yield delta
        yield _finish_or_raise(end)

    # Readers' side: any thread.

    def _prepare(self, request: Request) -> Prepared:
        return prepare(
            request, self.defaults, self.config, self.model, self.tokenizer, self._grammars
        )

    def _submit(
        self, request: Prepared, arrived_s: float, loop: asyncio.AbstractEventLoop | None
    ) -> Completion:
        detokenizer = None
        if self.tokenizer is not None:
            detokenizer = Detokenizer(self.tokenizer, continues=True)
        text = CompletionText(detokenizer, request.stop_sequences)
        completion = Completion(request, text, arrived_s, loop)
        with self._changed:
            if self._refusing:
                raise Draining
            self._scheduler.submit(completion, len(request.prompt_ids))
            if completion.expires_s < inf:
                self._deadlines[completion] = completion.expires_s
            self._changed.notify_all()
        return completion

    def _take(self, completion: Completion) -> tuple[Delta | None, Finish | ServingError | None]:
        with self._changed:
            taken = completion.take()
            if completion.paused:
                completion.paused = False
                self._scheduler.resume(completion)
                self._changed.notify_all()
        return taken

    def _cancel(self, completion: Completion) -> None:
        with self._changed:
            self._end(completion, Cancelled())
            self._changed.notify_all()  # its slot may be another's now

    # Engine thread.

    def _loop(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            try:
                self._commit(batch, self._runner.run(batch))
            except Exception:
                log.exception("a round failed; its requests are given up")
                with self._changed:
                    for completion in {*batch.decode, *(chunk.key for chunk in batch.chunks)}:
                        self._end(completion, EngineFailure("internal error, see the server's log"))

    def _next_batch(self) -> Batch[Completion] | None:
        """Wait for something to run; None when the engine stops."""
        with self._changed:
            while not self._stopping:
                now_s = self._clock()
                self._expire(now_s)
                batch = self._scheduler.next_batch()
                for completion in batch.admitted:
                    completion.admitted_s = now_s
                if batch:
                    return batch
                earliest_s = min(self._deadlines.values(), default=None)
                self._changed.wait(None if earliest_s is None else earliest_s - now_s)
        return None

    def _commit(self, batch: Batch[Completion], outcomes: list[Outcome]) -> None:
        """Leave the outcomes to their readers, end what is over, wake who is due."""
        woken: list[Completion] = []
        with self._changed:
            self._scheduler.commit(batch)
            now_s = self._clock()
            for completion, choice, text, error in outcomes:
                if completion.end is not None:  # cancelled while the model ran
                    continue
                if error is None:
                    completion.put(choice, text)
                    self._settle(completion)
                else:
                    self._end(completion, error, wake=False)
                if completion.due(now_s, self.config.flush_interval_s):
                    woken.append(completion)
        self._wake(woken)

    def _settle(self, completion: Completion) -> None:
        """After a token: finish the completion, or pause it while its reader lags."""
        if completion.reason is not None:
            self._end(completion, self._finish(completion), wake=False)
        elif completion.num_unread >= self.config.max_unread_tokens:
            completion.paused = True
            self._scheduler.pause(completion)

    def _finish(self, completion: Completion) -> Finish:
        assert completion.reason is not None
        return Finish(
            completion.reason,
            completion.stop_sequence,
            completion.usage(),
            completion.timings(),
            self._runner.activity(completion),
        )

    # Under the lock.

    def _expire(self, now_s: float) -> None:
        if not self._deadlines or now_s < min(self._deadlines.values()):
            return
        for completion, deadline_s in list(self._deadlines.items()):
            if deadline_s <= now_s:
                if completion.out_of_time():
                    self._end(completion, self._finish(completion))
                else:
                    self._end(completion, DeadlineExceeded(completion.request.timeout_s or 0.0))

    def _end(self, completion: Completion, end: Finish | ServingError, wake: bool = True) -> None:
        """Free the slot and tell the reader; nothing happens to what has ended."""
        if completion.end is not None:
            return
        self._deadlines.pop(completion, None)
        self._scheduler.remove(completion)
        completion.close(end)
        if wake and completion.due(self._clock(), 0.0):
            self._wake([completion])

    def _wake(self, completions: list[Completion]) -> None:
        for completion in wake(completions):  # nobody will ever read it
            self._cancel(completion)


def _prompt_info(completion: Completion) -> PromptInfo:
    return PromptInfo(len(completion.request.prompt_ids), completion.request.sampling.seed)


def _finish_or_raise(end: Finish | ServingError) -> Finish:
    if isinstance(end, ServingError):
        raise end
    return end


def _log_end(completion: Completion) -> None:
    """One line for each request; never its text."""
    usage, timings, end = completion.usage(), completion.timings(), completion.end
    log.info(
        "request ended",
        end=end.reason.value if isinstance(end, Finish) else type(end).__name__,
        prompt_tokens=usage.prompt_tokens,
        new_tokens=usage.new_tokens,
        queue_ms=round(1e3 * timings.queue_s, 1),
        prefill_ms=round(1e3 * timings.prefill_s, 1),
        decode_ms=round(1e3 * timings.decode_s, 1),
    )
