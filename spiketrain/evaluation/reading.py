"""Run a model over spans: what it says of each target, from logits that are never all in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import DataError
from runtime.scoring import MAX_BLOCK_LOGITS, MAX_BLOCK_TOKENS, token_nats
from spiketrain.evaluation.protocols import Span

CELLS = "cell."  # how the arrays of a state that egru-published sets to zero are named


def next_state(model: Any, state: Any, start: str) -> Any:
    """The state from which a span starts; `state` is what the one before it left."""
    if start == "zero":
        return model.new_state()
    if start == "cells":
        for name, array in state.arrays().items():
            if name.startswith(CELLS):
                array[...] = 0
    return state


def check_cells(model: Any) -> None:
    """DataError unless the model has cells that egru-published could set to zero."""
    if not any(name.startswith(CELLS) for name in model.new_state().arrays()):
        family = model.config.get("model_type", "unknown")
        raise DataError(f"protocol egru-published needs an EGRU, got model_type {family!r}")


def logits_of(
    model: Any, state: Any, span: Span
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Targets (T,) and the logits (T, V) they are drawn from, block by block; `state` advances."""
    before = np.asarray(span.context[:-1], np.int64)
    if before.size:
        model.forward(state, before, last_only=True)
    targets = np.asarray(span.targets, np.int64)
    inputs = np.concatenate([np.asarray(span.context[-1:], np.int64), targets[:-1]])
    size = max(1, min(MAX_BLOCK_TOKENS, MAX_BLOCK_LOGITS // model.vocab_size))
    for begin in range(0, targets.size, size):
        block = slice(begin, begin + size)
        yield targets[block], model.forward(state, inputs[block])


def nats_of(model: Any, state: Any, span: Span) -> NDArray[np.float64]:
    """Nats (T,) of the span's targets; `state` advances."""
    parts = [token_nats(logits, targets) for targets, logits in logits_of(model, state, span)]
    return np.concatenate(parts) if parts else np.empty(0, np.float64)


def nats_together(model: Any, spans: Sequence[Span]) -> list[NDArray[np.float64]]:
    """Nats of spans that all start from the zero state, one token of each in a call.

    Bitwise the same as one by one in the runtime; what is saved is reading weights several times.
    """
    found: list[list[float]] = [[] for _ in spans]
    for which, targets, logits in logits_together(model, spans):
        for span, value in zip(which, token_nats(logits, targets).tolist(), strict=True):
            found[span].append(value)
    return [np.asarray(values, np.float64) for values in found]


def logits_together(
    model: Any, spans: Sequence[Span]
) -> Iterator[tuple[list[int], NDArray[np.int64], NDArray[np.float32]]]:
    """Spans (N,) that have a target at a step, the targets (N,), logits (N, V) they come from."""
    inputs = [span.context + span.targets[:-1] for span in spans]
    states = [model.new_state() for _ in spans]
    for at in range(max(map(len, inputs))):
        live = [i for i, tokens in enumerate(inputs) if at < len(tokens)]
        logits = model.step([states[i] for i in live], [inputs[i][at] for i in live])
        rows = [row for row, i in enumerate(live) if at >= len(spans[i].context) - 1]
        if not rows:
            continue
        which = [live[row] for row in rows]
        targets = [spans[i].targets[at - len(spans[i].context) + 1] for i in which]
        yield which, np.asarray(targets, np.int64), logits[rows]
