"""Runs models over spans; the logits of a span are never all in memory.

One model has one value a target, its nats. Two have four, the rows of SUMS[2]: nats of the model
and of the baseline, the Kullback-Leibler divergence of the model from the baseline, sum
p_b (ln p_b - ln p_m) in nats, and 1 where both find the same token likeliest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.protocols import Span
from spiketrain.runtime.errors import DataError
from spiketrain.runtime.scoring import MAX_BLOCK_LOGITS, MAX_BLOCK_TOKENS, token_nats

SUMS = {1: ("nll_nats",), 2: ("nll_nats", "baseline_nll_nats", "kl_nats", "same_top_1")}
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
    nats: NDArray[np.float64] = values_of([model], [state], span)[0]
    return nats


def values_of(models: Sequence[Any], states: Sequence[Any], span: Span) -> NDArray[np.float64]:
    """Values (sums, T) of the span's targets; the states of the models advance."""
    blocks = zip(*map(logits_of, models, states, repeat(span)), strict=True)
    parts = [_values(block[0][0], [logits for _, logits in block]) for block in blocks]
    return np.concatenate([np.empty((len(SUMS[len(models)]), 0)), *parts], axis=1)


def values_together(models: Sequence[Any], spans: Sequence[Span]) -> list[NDArray[np.float64]]:
    """As `values_of` each span, for spans that all start from the zero state.

    One token of each span goes into a call. Bitwise the same as one by one in the runtime; what is
    saved is reading weights several times.
    """
    columns_of_spans: list[list[list[float]]] = [[] for _ in spans]
    for steps in zip(*(logits_together(model, spans) for model in models), strict=True):
        which, targets, _ = steps[0]
        values = _values(targets, [logits for _, _, logits in steps])
        for span, column in zip(which, values.T.tolist(), strict=True):
            columns_of_spans[span].append(column)
    size = len(SUMS[len(models)])
    return [np.asarray(columns, np.float64).reshape(-1, size).T for columns in columns_of_spans]


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


def _values(
    targets: NDArray[np.int64], logits: Sequence[NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Values (sums, T) of targets (T,) from the logits (T, V) of one model or two."""
    nats = [token_nats(one, targets) for one in logits]
    if len(logits) == 1:
        return np.stack(nats)
    ours, theirs = logits
    same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    return np.stack([*nats, _divergence(theirs, ours), same.astype(np.float64)])


def _divergence(p: NDArray[np.float32], q: NDArray[np.float32]) -> NDArray[np.float64]:
    """Kullback-Leibler divergence (T,) in nats of softmax(q) from softmax(p), both (T, V)."""
    log_p, log_q = _log_softmax(p), _log_softmax(q)
    kl: NDArray[np.float64] = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return np.maximum(kl, 0.0)  # what rounding leaves of equal distributions


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_p: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_p
