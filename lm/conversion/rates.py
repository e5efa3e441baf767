"""Sets a number for each layer from text, so that the layer fires at a rate in a stated range."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BISECTIONS = 12


@dataclass(frozen=True)
class Dial:
    """The number that a layer's firing rate depends on: how it is set, and its two ends.

    The rate at `loud` is the highest; towards `quiet` it falls.
    """

    turn: Callable[[float], Any]
    loud: float
    quiet: float


@torch.no_grad()
def calibrate_rates(
    model: Any, dials: Sequence[Dial], input_ids: Tensor, low: float, high: float, skip: int = 16
) -> list[float]:
    """Turn each dial such that the firing rate of its layer on input_ids (B, T) is in [low, high].

    dials: in the order of the events that model.features gives.  Layers are set first to last,
    since each changes the input of the next; the first `skip` steps from the zero state are not
    counted.  A layer that fires at most `high` at its loudest stays there; others are found by
    bisection.  Returns the firing rates.  Raises ValueError unless 0 < low < high < 1 and T > skip.
    """
    if not 0.0 < low < high < 1.0:
        raise ValueError(f"firing rates must be 0 < low < high < 1, got {low} and {high}")
    if input_ids.shape[1] <= skip:
        raise ValueError(f"input_ids must have more than {skip} steps, got {input_ids.shape[1]}")
    rates = []
    for index, dial in enumerate(dials):
        loud, quiet = dial.loud, dial.quiet
        dial.turn(loud)
        rate = _firing_rate(model, input_ids, index, skip)
        for _ in range(BISECTIONS if rate > high else 0):
            middle = (loud + quiet) / 2
            dial.turn(middle)
            rate = _firing_rate(model, input_ids, index, skip)
            if low <= rate <= high:
                break
            loud, quiet = (middle, quiet) if rate > high else (loud, middle)
        rates.append(rate)
    return rates


def _firing_rate(model: Any, input_ids: Tensor, index: int, skip: int) -> float:
    """Events of layer `index` a unit and step, after `skip` steps."""
    _, _, events = model.features(input_ids)
    return float((events[index][skip:] != 0).float().mean())
