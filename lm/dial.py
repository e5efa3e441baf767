"""The dial of a torch model: how far the sizes are raised below which inputs are silent.

The runtime's meaning (spiketrain.runtime.dial), for all sequences of a model at once.
"""

from torch import nn

from spiketrain.runtime.dial import MAX_DIAL, NO_DIAL, checked_dial


def set_dial(model: nn.Module, dial: float) -> None:
    """Turn the dial of all places of spike counts; RequestError outside [1, 16] or without any."""
    places = [module for module in model.modules() if hasattr(module, "dial")]
    dial = checked_dial(dial, MAX_DIAL if places else NO_DIAL)
    for place in places:
        place.dial = dial
