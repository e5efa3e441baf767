"""Runner: a batch through the model. An exception fails the requests it concerns, no others."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from runtime.sampling import sample
from serving.completion import Completion
from serving.errors import EngineFailure
from serving.events import RequestActivity
from serving.scheduler import Batch, Chunk

log = structlog.get_logger()


class Outcome(NamedTuple):
    """What a batch did for one completion: a token and the text to show, or an error."""

    completion: Completion
    token: int = -1
    text: str = ""
    error: EngineFailure | None = None


class Runner:
    """Calls a model from one thread and samples from its logits."""

    def __init__(self, model: Any, clock: Callable[[], float]) -> None:
        self._model = model
        self._clock = clock

    def run(self, batch: Batch[Completion]) -> list[Outcome]:
        """Read the batch's prompt chunks, then decode one token for each running sequence."""
        outcomes: list[Outcome] = []
        for chunk in batch.chunks:
            outcomes += self._prefill(chunk)
        if batch.decode:
            outcomes += self._decode(batch.decode)
        return outcomes

    def activity(self, state: Any) -> RequestActivity:
        """What the network did to reach this state, from the state's own counters."""
        dense = self._model.activity()
        return RequestActivity(
            tokens=state.position,
            neurons=state.neurons,
            events=state.events,
            weight_bytes_touched_per_token=state.weight_bytes / state.position,
            weight_bytes_dense_per_token=dense.weight_bytes_dense / max(dense.tokens, 1),
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
        return [self._sample(completion, logits)] if chunk.last else []

    def _decode(self, completions: tuple[Completion, ...]) -> list[Outcome]:
        states = [completion.state for completion in completions]
        tokens = [completion.token for completion in completions]
        try:
            logits = self._model.step(states, tokens)
        except Exception as error:
            return _failures(completions, error)
        return list(map(self._sample, completions, logits))

    def _sample(self, completion: Completion, logits: NDArray[np.float32]) -> Outcome:
        try:
            token = sample(logits, completion.request.sampling, completion.position)
            return Outcome(completion, token, completion.accept(token, self._clock()))
        except Exception as error:
            return _failures([completion], error)[0]


def _failures(completions: Iterable[Completion], error: Exception) -> list[Outcome]:
    """Log an exception of the model and turn it into an outcome for each completion concerned."""
    log.error("the model failed", error=repr(error), exc_info=error)
    failure = EngineFailure("the model failed on this request, see the server's log")
    return [Outcome(completion, error=failure) for completion in completions]
