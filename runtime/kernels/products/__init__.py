"""Products of a block of tokens with a matrix, read as a whole or by the rows of events."""

from spiketrain.runtime.kernels.products.dense import (
    FORMATS,
    GROUPS,
    MAX_INPUTS,
    PANEL,
    Dense,
    Pool,
    multiply_all,
    pack,
    panels_shape,
    quantise_row,
)
from spiketrain.runtime.kernels.products.events import (
    SPAN,
    Events,
    Sparse,
    check_extra,
)

__all__ = [
    "FORMATS",
    "GROUPS",
    "MAX_INPUTS",
    "PANEL",
    "SPAN",
    "Dense",
    "Events",
    "Pool",
    "Sparse",
    "check_extra",
    "multiply_all",
    "pack",
    "panels_shape",
    "quantise_row",
]
