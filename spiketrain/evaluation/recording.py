"""What every unit did at every token: spikes as whole numbers, from the runtime or from torch.

EGRU: a unit's output is in its state; its value is a count of steps of 1/32767 with int8 weights.
SpikeGPT's LIF units reset to exactly zero when they fire, so a membrane at zero after a token is a
spike. Spike counts before products are what the runtime's `record` returns. The torch model gives
values, whole multiples of a threshold of each token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.stop import NEVER, Stop

EVENT_STEPS = 32767  # of an EGRU output of 1
PIECE_TOKENS = 32  # between two looks at a wish to stop

Recording = dict[str, NDArray[np.int32]]


def record(model: Any, token_ids: NDArray[np.int64], stop: Stop = NEVER) -> Recording:
    """Counts (T, H) of each place of spikes over T tokens from the zero state; none: no places.

    Once `stop` is wanted, over the tokens read so far.
    """
    state, parts = model.new_state(), []
    for begin in range(0, token_ids.size, PIECE_TOKENS):
        if stop.wanted:
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
        found: Recording = model.record(state, token_ids)
        return found
    views = {name: array for name, array in state.arrays().items() if _shows_spikes(name)}
    found = {
        _label(name): np.empty((token_ids.size, array.size), np.int32)
        for name, array in views.items()
    }
    for at, token in enumerate(token_ids.tolist()):
        model.step([state], [token])
        for name, array in views.items():
            found[_label(name)][at] = _counts(name, array)
    return found


def _shows_spikes(name: str) -> bool:
    return name.startswith(("output.", "membrane1.", "membrane2."))


def _label(name: str) -> str:
    """How reports name the units of a state's array, as the activity counters do."""
    kind, _, layer = name.partition(".")
    if kind == "output":
        return f"layers.{layer}"
    return f"blocks.{layer}.lif{kind[-1]}"


def _counts(name: str, array: NDArray[Any]) -> NDArray[np.int32]:
    if name.startswith("membrane"):
        return (array == 0).astype(np.int32)
    if array.dtype.kind == "f":
        return np.rint(array * EVENT_STEPS).astype(np.int32) + ((array > 0) & (array < 1e-5))
    return array.astype(np.int32)


def _from_torch(model: Any, state: Any, token_ids: NDArray[np.int64]) -> Recording:
    found: Recording = {}
    graded = model.config["model_type"] == "egru"
    for place, events in enumerate(model.events(state, token_ids)):
        size = np.abs(events)
        unit = np.full((len(events), 1), 1 / EVENT_STEPS) if graded else _thresholds(size)
        counts = np.zeros(events.shape, np.int32)
        np.copyto(counts, np.rint(events / unit), where=size > 0, casting="unsafe")
        counts[(size > 0) & (counts == 0)] = 1
        found[f"layers.{place}" if graded else f"events.{place}"] = counts
    return found


def _thresholds(size: NDArray[np.float32]) -> NDArray[np.float64]:
    """What each token's values (T, H) >= 0 are multiples of: the least of them and their steps."""
    ordered = np.sort(size.astype(np.float64), axis=1)
    least = np.where(size > 0, size, np.inf).min(axis=1, keepdims=True)
    steps = np.diff(ordered, axis=1, prepend=0.0)
    steps[steps < 0.01 * least] = np.inf  # rounding
    found: NDArray[np.float64] = steps.min(axis=1, keepdims=True)
    return found
