"""Thresholds of an EGRU set from text, so that firing rates land in a stated range."""

from torch import Tensor

from spiketrain.lm.conversion.rates import Dial, calibrate_rates
from spiketrain.lm.families.egru import Model


def calibrate_thresholds(
    model: Model, input_ids: Tensor, low: float, high: float, skip: int = 16
) -> list[float]:
    """Set one threshold a layer such that its firing rate on input_ids (B, T) is in [low, high].

    A layer that fires at most `high` at threshold 0 keeps 0; the reset c <- c - theta makes the
    rate fall with the threshold.  Returns the firing rates; see `calibrate_rates`, also for errors.
    """
    dials = [Dial(layer.threshold.data.fill_, loud=0.0, quiet=1.0) for layer in model.layers]
    return calibrate_rates(model, dials, input_ids, low, high, skip)
