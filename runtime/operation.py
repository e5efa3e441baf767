"""The operations of a family's network for a token, in the order of data.

A walk starts behind the embedding, whose rows are the network's input. Sums of branches are no
operations of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from spiketrain.runtime.formats import FLOATS

EVENT_STEPS = 32767  # of a graded event of 1, where events are whole numbers
LAYER_NORM = "LayerNorm over the channels"
RMS_NORM = "RMS norm over the channels"
_ROUNDED = "a matrix of {weights} codes that reads rounded signals"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; `place` names its tensors.

    node: of NIR, "Linear", "Affine", "LIF" or None. NIR's nodes are matrices, sums, delays and
    neurons (IF, LIF, LI and their kin). No node multiplies two signals, normalises a vector, takes
    an exponential or counts spikes against a threshold of its own for every token.
    tau: time constant of LIF units, in tokens.
    """

    place: str
    what: str
    node: str | None = None
    tau: float | None = None


@dataclass(frozen=True, slots=True)
class EventProduct:
    """A product that reads graded events: its matrix, the place of the events, and their delay.

    delay: 1 where the events of the token before are read, else 0.
    """

    matrix: str
    place: str
    delay: int = 0


def matrix_operation(place: str, weights: str, node: str = "Linear") -> Operation:
    """A matrix of floats has a node; integer codes come with a rounding of inputs or of events."""
    if weights in FLOATS:
        return Operation(place, "a matrix", node)
    return Operation(place, _ROUNDED.format(weights=weights))
