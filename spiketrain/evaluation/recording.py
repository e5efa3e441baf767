"""Records every unit at every token: spikes as whole numbers, from the runtime or from torch.

Spike counts before products are what the runtime's `record` returns. What a state shows of its
units' spikes the family reads. The torch model gives values: graded, or whole multiples of a
threshold of each token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.stop import NEVER, Stop
from spiketrain.runtime.operation import EVENT_STEPS

PIECE_TOKENS = 32  # between two looks at a wish to stop

Recording = dict[str, NDArray[np.int32]]


def record(model: Any, token_ids: NDArray[np.int64], stop: Stop = NEVER) -> Recording:
    """Counts (T, H) of each place of spikes over T tokens from the zero state; none: no places.

    Once `stop` is wanted, over the tokens read so far.
    """
    state, parts = model.new_state(), []
    for begin in range(0, token_ids.size, PIECE_TOKENS):
        if stop.requested:
            break
        parts.append(_piece(model, state, token_ids[begin : begin + PIECE_TOKENS]))
    if not parts:
        return {}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _piece(model: Any, state: Any, token_ids: NDArray[np.int64]) -> Recording:
    """The counts of some tokens; `state` advances."""
    if hasattr(model, "events"):
        return _from_torch(model, state, token_ids)
    if model.records:
        recording: Recording = model.record(state, token_ids)
        return recording
    rows: dict[str, list[NDArray[np.int32]]] = {}
    arrays = state.arrays()
    for token in token_ids.tolist():
        model.step([state], [token])
        for name, counts in model.spec.spikes_in_state(arrays).items():
            rows.setdefault(name, []).append(counts)
    return {name: np.stack(counts) for name, counts in rows.items()}


def _from_torch(model: Any, state: Any, token_ids: NDArray[np.int64]) -> Recording:
    recording: Recording = {}
    graded = model.graded_events
    for place, events in enumerate(model.events(state, token_ids)):
        size = np.abs(events)
        unit = np.full((len(events), 1), 1 / EVENT_STEPS) if graded else _thresholds(size)
        counts = np.zeros(events.shape, np.int32)
        np.copyto(counts, np.rint(events / unit), where=size > 0, casting="unsafe")
        counts[(size > 0) & (counts == 0)] = 1
        recording[f"layers.{place}" if graded else f"events.{place}"] = counts
    return recording


def _thresholds(size: NDArray[np.float32]) -> NDArray[np.float64]:
    """What each token's values (T, H) >= 0 are multiples of: the least of them and their steps."""
    ordered = np.sort(size.astype(np.float64), axis=1)
    least = np.where(size > 0, size, np.inf).min(axis=1, keepdims=True)
    steps = np.diff(ordered, axis=1, prepend=0.0)
    steps[steps < 0.01 * least] = np.inf  # rounding
    recording: NDArray[np.float64] = steps.min(axis=1, keepdims=True)
    return recording
