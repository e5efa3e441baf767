"""Measures the effect of dials on a model: loss and silent inputs on a text, dial by dial."""

from typing import Any

import torch
from torch import Tensor

from spiketrain.lm.dial import set_dial
from spiketrain.runtime.dial import NO_DIAL

STEPS = 4  # from 1 to the end of the range, in equal ratios


@torch.no_grad()
def measure_dials(model: Any, input_ids: Tensor, most: float) -> list[dict[str, float]]:
    """Nats a token on input_ids (B, T) and the share of inputs that are 0, from dial 1 to `most`.

    The share is the mean over the places of spikes.  RequestError for a range that is none.
    """
    model.eval()
    measurements = []
    try:
        for step in range(STEPS + 1):
            dial = most ** (step / STEPS)
            set_dial(model, dial)
            features, _, events = model.features(input_ids[:, :-1])
            zeros = [(read == 0).float().mean().item() for read in events]
            nats = model.mean_nll(features, input_ids[:, 1:]).item()
            measurements.append({"dial": dial, "nats": nats, "zeros": sum(zeros) / len(zeros)})
    finally:
        set_dial(model, NO_DIAL)
    return measurements
