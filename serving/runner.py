"""Runner: a batch through the model. An exception fails the requests it concerns, no others."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from serving.chooser import Choice
from serving.completion import Completion
from serving.errors import EngineFailure, ServingError
from serving.events import RequestActivity
from serving.scheduler import Batch, Chunk

log = structlog.get_logger()


class Outcome(NamedTuple):
    """What a batch did for one completion: a token and the text to show, or an error."""

    completion: Completion
    choice: Choice = Choice(-1)
    text: str = ""
    error: ServingError | None = None


class Runner:
    """Calls a model from one thread and samples from its logits."""

    def __init__(self, model: Any, clock: Callable[[], float]) -> None:
        self._model = model
        self._clock = clock
        self._dense_bytes = 0.0  # weights of a dense pass for one token, known after a step

    def run(self, batch: Batch[Completion]) -> list[Outcome]:
        """Read the batch's prompt chunks, then decode one token for each running sequence."""
        outcomes: list[Outcome] = []
        for chunk in batch.chunks:
            outcomes += self._prefill(chunk)
        if batch.decode:
            outcomes += self._decode(batch.decode)
        return outcomes

    def activity(self, completion: Completion) -> RequestActivity:
        """What the network did for this completion, from its state's own counters."""
        state = completion.state
        if state is None:
            return RequestActivity(0, 0, 0, 0.0, 0.0)
        decoded = max(completion.new_tokens - 1, 0)  # the last one is never read
        touched = state.weight_bytes - completion.prompt_weight_bytes
        return RequestActivity(
            tokens=state.position,
            neurons=state.neurons,
            events=state.events,
            weight_bytes_touched_per_token=touched / decoded if decoded else 0.0,
            weight_bytes_dense_per_token=self._dense_bytes if decoded else 0.0,
        )

    def _prefill(self, chunk: Chunk[Completion]) -> list[Outcome]:
        completion = chunk.key
        if completion.end is not None:  # cancelled since the batch was chosen
            return []
        tokens = completion.request.prompt_ids[chunk.start : chunk.stop]
        try:
            if completion.state is None:
                completion.state = self._model.new_state()
            logits = self._model.forward(completion.state, tokens, last_only=True)
        except Exception as error:
            return _failures([completion], error)
        if not chunk.last:
            return []
        completion.prompt_weight_bytes = completion.state.weight_bytes
        return [self._sample(completion, logits)]

    def _decode(self, completions: tuple[Completion, ...]) -> list[Outcome]:
        states = [completion.state for completion in completions]
        tokens = [completion.token for completion in completions]
        try:
            logits = self._step(states, tokens)
        except Exception as error:
            return _failures(completions, error)
        return list(map(self._sample, completions, logits))

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


def _failures(completions: Iterable[Completion], error: Exception) -> list[Outcome]:
    """Log an exception of the model and turn it into an outcome for each completion concerned."""
    log.error("the model failed", error=repr(error), exc_info=error)
    failure = EngineFailure("the model failed on this request, see the server's log")
    return [Outcome(completion, error=failure) for completion in completions]
