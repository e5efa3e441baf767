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
    """Sums over the recorded tokens of all products that read events; None but for an EGRU package.

    Products of the embedding are left out: the runtime reads them from a table.
    """
    if not recording or model.config.get("model_type") != "egru" or not hasattr(model, "path"):
        return None
    from spiketrain.runtime.formats import widened
    from spiketrain.runtime.package import read_package

    tensors = read_package(model.path).tensors
    layers = [recording[f"layers.{layer}"] for layer in range(len(recording))]
    inputs: list[tuple[str, NDArray[np.int32]]] = []
    for layer, counts in enumerate(layers):
        if layer:
            inputs.append((f"layers.{layer}.input", layers[layer - 1]))
        before = np.concatenate([np.zeros_like(counts[:1]), counts[:-1]])  # of the token before
        inputs.append((f"layers.{layer}.recurrent", before))
    inputs.append(("projection" if "projection.weight" in tensors else "head", layers[-1]))
    dense = effective = 0
    for name, counts in inputs:
        weight = widened(tensors[f"{name}.weight"])
        events = (counts != 0).sum(axis=0, dtype=np.int64)  # (I,)
        effective += int(events @ np.count_nonzero(weight, axis=1))
        dense += counts.shape[0] * weight.size
    return {"dense": dense, "effective_macs": effective, "effective_acs": 0}
