"""Thresholds of an EGRU set from text, so that firing rates land in a stated range."""

import torch
from torch import Tensor

from lm.families.egru import Model

BISECTIONS = 12


@torch.no_grad()
def calibrate_thresholds(
    model: Model, input_ids: Tensor, low: float, high: float, skip: int = 16
) -> list[float]:
    """Set one threshold a layer such that its firing rate on input_ids (B, T) is in [low, high].

    Layers are set first to last, since each changes the input of the next; the first `skip` steps
    from the zero state are not counted.  A layer that fires less than `high` at threshold 0 keeps
    0.  The reset c <- c - theta makes the rate fall with the threshold, so bisection finds it.
    Returns the firing rates.  Raises ValueError unless 0 < low < high < 1 and T > skip.
    """
    if not 0.0 < low < high < 1.0:
        raise ValueError(f"firing rates must be 0 < low < high < 1, got {low} and {high}")
    if input_ids.shape[1] <= skip:
        raise ValueError(f"input_ids must have more than {skip} steps, got {input_ids.shape[1]}")
    rates = []
    for index, layer in enumerate(model.layers):
        layer.threshold.zero_()
        rate = _firing_rate(model, input_ids, index, skip)
        least, most = 0.0, 1.0
        for _ in range(BISECTIONS if rate > high else 0):
            middle = (least + most) / 2
            layer.threshold.fill_(middle)
            rate = _firing_rate(model, input_ids, index, skip)
            if low <= rate <= high:
                break
            least, most = (middle, most) if rate > high else (least, middle)
        rates.append(rate)
    return rates


def _firing_rate(model: Model, input_ids: Tensor, index: int, skip: int) -> float:
    """Events of layer `index` a unit and step, after `skip` steps."""
    _, _, events = model.features(input_ids)
    return (events[index][skip:] != 0).float().mean().item()
