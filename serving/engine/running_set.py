"""RunningSet: the jobs under way in an engine, when their time is over, and how each ends.

Knows no thread and no clock: the engine calls it under its lock, and wakes the readers that it
names afterwards.
"""

from collections.abc import Callable
from math import inf

from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.completion import Completion
from spiketrain.serving.engine.job import Job
from spiketrain.serving.engine.runner import Outcome
from spiketrain.serving.engine.scheduler import Batch, Scheduler
from spiketrain.serving.errors import DeadlineExceeded, ServingError


class RunningSet:
    """Jobs in the queue and in slots. last_word: what the reader of a job hears when all went well.

    max_sequences: slots.
    """

    def __init__(
        self, max_sequences: int, config: ServingConfig, last_word: Callable[[Job], object]
    ) -> None:
        self.scheduler: Scheduler[Job] = Scheduler(
            max_sequences, config.max_queue, config.prefill_chunk, config.prefill_chunk_idle
        )
        self._max_unread_tokens = config.max_unread_tokens
        self._last_word = last_word
        self._deadlines: dict[Job, float] = {}
        self._due: list[Job] = []

    def enter(self, job: Job) -> None:
        """Queue a job. Raises QueueFull."""
        origin = job.origin
        self.scheduler.submit(job, len(job.prompt_ids), origin.skipped, tuple(origin.marks))
        if job.expires_s < inf:
            self._deadlines[job] = job.expires_s

    def due(self) -> list[Job]:
        """Those whose readers have to be woken since the last call."""
        due, self._due = self._due, []
        return due

    def earliest_s(self) -> float | None:
        """When the next time is over; None for never."""
        return min(self._deadlines.values(), default=None)

    def commit(self, batch: Batch[Job], outcomes: list[Outcome]) -> None:
        """Leave what a batch did to the readers, and end what is over."""
        self.scheduler.commit(batch)
        for job, choice, text, error in outcomes:
            if job.end is not None:  # cancelled while the model ran
                continue
            if error is not None:
                self.end(job, error)
            elif job.done:
                self.end(job, job.giving_up or self._last_word(job))
            elif isinstance(job, Completion):
                job.put(choice, text)
                self._settle(job)
                self._note(job)

    def expire(self, now_s: float) -> None:
        """End jobs whose time is over."""
        if not self._deadlines or now_s < min(self._deadlines.values()):
            return
        for job, deadline_s in list(self._deadlines.items()):
            if deadline_s > now_s:
                continue
            if not job.out_of_time():
                self.give_up(job, DeadlineExceeded(job.timeout_s or 0.0))
            elif job.can_leave:
                self._let_leave(job)
            else:
                self.end(job, self._last_word(job))

    def give_up(self, job: Job, error: ServingError) -> None:
        """End a job early; a turn that keeps what it has reads its last token first."""
        if job.end is None and job.can_be_kept:
            job.giving_up = job.giving_up or error
            self._let_leave(job)
        else:
            self.end(job, error)

    def resume(self, job: Job) -> None:
        """Let a job go on that was paused because its reader lagged."""
        if job.paused:
            job.paused = False
            self.scheduler.resume(job)

    def end(self, job: Job, end: object) -> None:
        """Free the slot and tell the reader; nothing happens to what has ended."""
        if job.end is not None:
            return
        self._deadlines.pop(job, None)
        self.scheduler.remove(job)
        job.close(end)
        self._note(job)

    def _settle(self, completion: Completion) -> None:
        """After a token: finish the completion, or pause it while its reader lags."""
        if completion.leaving:
            return
        if completion.reason is not None:
            self.end(completion, self._last_word(completion))
        elif completion.num_unread >= self._max_unread_tokens:
            completion.paused = True
            self.scheduler.pause(completion)

    def _let_leave(self, job: Job) -> None:
        self._deadlines.pop(job, None)
        self.resume(job)

    def _note(self, job: Job) -> None:
        if job.due():
            self._due.append(job)
