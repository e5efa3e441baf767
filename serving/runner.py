"""Runner: a batch through the model. An exception fails the requests it concerns, no others."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import numpy as np
import structlog
from numpy.typing import NDArray

from runtime.errors import CallCancelled
from serving.chooser import Choice
from serving.completion import Completion
from serving.errors import EngineFailure, ServingError
from serving.events import RequestActivity
from serving.job import Job
from serving.pace import Pace
from serving.prefix_cache import PrefixCache
from serving.scheduler import Batch, Chunk

log = structlog.get_logger()


class Outcome(NamedTuple):
    """What a batch did for one job: a token and the text to show, an error, or its end."""

    job: Job
    choice: Choice = Choice(-1)
    text: str = ""
    error: ServingError | None = None


class Runner:
    """Calls a model from one thread and samples from its logits."""

    def __init__(self, model: Any, prefixes: PrefixCache, clock: Callable[[], float]) -> None:
        self.pace = Pace()
        self._model = model
        self._prefixes = prefixes
        self._clock = clock
        self._dense_bytes = 0.0  # weights of a dense pass for one token, known after a step

    def run(self, batch: Batch[Job]) -> list[Outcome]:
        """Read the batch's prompt chunks, then decode one token for each running sequence."""
        outcomes: list[Outcome] = []
        for chunk in batch.chunks:
            outcomes += self._prefill(chunk)
        if batch.decode:
            outcomes += self._decode(cast(tuple[Completion, ...], batch.decode))
        return outcomes

    def activity(self, completion: Completion) -> RequestActivity:
        """What the network did for this completion, from its state's own counters."""
        state = completion.state
        if state is None:
            return RequestActivity(0, 0, 0, 0.0, 0.0)
        end_of_prompt = completion.first_position + len(completion.prompt_ids)
        decoded = max(state.position - end_of_prompt, 0)
        touched = state.weight_bytes - completion.prompt_weight_bytes
        return RequestActivity(
            tokens=state.position - completion.read_before,
            neurons=state.neurons,
            events=state.events,
            weight_bytes_touched_per_token=touched / decoded if decoded else 0.0,
            weight_bytes_dense_per_token=self._dense_bytes if decoded else 0.0,
        )

    def _prefill(self, chunk: Chunk[Job]) -> list[Outcome]:
        job = chunk.key
        if job.end is not None:  # cancelled since the batch was chosen
            return []
        try:
            if job.state is None:
                job.state = self._model.new_state()
            if chunk.stop > chunk.start:
                self._read(job, chunk)
        except CallCancelled:
            return []
        except Exception as error:
            return _failures([job], error)
        if chunk.stop in job.origin.marks:
            self._prefixes.keep(job.origin.marks[chunk.stop], job.state)
        if not chunk.last:
            return []
        if not isinstance(job, Completion):
            job.leave()
            return [Outcome(job)]
        job.prompt_weight_bytes = job.state.weight_bytes
        job.prompt_is_read()
        assert job.logits is not None
        return [self._sample(job, job.logits)]

    def _read(self, job: Job, chunk: Chunk[Job]) -> None:
        started_s = self._clock()
        job.read(self._model, chunk)
        self.pace.measure(chunk.stop - chunk.start, self._clock() - started_s)

    def _decode(self, completions: tuple[Completion, ...]) -> list[Outcome]:
        states = [completion.state for completion in completions]
        tokens = [completion.token for completion in completions]
        try:
            logits = self._step(states, tokens)
        except Exception as error:
            return _failures(completions, error)
        return list(map(self._after_step, completions, logits))

    def _after_step(self, completion: Completion, logits: NDArray[np.float32]) -> Outcome:
        if not completion.leaving:
            return self._sample(completion, logits)
        completion.logits = logits.copy()
        completion.leave()
        return Outcome(completion)

    def _step(self, states: list[Any], tokens: list[int]) -> NDArray[np.float32]:
        if self._dense_bytes:
            return self._model.step(states, tokens)
        before = self._model.activity()
        logits = self._model.step(states, tokens)
        after = self._model.activity()
        dense = after.weight_bytes_dense - before.weight_bytes_dense
        self._dense_bytes = dense / (after.tokens - before.tokens)
        return logits

    def _sample(self, completion: Completion, logits: NDArray[np.float32]) -> Outcome:
        try:
            choice = completion.chooser.choose(logits, completion.position, completion.new_tokens)
            return Outcome(completion, choice, completion.accept(choice.token, self._clock()))
        except ServingError as error:  # of the request, not of the model
            return Outcome(completion, error=error)
        except Exception as error:
            return _failures([completion], error)[0]


def _failures(jobs: Iterable[Job], error: Exception) -> list[Outcome]:
    """Log an exception of the model and turn it into an outcome for each job concerned."""
    log.error("the model failed", error=repr(error), exc_info=error)
    failure = EngineFailure("the model failed on this request, see the server's log")
    return [Outcome(job, error=failure) for job in jobs]
