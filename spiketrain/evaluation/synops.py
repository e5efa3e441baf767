"""Synaptic operations by NeuroBench's definition, from recorded events and a package's weights.

Effective operations of a product are pairs of a non-zero input and a non-zero weight: for input i
with n_i events and w_i non-zero weights in its row, sum of n_i w_i. They are ACs if all inputs are
-1, 0 or 1, else MACs; an EGRU's events carry values, so all are MACs. Dense counts every pair.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrain.evaluation.recording import Recording


def synops_by_neurobench(model: Any, recording: Recording) -> dict[str, int] | None:
    """Sums over the recorded tokens of all products that read graded events.

    None for a model without any, or one that is no package.

    Products of the embedding are left out: the runtime reads them from a table.
    """
    from spiketrain.runtime.formats import widened
    from spiketrain.runtime.model import Model
    from spiketrain.runtime.package import read_package

    if not recording or not isinstance(model, Model) or not model.spec.event_products:
        return None

    tensors = read_package(model.path).tensors
    dense = effective = 0
    for product in model.spec.event_products:
        counts = _delayed(recording[product.place], product.delay)
        weight = widened(tensors[f"{product.matrix}.weight"])
        events = (counts != 0).sum(axis=0, dtype=np.int64)  # (I,)
        effective += int(events @ np.count_nonzero(weight, axis=1))
        dense += counts.shape[0] * weight.size
    return {"dense": dense, "effective_macs": effective, "effective_acs": 0}


def _delayed(counts: NDArray[np.int32], tokens: int) -> NDArray[np.int32]:
    """The counts (T, H) of so many tokens before, zero before the first."""
    if not tokens:
        return counts
    return np.concatenate([np.zeros_like(counts[:tokens]), counts[:-tokens]])
