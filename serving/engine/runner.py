"""Runner: a batch through the model. An exception fails the requests it concerns, no others."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

import numpy as np
import structlog
from numpy.typing import NDArray

from spiketrain.runtime.errors import CallCancelled, SpiketrainError
from spiketrain.runtime.sampling import sample_rows
from spiketrain.runtime.state import State
from spiketrain.serving.engine.completion import Completion
from spiketrain.serving.engine.job import Job
from spiketrain.serving.engine.pace import Pace
from spiketrain.serving.engine.prefix_cache import PrefixCache
from spiketrain.serving.engine.sampler import Choice
from spiketrain.serving.engine.scheduler import Batch, Chunk
from spiketrain.serving.errors import EngineFailure, ServingError
from spiketrain.serving.model import Model
from spiketrain.serving.request.events import RequestActivity

log = structlog.get_logger()

NOTHING_READ = RequestActivity(
    tokens=0,
    neurons=0,
    events=0,
    weight_bytes_touched_per_token=0.0,
    weight_bytes_dense_per_token=0.0,
)


class Outcome(NamedTuple):
    """What a batch did for one job: a token and the text to show, an error, or its end."""

    job: Job
    choice: Choice = Choice(-1)
    text: str = ""
    error: ServingError | None = None


class Runner:
    """Calls a model from one thread and samples from its logits."""

    def __init__(self, model: Model, prefixes: PrefixCache, clock: Callable[[], float]) -> None:
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
        if not completion.has_state:
            return NOTHING_READ
        state = completion.state
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
            job.begin(self._model)
            if chunk.stop > chunk.start:
                self._read(job, chunk)
        except CallCancelled:
            return []
        except BaseException as error:  # a library's panic is no Exception
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
        return self._sample([job], [job.logits])

    def _read(self, job: Job, chunk: Chunk[Job]) -> None:
        started_s = self._clock()
        job.read(self._model, chunk)
        self.pace.measure(chunk.stop - chunk.start, self._clock() - started_s)

    def _decode(self, completions: tuple[Completion, ...]) -> list[Outcome]:
        states = [completion.state for completion in completions]
        tokens = [completion.token for completion in completions]
        try:
            logits = self._step(states, tokens)
        except BaseException as error:  # a library's panic is no Exception
            return _failures(completions, error)
        outcomes: list[Outcome] = []
        going_on: list[Completion] = []
        rows: list[NDArray[np.float32]] = []
        for completion, row in zip(completions, logits, strict=True):
            if completion.leaving:
                completion.logits = row.copy()
                completion.leave()
                outcomes.append(Outcome(completion))
            else:
                going_on.append(completion)
                rows.append(row)
        return outcomes + self._sample(going_on, rows)

    def _step(self, states: list[State], tokens: list[int]) -> NDArray[np.float32]:
        if self._dense_bytes:
            return self._model.step(states, tokens)
        before = self._model.activity()
        logits = self._model.step(states, tokens)
        after = self._model.activity()
        dense = after.weight_bytes_dense - before.weight_bytes_dense
        self._dense_bytes = dense / (after.tokens - before.tokens)
        return logits

    def _sample(
        self, completions: Sequence[Completion], logits: Sequence[NDArray[np.float32]]
    ) -> list[Outcome]:
        """A token for each completion from its logits (V,), all drawn in one call."""
        outcomes: list[Outcome] = []
        drawing: list[tuple[Completion, NDArray[np.float32]]] = []
        rows: list[NDArray[np.float32]] = []
        for completion, unadjusted in zip(completions, logits, strict=True):
            row = _adjusted(completion, unadjusted)
            if isinstance(row, Outcome):
                outcomes.append(row)
            else:
                rows.append(row)
                drawing.append((completion, unadjusted))
        if not rows:
            return outcomes
        params = [completion.sampler.sampling for completion, _ in drawing]
        tokens = sample_rows(rows, params, [completion.position for completion, _ in drawing])
        now_s = self._clock()
        for (completion, unadjusted), token in zip(drawing, tokens, strict=True):
            outcomes.append(_taken(completion, unadjusted, token, now_s))
        return outcomes


def _adjusted(completion: Completion, logits: NDArray[np.float32]) -> NDArray[np.float32] | Outcome:
    """What to draw a completion's token from, or what came of it without a draw."""
    try:
        return completion.sampler.adjusted(logits, completion.new_tokens)
    except BaseException as error:
        return _failure(completion, error)


def _taken(
    completion: Completion, logits: NDArray[np.float32], token: int, now_s: float
) -> Outcome:
    """What became of a completion whose token was drawn, -1 where that could not be."""
    try:
        if token < 0:
            raise SpiketrainError("logits must be finite")
        choice = completion.sampler.take(token, logits)
        return Outcome(completion, choice, completion.accept(token, now_s))
    except BaseException as error:
        return _failure(completion, error)


def _failure(completion: Completion, error: BaseException) -> Outcome:
    """The outcome of the one completion that an exception concerns: of the request or the model."""
    if isinstance(error, ServingError):
        return Outcome(completion, error=error)
    return _failures([completion], error)[0]


def _failures(jobs: Iterable[Job], error: BaseException) -> list[Outcome]:
    """Log an exception of the model and turn it into an outcome for each job concerned."""
    log.error("the model failed", error=repr(error), exc_info=error)
    failure = EngineFailure("the model failed on this request, see the server's log")
    return [Outcome(job, error=failure) for job in jobs]
