"""Engine: one thread that runs a model for many readers. Knows nothing of gRPC.

Each round takes the scheduler's batch, reads prompt chunks, decodes one token for every running
sequence in a single call, and wakes the readers that have waited long enough: one call into their
event loop a round at most. The lock is never held while the model runs.
"""

import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.completion import Completion
from spiketrain.serving.engine.input_processor import InputProcessor
from spiketrain.serving.engine.job import Job
from spiketrain.serving.engine.notify import notify
from spiketrain.serving.engine.parallel_sampling import parallel_sampling
from spiketrain.serving.engine.reader import log_end, read
from spiketrain.serving.engine.runner import Outcome, Runner
from spiketrain.serving.engine.running_set import RunningSet
from spiketrain.serving.engine.scheduler import Batch
from spiketrain.serving.engine.starting_point import Turn
from spiketrain.serving.errors import (
    Cancelled,
    ConfigError,
    Draining,
    EngineFailure,
    ServingError,
)
from spiketrain.serving.isolation.budget import settle
from spiketrain.serving.model import Model, Tokenizer
from spiketrain.serving.request.confined_tokenizer import confined
from spiketrain.serving.request.events import Delta, Event, Finish
from spiketrain.serving.request.request import Defaults, Request

log = structlog.get_logger()

IDLE_STALLS = 4  # a chunk while nobody decodes may take so many times longer
# What a thread waits for the interpreter while another one holds it. The engine needs it back twice
# a round, after the model's step and after notifying readers, while the event loop writes messages;
# at Python's 5 ms every round could lose as much twice.
SWITCH_S = 0.0005


class Engine:
    """Serves one model from one thread; every public method may be called from any thread.

    config: limits and pace. tokenizer: in
    place of the model's own; ConfigError if it has more tokens. clock: seconds, monotonic.
    """

    def __init__(
        self,
        model: Model,
        config: ServingConfig,
        tokenizer: Tokenizer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.config = config
        self.tokenizer, self._encoder = confined(tokenizer or model.tokenizer)
        self.input_processor = InputProcessor(model, config, self.tokenizer)
        self.max_sequences = _max_sequences(model, config)
        self._clock = clock
        self._running_set = RunningSet(self.max_sequences, config, self._last_word)
        self._runner = Runner(model, self.input_processor.prefixes, clock)
        self._changed = threading.Condition()  # its lock guards the running set and its jobs
        self._refusing = self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread; from here on threads of this process take turns at least so often."""
        sys.setswitchinterval(min(SWITCH_S, sys.getswitchinterval()))
        self._thread.start()

    def refuse(self) -> None:
        """Take no new requests from now on; those that are queued or running go on."""
        with self._changed:
            self._refusing = True

    def stop(self) -> None:
        """End every completion with Draining, then wait for the thread to end."""
        with self._changed:
            self._refusing = self._stopping = True
            for job in self._running_set.scheduler.sequences():
                self._running_set.end(job, Draining())
            self._changed.notify_all()
            due = self._running_set.due()
        self._notify(due)
        if self._thread.is_alive():
            self._thread.join()
        self.input_processor.close()
        if self._encoder is not None:
            self._encoder.close()

    def __enter__(self) -> "Engine":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def num_running(self) -> int:
        """Slots in use."""
        with self._changed:
            return self._running_set.scheduler.num_running

    @property
    def num_waiting(self) -> int:
        """Requests in the queue."""
        with self._changed:
            return self._running_set.scheduler.num_waiting

    @property
    def defaults(self) -> Defaults:
        """Sampling where a request is silent."""
        return self.input_processor.defaults

    @property
    def now_s(self) -> float:
        """The engine's time."""
        return self._clock()

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[Event]]:
        """Run a request for a reader on an event loop; leaving the context frees the slot.

        Raises RequestError, NoTokenizer, QueueFull or Draining on entry; the iterator raises
        DeadlineExceeded, Draining or EngineFailure.
        """
        completion = await self.submit(request)
        async with self.events(completion) as events:
            yield events

    async def submit(
        self, request: Request, turn: Turn | None = None, arrived_s: float | None = None
    ) -> Completion:
        """A request's completion in the queue, for a reader on this event loop; `events` follows.

        turn: the session's, if the request has one. arrived_s: when the call came, by `now_s`;
        None for now. Raises as `stream` does on entry.
        """
        arrived_s = self._clock() if arrived_s is None else arrived_s
        completion = await self.input_processor.completion(request, turn, arrived_s)
        self.enter(completion)
        return completion

    @asynccontextmanager
    async def events(
        self, completion: Completion, closing: Callable[[], Awaitable[object]] | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of a completion in the queue and of its siblings; leaving frees the slots.

        closing: awaited once the completion is given up, before its end is logged.
        """
        try:
            async with parallel_sampling(self, completion, read(self, completion)) as events:
                yield events
        finally:
            self.cancel(completion)
            if closing is not None:
                await closing()
            log_end(completion)

    async def finish(self, job: Job, begun: bool = False) -> None:
        """Run a job that has no events to its end; errors as in `stream`. begun: as of `enter`."""
        self.enter(job, begun)
        try:
            while job.end is None:
                await job.ready.wait()
                job.ready.clear()
            if isinstance(job.end, ServingError):
                raise job.end
        finally:
            self.cancel(job)

    # Readers' side: any thread.

    def check_room(self) -> None:
        """Refuse early what `enter` would refuse now: QueueFull, Draining."""
        with self._changed:
            if self._refusing:
                raise Draining
            self._running_set.scheduler.check_room()

    def enter(self, job: Job, begun: bool = False) -> None:
        """Queue a job; `cancel` has to follow. Raises QueueFull or Draining.

        begun: whether it goes on with a call that runs, so that it is not new.
        """
        with self._changed:
            if self._stopping or (self._refusing and not begun):
                raise Draining
            self._running_set.enter(job)
            settle()
            self._changed.notify_all()

    def take(self, completion: Completion) -> tuple[Delta | None, Finish | ServingError | None]:
        """What is new for a reader, and the end once it is reached."""
        with self._changed:
            taken = completion.take()
            completion.taken_s = time.monotonic()
            if completion.paused:
                self._running_set.resume(completion)
                self._changed.notify_all()
        return taken

    def cancel(self, job: Job) -> None:
        """Free the slot of a job that nobody waits for; one that has ended is left as it is."""
        with self._changed:
            self._running_set.give_up(job, Cancelled())
            self._changed.notify_all()  # its slot may be another's now
            due = self._running_set.due()
        self._notify(due)

    # Engine thread.

    def _loop(self) -> None:
        while True:
            batch = None
            try:
                batch = self._next_batch()
                if batch is None:
                    return
                self._commit(batch, self._runner.run(batch))
            except BaseException:  # a library's panic is no Exception; this thread has to go on
                log.exception("a round failed; its requests are given up")
                self._give_up(batch)

    def _give_up(self, batch: Batch[Job] | None) -> None:
        """End the jobs of a batch, or all where the choice of one failed."""
        with self._changed:
            jobs = self._running_set.scheduler.sequences()
            if batch is not None:
                jobs = (*batch.decode, *(chunk.key for chunk in batch.chunks))
            for job in jobs:
                self._running_set.end(job, EngineFailure("internal error, see the server's log"))
            due = self._running_set.due()
        self._notify(due)

    def _next_batch(self) -> Batch[Job] | None:
        """Wait for something to run; None when the engine stops."""
        pace, config = self._runner.pace, self.config
        with self._changed:
            while not self._stopping:
                now_s = self._clock()
                self._running_set.expire(now_s)
                self._notify(self._running_set.due())
                batch = self._running_set.scheduler.next_batch(
                    pace.tokens_in(config.max_stall_s, config.prefill_chunk),
                    pace.tokens_in(IDLE_STALLS * config.max_stall_s, config.prefill_chunk_idle),
                )
                for job in batch.admitted:
                    job.admitted_s = now_s
                if batch:
                    return batch
                earliest_s = self._running_set.earliest_s()
                self._changed.wait(None if earliest_s is None else earliest_s - now_s)
        return None

    def _commit(self, batch: Batch[Job], outcomes: list[Outcome]) -> None:
        """Leave the outcomes to their readers, and wake those who are due."""
        with self._changed:
            self._running_set.commit(batch, outcomes)
            due = self._running_set.due()
        self._notify(due)

    def _last_word(self, job: Job) -> object:
        """What the reader of a job hears when all went well."""
        if not isinstance(job, Completion):
            return job
        assert job.reason is not None
        return Finish(
            reason=job.reason,
            stop_sequence=job.stop_sequence,
            usage=job.usage(),
            timings=job.timings(),
            activity=self._runner.activity(job),
            index=job.request.sampling.index,
        )

    def _notify(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        for job in notify(jobs, self.config.flush_interval_s):  # nobody will ever read it
            self.cancel(job)


def _max_sequences(model: Model, config: ServingConfig) -> int:
    """How many sequences may run at once, each with its state and one row of logits."""
    one = model.state_nbytes + 4 * model.vocab_size
    if config.state_bytes < one:
        raise ConfigError(f"state_bytes must hold one sequence, {one}, got {config.state_bytes}")
    return int(min(config.max_batch_size, config.state_bytes // one))
